"""How good the probabilities given to labelled images are: losses, shares, calibration and what is confused."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trifold.errors import InvalidData

NUM_BINS = 15
TOP = 5
_BELOW_ONE = 1 - 2**-53
"""The largest float64 below 1: torchmetrics gives a confidence of exactly 1 a bin of its own."""

_SMALLEST = torch.finfo(torch.float32).tiny
"""A chance of 0 counts as this in the loss, 87.3 nats, since JSON has no infinity."""

Counts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The images whose highest probability lies in [low, high): its mean, and the share that is correct."""

    low: float
    high: float
    confidence: float | None
    accuracy: float | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What was seen on some images, and what follows from it.

    loss: mean cross-entropy in nats. top5: share of images whose class is among the 5 most probable; None with fewer
    than 6 classes. calibration_error: expected, over 15 bins, in [0, 1] (Guo et al. 2017); bins: its parts.
    confusion: counts; row = true class, column = predicted class, in the order of classes.
    Precision, recall and F1 follow the order of classes, in [0, 1]; None where they are not defined: precision of a
    class never predicted, recall of one without images, F1 of one with neither.
    """

    classes: tuple[str, ...]
    loss: float
    top5: float | None
    calibration_error: float
    bins: tuple[Bin, ...]
    confusion: Counts

    @property
    def total(self) -> int:
        """Images looked at."""
        return sum(map(sum, self.confusion))

    @property
    def top1(self) -> float:
        """Share of images whose most probable class is their own."""
        return sum(self._hits()) / self.total

    @property
    def precision(self) -> tuple[float | None, ...]:
        """Of the images given each class, the share that are of it."""
        return tuple(map(_share, self._hits(), self._predicted()))

    @property
    def recall(self) -> tuple[float | None, ...]:
        """Of each class's own images, the share given it."""
        return tuple(map(_share, self._hits(), map(sum, self.confusion)))

    @property
    def f1(self) -> tuple[float | None, ...]:
        """The harmonic mean of precision and recall: twice the hits over images and predictions together."""
        both = (sum(row) + predicted for row, predicted in zip(self.confusion, self._predicted(), strict=True))
        return tuple(_share(2 * hits, sizes) for hits, sizes in zip(self._hits(), both, strict=True))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have one."""
        return _mean(self.f1)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images."""
        return _mean(self.recall)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the figures that follow from the counts spelled out."""
        return {
            "classes": list(self.classes),
            "loss": self.loss,
            "top1": self.top1,
            "top5": self.top5,
            "macro_f1": self.macro_f1,
            "balanced_accuracy": self.balanced_accuracy,
            "precision": list(self.precision),
            "recall": list(self.recall),
            "f1": list(self.f1),
            "calibration_error": self.calibration_error,
            "bins": [asdict(part) for part in self.bins],
            "confusion": [list(row) for row in self.confusion],
        }

    def _hits(self) -> tuple[int, ...]:
        return tuple(row[i] for i, row in enumerate(self.confusion))

    def _predicted(self) -> tuple[int, ...]:
        return tuple(map(sum, zip(*self.confusion, strict=True)))


class Pair(NamedTuple):
    """A confusion: num images of one class that were given another; share: of the true class's images, in (0, 1]."""

    true: str
    predicted: str
    num: int
    share: float


def quality(
    chances: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], classes: Sequence[str]
) -> Quality:
    """What probabilities are worth against the labels.

    Raises InvalidData if there are no images, fewer than 2 classes, a probability outside [0, 1] or a label outside
    the classes.
    """
    _check(chances, labels, classes)
    # Imported here: it takes seconds, and predicting imports this package but never asks for quality.
    import trifold._torchvision  # noqa: F401, I001  torchmetrics imports torchvision, so our guard goes first
    from torchmetrics.functional.classification import multiclass_accuracy as accuracy
    from torchmetrics.functional.classification import multiclass_calibration_error as calibration_error
    from torchmetrics.functional.classification import multiclass_confusion_matrix as confusion_matrix

    num = len(classes)
    # Rounding leaves a softmax a hair above 1 at times, and torchmetrics takes such numbers for logits.
    chances, labels = chances.detach().cpu().double().clamp(0, _BELOW_ONE), labels.cpu().long()
    own = chances.gather(1, labels[:, None]).clamp_min(_SMALLEST)
    among = accuracy(chances, labels, num, average="micro", top_k=TOP) if num > TOP else None
    return Quality(
        classes=tuple(classes),
        loss=float(-own.log().mean()),
        top5=None if among is None else round(float(among) * len(labels)) / len(labels),  # it was a float32
        calibration_error=float(calibration_error(chances, labels, num, n_bins=NUM_BINS)),
        bins=calibration_bins(chances, labels),
        confusion=tuple(map(tuple, confusion_matrix(chances, labels, num).tolist())),
    )


def calibration_bins(
    chances: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], *, num_bins: int = NUM_BINS
) -> tuple[Bin, ...]:
    """The bins of equal width over [0, 1] that the calibration error sums: torchmetrics gives only the sum."""
    confidence, predicted = chances.double().max(1)
    return confidence_bins(confidence, predicted == labels, num_bins=num_bins)


def confidence_bins(
    confidence: Float[Tensor, " images"], correct: Bool[Tensor, " images"], *, num_bins: int = NUM_BINS
) -> tuple[Bin, ...]:
    """As `calibration_bins`, of each image's highest probability and whether it is the right class's."""
    confidence = confidence.double().clamp(0, _BELOW_ONE)
    edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64)
    place = torch.bucketize(confidence, edges, right=True) - 1
    counts = torch.bincount(place, minlength=num_bins).tolist()
    sure = torch.bincount(place, weights=confidence, minlength=num_bins).tolist()
    hits = torch.bincount(place, weights=correct.double(), minlength=num_bins).tolist()
    return tuple(
        Bin(
            low=edges[i].item(),
            high=edges[i + 1].item(),
            confidence=_share(sure[i], counts[i]),
            accuracy=_share(hits[i], counts[i]),
            count=counts[i],
        )
        for i in range(num_bins)
    )


def expected_error(bins: Sequence[Bin]) -> float:
    """The calibration error that bins sum to: the mean distance of confidence and accuracy, in [0, 1]."""
    known = [(part.count, part.accuracy, part.confidence) for part in bins]
    distances = (count * abs(right - sure) for count, right, sure in known if right is not None and sure is not None)
    return math.fsum(distances) / sum(part.count for part in bins)


def most_confused(confusion: Sequence[Sequence[int]], classes: Sequence[str], *, most: int = 8) -> tuple[Pair, ...]:
    """The pairs of classes most often confused, at most so many, the most images first; equal ones by name."""
    pairs = (
        Pair(true=classes[i], predicted=classes[j], num=count, share=count / sum(row))
        for i, row in enumerate(confusion)
        for j, count in enumerate(row)
        if i != j and count
    )
    return tuple(heapq.nsmallest(most, pairs, key=lambda pair: (-pair.num, pair.true, pair.predicted)))


def from_dict(data: Mapping[str, Any]) -> Quality:
    """The quality that to_dict wrote; what follows from the counts is computed again.

    Raises InvalidData if a field is missing or of another kind.
    """
    try:
        found = Quality(
            classes=tuple(data["classes"]),
            loss=float(data["loss"]),
            top5=None if data["top5"] is None else float(data["top5"]),
            calibration_error=float(data["calibration_error"]),
            bins=tuple(Bin(**part) for part in data["bins"]),
            confusion=tuple(tuple(map(int, row)) for row in data["confusion"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidData(f"quality: fields do not fit: {error}") from None
    if {len(found.classes)} != {len(found.confusion), *map(len, found.confusion)}:
        raise InvalidData(f"quality: confusion must have a row and a column for each of {len(found.classes)} classes")
    return found


def _check(chances: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    num = chances.shape[1]
    if len(chances) == 0:
        raise InvalidData("quality: images must be at least 1, got 0")
    if num < 2 or num != len(classes):
        raise InvalidData(f"quality: classes must be at least 2, one a probability, got {len(classes)} for {num}")
    lowest, highest = float(chances.min()), float(chances.max())
    if not (lowest >= 0 and highest <= 1 + 1e-3):  # bfloat16 rounds to three digits; NaN fails both
        raise InvalidData(f"quality: probabilities must be in [0, 1], got {lowest:g} to {highest:g}")
    if int(labels.min()) < 0 or int(labels.max()) >= num:
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise InvalidData(f"quality: labels must be from 0 to {num - 1}, got {wrong}")


def _share(part: int | float, whole: int | float) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known)
