"""The baselines as values, in the paper's own table form, and the families that published multipliers make of them."""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import dataclass, field, replace
from pathlib import Path

from trifold.architecture import Architecture, Head, Stage, Stem, read
from trifold.errors import InvalidArchitecture
from trifold.scaling import Multipliers, Rounding, scale


def _mb(layers: int, kernel_size: int, stride: int, expand_ratio: float, channels: int, **other: object) -> Stage:
    """One MBConv row in the order of TensorFlow's block strings: r, k, s, e, o."""
    row = Stage(
        operator="mbconv",
        layers=layers,
        kernel_size=kernel_size,
        stride=stride,
        expand_ratio=expand_ratio,
        channels=channels,
        se_ratio=0.25,
    )
    return replace(row, **other)  # type: ignore[arg-type]  # field names are checked by replace itself


def _fused(layers: int, stride: int, expand_ratio: float, channels: int) -> Stage:
    """One Fused-MBConv row, 3x3, no squeeze-excite."""
    return _mb(layers, 3, stride, expand_ratio, channels, operator="fused_mbconv", se_ratio=0)


EFFICIENTNET_B0 = Architecture(
    name="efficientnet_b0",
    resolution=224,
    stem=Stem(channels=32),
    stages=(
        _mb(1, 3, 1, 1, 16),
        _mb(2, 3, 2, 6, 24),
        _mb(2, 5, 2, 6, 40),
        _mb(3, 3, 2, 6, 80),
        _mb(3, 5, 1, 6, 112),
        _mb(4, 5, 2, 6, 192),
        _mb(1, 3, 1, 6, 320),
    ),
    head=Head(channels=1280),
)
"""EfficientNet-B0 (paper Table 1; tensorflow/tpu efficientnet_builder.py)."""

EFFICIENTNET_MINI = Architecture(
    name="efficientnet_mini",
    resolution=32,
    stem=Stem(channels=8, stride=1),
    stages=(
        _mb(1, 3, 1, 1, 8),
        _mb(2, 3, 2, 6, 8),
        _mb(2, 5, 2, 6, 16),
        _mb(3, 3, 2, 6, 24),
        _mb(3, 5, 1, 6, 32),
    ),
    head=Head(channels=256),
)
"""B0's first rows at a quarter of the width for images of 16 to 64 pixels: total stride 8 where B0 has 32.

Not a published network: B0 itself leaves one pixel of a 32x32 image.
"""


def _activation(architecture: Architecture, activation: str, **stage: object) -> Architecture:
    """The architecture with another activation everywhere and the given stage fields."""
    return replace(
        architecture,
        stem=replace(architecture.stem, activation=activation),
        stages=tuple(replace(row, activation=activation, **stage) for row in architecture.stages),  # type: ignore[arg-type]  # as in _mb
        head=replace(architecture.head, activation=activation),
    )


EFFICIENTNET_LITE0 = replace(_activation(EFFICIENTNET_B0, "relu6", se_ratio=0), name="efficientnet_lite0")
"""EfficientNet-Lite0: B0 without squeeze-excite, ReLU6 (tensorflow/tpu efficientnet_lite_builder.py)."""

EFFICIENTNET_ES = _activation(
    Architecture(
        name="efficientnet_es",
        resolution=224,
        stem=Stem(channels=32),
        stages=(
            replace(_fused(1, 1, 4, 24), expand_of="output", skip=False),
            _fused(2, 2, 8, 32),
            _fused(4, 2, 8, 48),
            _mb(5, 5, 2, 8, 96, se_ratio=0),
            _mb(4, 5, 1, 8, 144, se_ratio=0),
            _mb(2, 5, 2, 8, 192, se_ratio=0),
        ),
        head=Head(channels=1280),
    ),
    "relu",
)
"""EfficientNet-EdgeTPU-S. The first row expands 24 channels although the stem gives 32: its code counts the nominal
input, which equals the row's output (tensorflow/tpu efficientnet_edgetpu_builder.py)."""

EFFICIENTNETV2_B0 = Architecture(
    name="efficientnetv2_b0",
    resolution=224,
    stem=Stem(channels=32),
    stages=(
        _fused(1, 1, 1, 16),
        _fused(2, 2, 4, 32),
        _fused(2, 2, 4, 48),
        _mb(3, 3, 2, 4, 96),
        _mb(5, 3, 1, 6, 112),
        _mb(8, 3, 2, 6, 192),
    ),
    head=Head(channels=1280),
)
"""EfficientNetV2-B0, the base of B1 to B3 (google/automl effnetv2_configs.py); evaluated at 224, trained at 192."""

EFFICIENTNETV2_S = replace(
    EFFICIENTNETV2_B0,
    name="efficientnetv2_s",
    resolution=384,
    stem=Stem(channels=24),
    stages=(
        _fused(2, 1, 1, 24),
        _fused(4, 2, 4, 48),
        _fused(4, 2, 4, 64),
        _mb(6, 3, 2, 4, 128),
        _mb(9, 3, 1, 6, 160),
        _mb(15, 3, 2, 6, 256),
    ),
)
"""EfficientNetV2-S at its evaluation resolution (google/automl effnetv2_configs.py)."""

EFFICIENTNETV2_M = replace(
    EFFICIENTNETV2_S,
    name="efficientnetv2_m",
    resolution=480,
    stages=(
        _fused(3, 1, 1, 24),
        _fused(5, 2, 4, 48),
        _fused(5, 2, 4, 80),
        _mb(7, 3, 2, 4, 160),
        _mb(14, 3, 1, 6, 176),
        _mb(18, 3, 2, 6, 304),
        _mb(5, 3, 1, 6, 512),
    ),
)

EFFICIENTNETV2_L = replace(
    EFFICIENTNETV2_S,
    name="efficientnetv2_l",
    resolution=480,
    stem=Stem(channels=32),
    stages=(
        _fused(4, 1, 1, 32),
        _fused(7, 2, 4, 64),
        _fused(7, 2, 4, 96),
        _mb(10, 3, 2, 4, 192),
        _mb(19, 3, 1, 6, 224),
        _mb(25, 3, 2, 6, 384),
        _mb(7, 3, 1, 6, 640),
    ),
)

EFFICIENTNETV2_XL = replace(
    EFFICIENTNETV2_L,
    name="efficientnetv2_xl",
    resolution=512,
    stages=(
        _fused(4, 1, 1, 32),
        _fused(8, 2, 4, 64),
        _fused(8, 2, 4, 96),
        _mb(16, 3, 2, 4, 192),
        _mb(24, 3, 1, 6, 256),
        _mb(32, 3, 2, 6, 512),
        _mb(8, 3, 1, 6, 640),
    ),
)

MNASNET_A1 = _activation(
    Architecture(
        name="mnasnet_a1",
        resolution=224,
        stem=Stem(channels=32),
        stages=(
            _mb(1, 3, 1, 1, 16, skip=False, se_ratio=0),
            _mb(2, 3, 2, 6, 24, se_ratio=0),
            _mb(3, 5, 2, 3, 40),
            _mb(4, 3, 2, 6, 80, se_ratio=0),
            _mb(2, 3, 1, 6, 112),
            _mb(3, 5, 2, 6, 160),
            _mb(1, 3, 1, 6, 320, se_ratio=0),
        ),
        head=Head(channels=1280),
    ),
    "relu",
)
"""MnasNet-A1 (1807.11626 figure 7; tensorflow/tpu mnasnet_models.py; timm calls it semnasnet_100)."""


def _separable(layers: int, stride: int, channels: int) -> Stage:
    return Stage(operator="separable", layers=layers, stride=stride, channels=channels, activation="relu6", skip=False)


MOBILENET_V1 = Architecture(
    name="mobilenet_v1",
    resolution=224,
    stem=Stem(channels=32, activation="relu6"),
    stages=(
        _separable(1, 1, 64),
        _separable(2, 2, 128),
        _separable(2, 2, 256),
        _separable(6, 2, 512),
        _separable(2, 2, 1024),
    ),
    head=Head(),
)
"""MobileNetV1 at width 1 (1704.04861 Table 1)."""

MOBILENET_V2 = _activation(
    Architecture(
        name="mobilenet_v2",
        resolution=224,
        stem=Stem(channels=32),
        stages=(
            _mb(1, 3, 1, 1, 16),
            _mb(2, 3, 2, 6, 24),
            _mb(3, 3, 2, 6, 32),
            _mb(4, 3, 2, 6, 64),
            _mb(3, 3, 1, 6, 96),
            _mb(3, 3, 2, 6, 160),
            _mb(1, 3, 1, 6, 320),
        ),
        head=Head(channels=1280),
    ),
    "relu6",
    se_ratio=0,
)
"""MobileNetV2 at width 1 (1801.04381 Table 2)."""


def _resnet(name: str, row: Stage, channels: tuple[int, ...], layers: tuple[int, ...]) -> Architecture:
    """A ResNet from one row, its channels and its layers; every stage but the first halves the size."""
    stages = tuple(
        replace(row, channels=c, layers=n, stride=1 if i == 0 else 2)
        for i, (c, n) in enumerate(zip(channels, layers, strict=True))
    )
    stem = Stem(channels=64, kernel_size=7, activation="relu", max_pool=True)
    return Architecture(name=name, resolution=224, stem=stem, stages=stages, head=Head(activation="relu"))


RESNET_18 = _resnet(
    "resnet18", Stage(operator="basic", channels=64, activation="relu"), (64, 128, 256, 512), (2, 2, 2, 2)
)
"""ResNet-18 (1512.03385 Table 1)."""

RESNET_50 = _resnet(
    "resnet50",
    Stage(operator="bottleneck", channels=256, expand_ratio=0.25, expand_of="output", activation="relu"),
    (256, 512, 1024, 2048),
    (3, 4, 6, 3),
)
"""ResNet-50 (1512.03385 Table 1), the stride on the 3x3 convolution as in torchvision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A baseline, how its multipliers are rounded, and its published members.

    members: name -> (width, depth, resolution in pixels), the published list; it is hand-rounded and follows from
    no phi (see `trifold explain`).
    """

    baseline: Architecture
    rounding: Rounding = field(default_factory=Rounding)
    members: dict[str, tuple[float, float, int]] = field(default_factory=dict)


EFFICIENTNET_MULTIPLIERS = {
    "efficientnet_b0": (1.0, 1.0, 224),
    "efficientnet_b1": (1.0, 1.1, 240),
    "efficientnet_b2": (1.1, 1.2, 260),
    "efficientnet_b3": (1.2, 1.4, 300),
    "efficientnet_b4": (1.4, 1.8, 380),
    "efficientnet_b5": (1.6, 2.2, 456),
    "efficientnet_b6": (1.8, 2.6, 528),
    "efficientnet_b7": (2.0, 3.1, 600),
    "efficientnet_b8": (2.2, 3.6, 672),
    "efficientnet_l2": (4.3, 5.3, 800),
}
"""Width, depth, resolution of the published family (tensorflow/tpu efficientnet_builder.py)."""

FAMILIES: tuple[Family, ...] = (
    Family(baseline=EFFICIENTNET_B0, members=EFFICIENTNET_MULTIPLIERS),
    Family(
        baseline=EFFICIENTNET_LITE0,
        rounding=Rounding(fixed_ends=True),
        members={
            "efficientnet_lite0": (1.0, 1.0, 224),
            "efficientnet_lite1": (1.0, 1.1, 240),
            "efficientnet_lite2": (1.1, 1.2, 260),
            "efficientnet_lite3": (1.2, 1.4, 280),
            "efficientnet_lite4": (1.4, 1.8, 300),
        },
    ),
    Family(
        baseline=EFFICIENTNET_ES,
        members={
            "efficientnet_es": (1.0, 1.0, 224),
            "efficientnet_em": (1.0, 1.1, 240),
            "efficientnet_el": (1.2, 1.4, 300),
        },
    ),
    Family(
        baseline=EFFICIENTNETV2_B0,
        rounding=Rounding(keep_ratio=0),
        members={
            "efficientnetv2_b0": (1.0, 1.0, 224),
            "efficientnetv2_b1": (1.0, 1.1, 240),
            "efficientnetv2_b2": (1.1, 1.2, 260),
            "efficientnetv2_b3": (1.2, 1.4, 300),
        },
    ),
    *(
        Family(baseline=baseline, rounding=Rounding(keep_ratio=0))
        for baseline in (EFFICIENTNETV2_S, EFFICIENTNETV2_M, EFFICIENTNETV2_L, EFFICIENTNETV2_XL)
    ),
    Family(baseline=EFFICIENTNET_MINI, rounding=Rounding(divisor=4)),
    *(Family(baseline=baseline) for baseline in (MNASNET_A1, MOBILENET_V1, MOBILENET_V2, RESNET_18, RESNET_50)),
)

ALIASES: dict[str, str] = {
    **{f"b{i}": f"efficientnet_b{i}" for i in range(9)},
    "l2": "efficientnet_l2",
    "mini": "efficientnet_mini",
    **{f"lite{i}": f"efficientnet_lite{i}" for i in range(5)},
    **{f"v2_{size}": f"efficientnetv2_{size}" for size in ("b0", "b1", "b2", "b3", "s", "m", "l", "xl")},
    **{f"efficientnet_v2_{size}": f"efficientnetv2_{size}" for size in ("s", "m", "l")},
    "semnasnet_100": "mnasnet_a1",
    "mobilenetv1_100": "mobilenet_v1",
    "mobilenetv2_100": "mobilenet_v2",
    "resnet_18": "resnet18",
    "resnet_50": "resnet50",
}
"""Short names and the spellings of timm and torchvision; timm's `tf_` prefix is dropped before the look-up."""


def list_models(pattern: str = "*") -> tuple[str, ...]:
    """The names of all shipped architectures that match a shell pattern, in the order of their families."""
    names = [name for family in FAMILIES for name in (family.members or (family.baseline.name,))]
    return tuple(name for name in names if fnmatch.fnmatchcase(name, pattern))


def family_of(name: str) -> tuple[Family, str]:
    """The family that holds an architecture, and the architecture's full name; short and timm's names are understood.

    Raises InvalidArchitecture with the nearest names if there is none.
    """
    wanted = name.strip().lower().replace("-", "_").removeprefix("tf_")
    full = ALIASES.get(wanted, wanted)
    for family in FAMILIES:
        if full in family.members or full == family.baseline.name:
            return family, full
    near = difflib.get_close_matches(full, [*list_models(), *ALIASES], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(list_models())}."
    raise InvalidArchitecture(f"network {name!r} is not known; {hint} A file's name ends in .toml or .json")


def find(name: str) -> Architecture:
    """The shipped architecture of that name, scaled by its published multipliers, at its published resolution.

    Raises InvalidArchitecture if there is none.
    """
    family, full = family_of(name)
    if full not in family.members:
        return family.baseline
    width, depth, resolution = family.members[full]
    member = scale(family.baseline, Multipliers(width=width, depth=depth), family.rounding)
    return replace(member, name=full, resolution=resolution)


def load(net: str) -> tuple[Architecture, Rounding]:
    """The architecture that a user names, by name or by .toml or .json file, with its family's rounding.

    Raises InvalidArchitecture if it cannot be found or read.
    """
    if net.endswith((".toml", ".json")) or "/" in net:
        return read(Path(net)), Rounding()
    return find(net), family_of(net)[0].rounding
