"""Settings that a weights file may have been made for, each with how far photographs then lie from its statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from PIL.Image import Image
from torch import Tensor

from trifold.doctor.norms import FIRST_NORMS
from trifold.doctor.weights_given import Given, Settings, at_resolution, fed, levels_of, with_numerics
from trifold.doctor.weights_statistics import Moments, distances, draws, moments
from trifold.preprocessing import STANDARD

SURE = 2.5
"""Standard errors that two distances must lie apart to be told apart."""

MARGIN = {"input": 0.1, "numerics": 0.01, "resolution": 0.25}
"""Share of the distance as given by which another setting must lie nearer to be named.

A resolution shows in the size of what the photographs show, too, which differs by a quarter for no fault of the file.
"""

LARGEST_SIDE = 224
"""Pixels at which normalisation and numerics are tried, at most: they show at any size."""

BATCH = 16
MOST_PIXELS = 64 * LARGEST_SIDE**2
"""Of all photographs together, where all layers are run."""

EPSILONS = (1e-3, 1e-5)
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))


class Scale(NamedTuple):
    """Mean and standard deviation of pixel values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def twice(self) -> Scale:
        """What normalising what is normalised already comes to."""
        pairs = list(zip(self.mean, self.std, strict=True))
        return Scale(tuple(m + s * m for m, s in pairs), tuple(s * s for _, s in pairs))

    def close_to(self, other: Scale) -> bool:
        """Whether the two are the same but for rounding."""
        pairs = zip((*self.mean, *self.std), (*other.mean, *other.std), strict=True)
        return all(abs(a - b) <= 1e-4 * max(abs(a), abs(b), 1e-4) for a, b in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting tried.

    part: "input", "numerics" or "resolution"; name: the setting in words. distance: of the photographs' statistics from
    the stored ones (`weights_statistics.distances`). behind: less the distance as given; error: the standard error of
    that difference over the draw of the photographs. given: whether it is the setting as given. drawn: the distance of
    each draw.
    """

    part: str
    name: str
    settings: Settings
    distance: float
    behind: float
    error: float
    given: bool
    drawn: tuple[float, ...]


def scale_of(settings: Settings) -> Scale:
    """The settings' mean and std."""
    return Scale(settings.preprocessing.mean, settings.preprocessing.std)


def scales(given: Scale, told: Scale) -> dict[str, Scale]:
    """Usual normalisations by name, the given one and that which the file tells among them."""
    kind = "L" if len(given.mean) == 1 else "RGB"
    count = len(given.mean)
    imagenet, half = Scale(*STANDARD["imagenet", kind]), Scale(*STANDARD["half", kind])
    zero = (0.0,) * count
    known = {
        "ImageNet's mean and std": imagenet,
        "-1 to 1": half,
        "0 to 1": Scale(zero, (1.0,) * count),
        "0 to 255": Scale(zero, (1 / 255,) * count),
        "0 to 255 less ImageNet's mean": Scale(imagenet.mean, (1 / 255,) * count),
        "0 to 1, divided by 255 again": Scale(zero, (255.0,) * count),
        "ImageNet's mean and std, twice": imagenet.twice(),
        "-1 to 1, twice": half.twice(),
    }
    if count == 3:
        known["CIFAR-10's mean and std"] = Scale(*_CIFAR)
    for own in (given, told):
        name = "; ".join(f"{of} {', '.join(f'{v:.4g}' for v in values)}" for of, values in own._asdict().items())
        for label, scale in ((name, own), (f"{name}, twice", own.twice())):
            if not any(scale.close_to(other) for other in known.values()):
                known[label] = scale
    return known


def trial_side(images: Sequence[Image], resolution: int) -> int:
    """Pixels to try settings at: no photograph's shorter side is enlarged where the median's is not.

    A multiple of 32 from 64 on, where every stride of 2 meets an even size and paddings differ most.
    """
    sides = sorted(min(image.size) for image in images)
    side = min(resolution, LARGEST_SIDE, sides[len(sides) // 2])
    return side // 32 * 32 if side >= 64 else side


def try_input(given: Given, images: Sequence[Image]) -> list[Trial]:
    """Normalisations and orders of channels, by the first batch norms, which normalise by the stored statistics."""
    settings = given.settings
    preprocessing = settings.preprocessing
    levels = levels_of(images, at_resolution(preprocessing, trial_side(images, preprocessing.resolution)))
    norms = given.norms[:FIRST_NORMS]
    tried: dict[str, tuple[Settings, tuple[Moments, ...]]] = {}
    for name, scale in scales(scale_of(settings), scale_of(given.told)).items():
        for channels in ("rgb", "bgr") if preprocessing.mode == "RGB" else ("rgb",):
            other = replace(
                settings, preprocessing=replace(preprocessing, mean=scale.mean, std=scale.std), channels=channels
            )
            batches = (fed(part, other) for part in levels.split(BATCH))
            label = f"{name}, {channels.upper()}" if preprocessing.mode == "RGB" else name
            tried[label] = other, moments(given.network, norms, batches, own=False)
    own = next(
        name
        for name, (other, _) in tried.items()
        if other.channels == settings.channels and scale_of(other).close_to(scale_of(settings))
    )
    return _trials("input", tried, own)


def try_numerics(given: Given, images: Sequence[Image], settings: Settings) -> list[Trial]:
    """Paddings and batch-norm epsilons, by all batch norms; each normalises by the photographs' own statistics.

    settings: what the network is fed by.
    """
    preprocessing = settings.preprocessing
    side = trial_side(images, preprocessing.resolution)
    some = images[: max(BATCH, MOST_PIXELS // side**2)]
    levels = levels_of(some, at_resolution(preprocessing, side))
    numerics = settings.numerics
    if numerics.padding == "same_static":  # the same at its own resolution, and of no use at others
        numerics = replace(numerics, padding="same")
    tried = {}
    for padding in dict.fromkeys((numerics.padding, "same", "symmetric")):
        for eps in dict.fromkeys((numerics.bn_eps, *EPSILONS)):
            other = replace(numerics, padding=padding, bn_eps=eps)
            found = _layer_by_layer(given, levels, replace(settings, numerics=other))
            tried[f"{padding}, {eps:g}"] = replace(settings, numerics=other), found
    return _trials("numerics", tried, next(iter(tried)))


def try_resolutions(given: Given, images: Sequence[Image], settings: Settings) -> list[Trial]:
    """Resolutions from half to twice the given one, by all batch norms as in `try_numerics`; none enlarges photographs.

    Empty where the photographs leave no choice.
    """
    preprocessing = settings.preprocessing
    most = sorted(min(image.size) for image in images)[len(images) // 2]
    first = min(preprocessing.resolution, most)
    sides = [first, *(round(first * factor / 32) * 32 for factor in (0.5, 0.71, 1.41, 2))]
    sides = [side for side in dict.fromkeys(sides) if 32 <= side <= most]
    if len(sides) < 2:
        return []
    some = images[: max(BATCH, MOST_PIXELS // (2 * max(sides) ** 2))]
    tried = {}
    for side in sides:
        other = replace(settings, preprocessing=at_resolution(preprocessing, side))
        found = _layer_by_layer(given, levels_of(some, other.preprocessing), other)
        tried[f"{side} pixels"] = other, found
    return _trials("resolution", tried, f"{first} pixels")


def _layer_by_layer(given: Given, levels: Tensor, settings: Settings) -> tuple[Moments, ...]:
    network = with_numerics(given.network, settings.numerics)
    parts = levels.tensor_split(-(-len(levels) // BATCH))  # of nearly equal size, none of a single image
    return moments(network, given.norms, (fed(part, settings) for part in parts), own=True)


def _trials(part: str, tried: Mapping[str, tuple[Settings, tuple[Moments, ...]]], own: str) -> list[Trial]:
    """Nearest first."""
    shares = draws(len(tried[own][1][0].mean))
    found = {name: distances(seen, shares) for name, (_, seen) in tried.items()}
    rows = []
    for name, distance in found.items():
        behind = distance - found[own]
        rows.append(
            Trial(
                part=part,
                name=name,
                settings=tried[name][0],
                distance=float(distance[0]),
                behind=float(behind[0]),
                error=float(behind[1:].std()),
                given=name == own,
                drawn=tuple(distance[1:].tolist()),
            )
        )
    return sorted(rows, key=lambda trial: trial.distance)


def standard_errors(one: Trial, other: Trial) -> float:
    """How far apart two trials' distances lie, in standard errors of their difference; above 0 if one lies nearer."""
    differences = [b - a for a, b in zip(one.drawn, other.drawn, strict=True)]
    middle = sum(differences) / len(differences)
    error = (sum((value - middle) ** 2 for value in differences) / (len(differences) - 1)) ** 0.5
    apart = other.distance - one.distance
    return apart / error if error > 0 else 0.0


def told_apart(one: Trial, other: Trial) -> bool:
    """Whether one lies surely nearer than the other."""
    return standard_errors(one, other) > SURE


def better(trials: Sequence[Trial]) -> Trial | None:
    """The nearest trial, if it lies surely and by its part's margin nearer than the one as given."""
    given, best = given_of(trials), trials[0]
    gap = given.distance - best.distance
    return best if gap > MARGIN[given.part] * given.distance and told_apart(best, given) else None


def given_of(trials: Iterable[Trial]) -> Trial:
    """The one as given."""
    return next(trial for trial in trials if trial.given)
