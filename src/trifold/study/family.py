"""What a family's trained networks say of its next sizes: a power law of error over cost, with a prediction interval.

That the test error falls as a power of size is an assumption, met over wide ranges by Hestness et al. 2017 (1712.00409)
and Rosenfeld et al. 2020 (1909.12673). A power of multiply-adds is a straight line of the logarithms: it cannot bend
to a floor (labels that are wrong, images that nobody could tell) nor to chance, so it is not followed far.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from trifold.architecture import Architecture, from_dict
from trifold.budget import STEPS_PER_PHI
from trifold.cost import cost
from trifold.errors import InvalidData, InvalidInput
from trifold.scaling import PHI_MAX, PHI_MIN, Coefficients, Member, Rounding, scale
from trifold.train.folder import RECORD
from trifold.train.recipe import Recipe, difference
from trifold.train.recipe import from_dict as recipe_from_dict
from trifold.train.record import Record, read_record

LEAST, LEAST_TO_TEST = 3, 4
"""How many networks of different cost a curve takes, and a back-test, which leaves one out."""

FURTHEST = 8.0
"""A curve is followed to so many times the largest trained network's multiply-adds and, downward, the smallest's."""


# ---- the curve: values in, values out ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A trained network: multiply-adds of one image, each run's error rate on test in [0, 1], test images of a run."""

    multiply_adds: float
    errors: tuple[float, ...]
    images: int

    def __post_init__(self) -> None:
        if not self.multiply_adds > 0:
            raise InvalidInput(f"multiply_adds must be more than 0, got {self.multiply_adds!r}")
        if not self.errors or not all(0 <= error <= 1 for error in self.errors):
            raise InvalidInput(f"errors must be one or more numbers from 0 to 1, got {self.errors!r}")
        if self.images < 1:
            raise InvalidInput(f"images must be at least 1, got {self.images!r}")

    @property
    def seeds(self) -> int:
        """How many runs the network has."""
        return len(self.errors)

    @property
    def error(self) -> float:
        """The mean error rate, at least that of half a test image, so that it has a logarithm."""
        return max(sum(self.errors) / len(self.errors), 0.5 / self.images)

    @property
    def accuracy(self) -> float:
        """The mean accuracy as it was observed, in [0, 1]."""
        return 1 - sum(self.errors) / len(self.errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """An accuracy in [0, 1] and the ends of its 95 % prediction interval."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The fitted line: log(error) = level + slope * (log(multiply_adds) - centre).

    noise: standard deviation of one run's log(error) around the line. centre: weighted mean of the networks'
    log(multiply_adds); runs, spread: sums of the weights, and of weight * (log(multiply_adds) - centre)^2.
    seeds: runs of the network that has fewest. smallest, largest: multiply-adds of the networks at the ends.
    """

    slope: float
    level: float
    centre: float
    noise: float
    networks: int
    runs: int
    spread: float
    seeds: int
    smallest: float
    largest: float

    def predict(self, multiply_adds: float, seeds: int | None = None) -> Prediction:
        """The accuracy of a network of this cost, and the 95 % interval for the mean of so many runs of it.

        seeds: at least 1; as many as the network with fewest runs has, where not given.

        With x the distance of log(multiply_adds) from the centre, the interval is

            level + slope x ± t(0.975, networks - 2) * noise * sqrt(1 / seeds + 1 / runs + x^2 / spread)

        in log(error), which is then at most an error of 1. It assumes that the power law holds out to there, and that
        the distances of networks' log(error) from it are independent and normal with a variance of noise^2 / seeds.
        What does not shrink with more seeds (a network that rounding made better or worse than its neighbours, test
        images that all runs share) is in `noise` only as far as the fitted networks show it; recipe and data stay.
        """
        seeds = self.seeds if seeds is None else seeds
        if seeds < 1:
            raise InvalidInput(f"seeds must be at least 1, got {seeds}")
        x = math.log(multiply_adds) - self.centre
        middle = self.level + self.slope * x
        quantile = float(student.ppf(0.975, self.networks - 2))
        half = quantile * self.noise * math.sqrt(1 / seeds + 1 / self.runs + x * x / self.spread)
        error, least, most = (math.exp(min(0.0, value)) for value in (middle, middle - half, middle + half))
        return Prediction(accuracy=1 - error, low=1 - most, high=1 - least)

    def reaches(self, multiply_adds: float) -> bool:
        """Whether a cost is near enough to the trained networks' for the curve to say something of it (FURTHEST)."""
        return self.smallest / FURTHEST <= multiply_adds <= self.largest * FURTHEST


@dataclass(frozen=True, slots=True, kw_only=True)
class BackTest:
    """The largest network as predicted from all others, and as observed.

    seeds: its runs, whose mean the interval is for. observed: its mean accuracy, in [0, 1]. holds: whether the interval
    has it (an error of 0 counting as half an image).
    """

    multiply_adds: float
    seeds: int
    predicted: Prediction
    observed: float
    holds: bool

    @property
    def off(self) -> float:
        """Observed less predicted accuracy, in points."""
        return 100 * (self.observed - self.predicted.accuracy)


def fit_curve(points: Iterable[Point]) -> Curve:
    """The line through log(error) over log(multiply_adds) by least squares, each network weighted by its runs.

    Raises InvalidInput unless at least three networks differ in cost.
    """
    points = sorted(points, key=lambda one: (one.multiply_adds, one.errors))  # so that no sum depends on their order
    if (costs := len({one.multiply_adds for one in points})) < LEAST:
        raise InvalidInput(f"a curve takes at least {LEAST} networks of different cost, got {costs}")
    x = np.log([one.multiply_adds for one in points])
    y = np.log([one.error for one in points])
    weights = np.array([one.seeds for one in points], dtype=np.float64)
    centre, level = float(np.average(x, weights=weights)), float(np.average(y, weights=weights))
    spread = float(weights @ (x - centre) ** 2)
    slope = float(weights @ ((x - centre) * (y - level))) / spread
    left = y - level - slope * (x - centre)
    return Curve(
        slope=slope,
        level=level,
        centre=centre,
        noise=math.sqrt(float(weights @ left**2) / (len(points) - 2)),
        networks=len(points),
        runs=int(weights.sum()),
        spread=spread,
        seeds=min(one.seeds for one in points),
        smallest=points[0].multiply_adds,
        largest=points[-1].multiply_adds,
    )


def back_test(points: Sequence[Point]) -> BackTest | None:
    """The curve of all networks but the largest, tried on that one; None for fewer than four of different cost."""
    if len({one.multiply_adds for one in points}) < LEAST_TO_TEST:
        return None
    last = max(points, key=lambda one: one.multiply_adds)
    predicted = fit_curve(one for one in points if one.multiply_adds < last.multiply_adds).predict(
        last.multiply_adds, last.seeds
    )
    return BackTest(
        multiply_adds=last.multiply_adds,
        seeds=last.seeds,
        predicted=predicted,
        observed=last.accuracy,
        holds=predicted.low <= 1 - last.error <= predicted.high,
    )


# ---- the family's line ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The networks that phi = k / 1000 in [-3, 12] makes of a baseline, and members whose phi lies between those."""

    baseline: Architecture
    coefficients: Coefficients
    rounding: Rounding
    members: tuple[Member, ...] = ()

    def phi_of(self, network: Architecture) -> float | None:
        """A member's phi, or else the least of the grid that makes this network; None if none does. Names are free.

        Layers, channels and pixels never shrink with phi, so only the first phi at which none of them is short of the
        network's can make it, and bisection finds that one. (Multiply-adds can fall, where a projection goes.)
        """
        network = replace(network, name=self.baseline.name)
        for member in self.members:
            if member.architecture == network:
                return member.phi
        if not same_form(network, self.baseline):
            return None
        wanted = _sizes(network)
        low, high = round(PHI_MIN * STEPS_PER_PHI) - 1, round(PHI_MAX * STEPS_PER_PHI)
        while high - low > 1:
            middle = (low + high) // 2
            found = self._at(middle)
            enough = found is None or all(one >= least for one, least in zip(_sizes(found), wanted, strict=True))
            low, high = (low, middle) if enough else (middle, high)
        return high / STEPS_PER_PHI if self._at(high) == network else None

    def _at(self, k: int) -> Architecture | None:
        """The network of a phi; None where it is larger than a description may be."""
        try:
            return scale(self.baseline, self.coefficients.multipliers(k / STEPS_PER_PHI), self.rounding)
        except InvalidInput:
            return None


def same_form(one: Architecture, other: Architecture) -> bool:
    """Whether two networks differ in nothing but layers, channels, resolution and name."""
    return _form(one) == _form(other)


def _sizes(architecture: Architecture) -> tuple[int, ...]:
    """All that scaling changes."""
    ends = (architecture.resolution, architecture.stem.channels, architecture.head.channels)
    return (*ends, *(size for stage in architecture.stages for size in (stage.channels, stage.layers)))


def _form(architecture: Architecture) -> Architecture:
    """The architecture with all that scaling changes set to one value."""
    return Architecture(
        name="form",
        resolution=4,
        stem=replace(architecture.stem, channels=1),
        stages=tuple(replace(stage, channels=1, layers=1) for stage in architecture.stages),
        head=replace(architecture.head, channels=min(architecture.head.channels, 1)),
    )


# ---- the trained networks ----


class Setting(NamedTuple):
    """What runs must share to be compared: everything asked of them but network, seed and split_seed."""

    recipe: Recipe
    data: str
    seconds: float
    weights: str
    find_lr: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self._asdict(), "recipe": self.recipe.to_dict()}


class Run(NamedTuple):
    """A finished run, as far as a curve needs it; in_channels of its images, num_classes of its data."""

    id: str
    source: str
    architecture: Architecture
    setting: Setting
    num_classes: int
    in_channels: int
    error: float
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Finished runs below some folders, each once. unreadable: records that are damaged, or older than can be used."""

    runs: tuple[Run, ...]
    unreadable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A trained network on the family's line; phi: that of the member it equals, or the least that gives it."""

    phi: float
    architecture: Architecture
    point: Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The trained networks on a family's line, by rising cost, whose runs share one setting.

    setting, num_classes, in_channels: of them; None where there are none. left_out: runs of other settings, with what
    these have in place of the one taken. passed: runs that are none of the family's, counted by the reason.
    """

    networks: tuple[Network, ...]
    setting: Setting | None
    num_classes: int | None
    in_channels: int | None
    left_out: tuple[tuple[int, str], ...]
    passed: dict[str, int]

    @property
    def points(self) -> tuple[Point, ...]:
        """What a curve is fitted to."""
        return tuple(network.point for network in self.networks)


OTHER_DATA, OTHER_NETWORK, OFF_LINE = "on other data", "of other networks", "off the family's line"


def find_runs(folders: Iterable[str | Path]) -> Runs:
    """The finished runs in these folders and all below them; a run that lies there twice is taken once."""
    found: dict[str, Run] = {}
    unreadable = 0
    for path in sorted({path for folder in folders for path in _records(Path(folder))}):
        try:
            run = _run(read_record(path))
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):  # InvalidData is a ValueError
            unreadable += 1
        else:
            found.setdefault(run.id, run)
    return Runs(runs=tuple(found.values()), unreadable=unreadable)


def _records(folder: Path) -> list[Path]:
    """The records below a folder; links to folders are not followed, folders that cannot be read are passed over."""
    paths = [Path(root, RECORD) for root, _, names in os.walk(folder.resolve()) if RECORD in names]
    return [path for path in paths if path.is_file()]


def _run(record: Record) -> Run:
    """The run of a record. Raises what `find_runs` catches if it does not hold together."""
    asked, result = record.asked, record.result
    if not 0 <= record.accuracy <= 1:
        raise InvalidData(f"accuracy must be from 0 to 1, got {record.accuracy!r}")
    architecture, num_classes = from_dict(asked["architecture"]), len(result.test.classes)
    channels = [
        number
        for number in (1, 3)
        if cost(architecture, num_classes=num_classes, in_channels=number).multiply_adds == result.cost["multiply_adds"]
    ]
    return Run(
        id=str(record.id),
        source=record.source or str(result.data),
        architecture=architecture,
        setting=Setting(
            recipe=recipe_from_dict(asked["recipe"]),
            data=str(asked["data"]),
            seconds=float(asked["seconds"]),
            weights=str(asked["weights"]),
            find_lr=bool(asked["find_lr"]),
        ),
        num_classes=num_classes,
        in_channels=channels[0],
        error=1 - record.accuracy,
        images=result.test.total,
    )


def trained_family(runs: Iterable[Run], source: str, line: Line) -> Trained:
    """The runs on these data whose networks lie on the line, of the setting that has most networks, then most runs."""
    places: dict[Architecture, float | None] = {}
    groups: defaultdict[Setting, list[Run]] = defaultdict(list)
    passed: Counter[str] = Counter()
    for run in runs:
        network = replace(run.architecture, name=line.baseline.name)
        if run.source != source:
            passed[OTHER_DATA] += 1
        elif not same_form(network, line.baseline):
            passed[OTHER_NETWORK] += 1
        else:
            if network not in places:
                places[network] = line.phi_of(network)
            if places[network] is None:
                passed[OFF_LINE] += 1
            else:
                groups[run.setting].append(run._replace(architecture=network))
    order = sorted(groups, key=lambda one: (-_networks(groups[one]), -len(groups[one]), json.dumps(one.to_dict())))
    taken = order[0] if order else None
    own = groups[taken] if taken is not None else []
    return Trained(
        networks=_gathered(own, places),
        setting=taken,
        num_classes=own[0].num_classes if own else None,
        in_channels=own[0].in_channels if own else None,
        left_out=tuple((len(groups[one]), _unlike(one, order[0])) for one in order[1:]),
        passed=dict(passed),
    )


def _gathered(runs: Sequence[Run], places: dict[Architecture, float | None]) -> tuple[Network, ...]:
    """The runs by network."""
    found = []
    for architecture in dict.fromkeys(run.architecture for run in runs):
        own = [run for run in runs if run.architecture == architecture]
        spent = cost(architecture, num_classes=own[0].num_classes, in_channels=own[0].in_channels)
        point = Point(
            multiply_adds=spent.multiply_adds,
            errors=tuple(sorted(run.error for run in own)),
            images=min(run.images for run in own),
        )
        phi = places[architecture]
        assert phi is not None
        found.append(Network(phi=phi, architecture=architecture, point=point))
    return tuple(sorted(found, key=lambda one: one.point.multiply_adds))


def _networks(runs: Sequence[Run]) -> int:
    return len({run.architecture for run in runs})


def _unlike(setting: Setting, taken: Setting) -> str:
    """What a setting has in place of the one taken: "epochs 1, lr 0.01"."""
    changed = [f"{name} {value}" for name, _, value in difference(setting.recipe, taken.recipe)]
    names = {"data": "images that have changed since, or before", "weights": "other pretrained weights"}
    for name, value in setting._asdict().items():
        if name != "recipe" and value != getattr(taken, name):
            changed.append(names.get(name, f"{name} {value}"))
    return ", ".join(changed)
