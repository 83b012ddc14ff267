"""Compound scaling: how one dial phi becomes depth, width and resolution, and how those become whole numbers.

Paper §3.3: d = alpha^phi, w = beta^phi, r = gamma^phi under alpha * beta^2 * gamma^2 = 2, so that multiply-adds grow
by about 2^phi. Every other rule in the field is a direction of the same form, so a rule is a `Coefficients` value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from trifold.architecture import MAX_CHANNELS, MAX_LAYERS, MAX_RESOLUTION, Architecture, Stage
from trifold.cost import Cost, cost
from trifold.errors import InvalidArchitecture, InvalidInput

PHI_MIN, PHI_MAX = -3.0, 12.0


def _check_positive(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidInput(f"{name} must be a number from {low:g} to {high:g}, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipliers:
    """What depth (layers), width (channels) and resolution (pixels) are multiplied by; each in [0.01, 1000]."""

    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0

    def __post_init__(self) -> None:
        for name in ("depth", "width", "resolution"):
            _check_positive(name, getattr(self, name), 0.01, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """A direction of scaling: the factors of depth, width and resolution at phi = 1; each in [1, 4] (paper eq. 3)."""

    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            _check_positive(name, getattr(self, name), 1, 4)

    @property
    def growth(self) -> float:
        """alpha * beta^2 * gamma^2: the factor of multiply-adds at phi = 1, before rounding (paper §3.3)."""
        return self.alpha * self.beta**2 * self.gamma**2

    def multipliers(self, phi: float) -> Multipliers:
        """alpha^phi, beta^phi and gamma^phi. Raises InvalidInput unless phi is a number in [-3, 12]."""
        _check_positive("phi", phi, PHI_MIN, PHI_MAX)
        return Multipliers(depth=self.alpha**phi, width=self.beta**phi, resolution=self.gamma**phi)


PAPER = Coefficients(alpha=1.2, beta=1.1, gamma=1.15)
"""The paper's direction, found by a grid search on B0 (paper §3.3, step 1)."""

RULES: dict[str, Coefficients] = {
    "compound": PAPER,
    "depth": Coefficients(alpha=2, beta=1, gamma=1),
    "width": Coefficients(alpha=1, beta=math.sqrt(2), gamma=1),
    "resolution": Coefficients(alpha=1, beta=1, gamma=math.sqrt(2)),
    "uniform": Coefficients(alpha=2 ** (1 / 3), beta=2 ** (1 / 6), gamma=2 ** (1 / 6)),
    "fast": Coefficients(alpha=2**0.1, beta=2**0.4, gamma=2**0.05),
    "tiny": Coefficients(alpha=2**0.133, beta=2**0.2435, gamma=2**0.19),
}
"""Directions by name. Single dimensions double the multiply-adds at phi = 1 (paper §3.2); `uniform` gives each
dimension a third of them; `fast` is dWr of "Fast and Accurate Model Scaling" (2103.06877: d = s^0.1, w = s^0.4,
r = s^0.05). `tiny` is meant for phi < 0: depth is nearly kept and width takes half of the cut; its exponents are the
least-squares fit through the five published TinyNets (2010.14819; `published.TINYNETS`, recomputed in the tests)."""


DEPTH_ROUNDING = {"fast": "nearest", "tiny": "nearest"}
"""How the authors of a rule round layers, where it is not up: pycls' scaler, and timm's TinyNets. Rounded up, the
depth of a network smaller than its baseline hardly changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """How multiplied layers, channels and pixels become whole numbers.

    divisor: channels become a multiple of it (8 in every published family), unless the baseline's own channels are
    not: then of the largest common divisor, so that scaling by 1 changes nothing.
    keep_ratio: rounding down never leaves less than this share (0.9; EfficientNetV2 has no such rule: 0).
    depth: "ceil" (TensorFlow, timm, torchvision) or "nearest" (pycls, fast scaling).
    resolution_step: pixels become the nearest multiple of it, with the baseline's own alignment kept as for channels.
    fixed_ends: stem and head keep their channels, first and last stage their layers (EfficientNet-Lite).
    """

    divisor: int = 8
    keep_ratio: float = 0.9
    depth: str = "ceil"
    resolution_step: int = 4
    fixed_ends: bool = False

    def __post_init__(self) -> None:
        for name in ("divisor", "resolution_step"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 256:
                raise InvalidInput(f"{name} must be a whole number from 1 to 256, got {value!r}")
        _check_positive("keep_ratio", self.keep_ratio, 0, 1)
        if self.depth not in ("ceil", "nearest"):
            raise InvalidInput(f"depth must be ceil or nearest, got {self.depth!r}")


def round_channels(channels: int, width: float, rounding: Rounding) -> int:
    """channels * width as the nearest multiple of the divisor, never under keep_ratio of it.

    (tensorflow/tpu efficientnet_model.py `round_filters`; EfficientNetV2's code has no keep_ratio.)
    """
    divisor = math.gcd(rounding.divisor, channels)
    wanted = channels * width
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < rounding.keep_ratio * wanted else rounded


def round_layers(layers: int, depth: float, rounding: Rounding) -> int:
    """layers * depth rounded up (or to nearest, at least 1).

    A product within 1e-9 of a whole number counts as that number: 10 * 1.1 is 11 layers, where bare
    double-precision ceil gives 12. No published network is affected.
    """
    if rounding.depth == "nearest":
        return max(1, round(layers * depth))
    return max(1, math.ceil(layers * depth - 1e-9))


def round_resolution(resolution: int, factor: float, rounding: Rounding) -> int:
    """resolution * factor as the nearest multiple of the step, at least one step and 4 pixels."""
    step = math.gcd(rounding.resolution_step, resolution)
    return max(step, -(-4 // step) * step, int(resolution * factor / step + 0.5) * step)


def scale(architecture: Architecture, multipliers: Multipliers, rounding: Rounding | None = None) -> Architecture:
    """The architecture with its layers, channels and resolution multiplied and rounded; the name stays.

    Raises InvalidArchitecture naming the row where a result is more than a description may hold.
    """
    rounding = rounding or Rounding()
    last = len(architecture.stages) - 1
    stages = tuple(
        _scale_stage(stage, i + 1, multipliers, rounding, fixed_layers=rounding.fixed_ends and i in (0, last))
        for i, stage in enumerate(architecture.stages)
    )
    stem, head = architecture.stem, architecture.head
    if not rounding.fixed_ends:
        stem = replace(stem, channels=_channels("stem", stem.channels, multipliers, rounding))
        if head.channels:
            head = replace(head, channels=_channels("head", head.channels, multipliers, rounding))
    resolution = round_resolution(architecture.resolution, multipliers.resolution, rounding)
    return replace(
        architecture,
        resolution=_limited("the image", "resolution", MAX_RESOLUTION, resolution),
        stem=stem,
        stages=stages,
        head=head,
    )


def _scale_stage(
    stage: Stage, number: int, multipliers: Multipliers, rounding: Rounding, *, fixed_layers: bool
) -> Stage:
    where = f"stages row {number}"
    layers = stage.layers if fixed_layers else round_layers(stage.layers, multipliers.depth, rounding)
    return replace(
        stage,
        channels=_channels(where, stage.channels, multipliers, rounding),
        layers=_limited(where, "layers", MAX_LAYERS, layers),
    )


def _channels(where: str, channels: int, multipliers: Multipliers, rounding: Rounding) -> int:
    return _limited(where, "channels", MAX_CHANNELS, round_channels(channels, multipliers.width, rounding))


def _limited(where: str, name: str, limit: int, value: int) -> int:
    if value > limit:
        raise InvalidArchitecture(f"{where}: scaling gives {name} {value:,}; at most {limit:,} are allowed")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One network of a family: the baseline at one phi, with its cost."""

    phi: float
    multipliers: Multipliers
    architecture: Architecture
    cost: Cost


def family(
    architecture: Architecture,
    phis: Iterable[float],
    coefficients: Coefficients = PAPER,
    rounding: Rounding | None = None,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> tuple[Member, ...]:
    """The networks that phi makes of a baseline (paper §3.3, step 2).

    Raises InvalidInput if a phi is out of [-3, 12] or its network is larger than a description may be.
    """
    members = []
    for phi in phis:
        multipliers = coefficients.multipliers(phi)
        scaled = scale(architecture, multipliers, rounding)
        spent = cost(scaled, num_classes=num_classes, in_channels=in_channels)
        members.append(Member(phi=phi, multipliers=multipliers, architecture=scaled, cost=spent))
    return tuple(members)
