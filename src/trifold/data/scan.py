"""What a dataset holds, counted: images of each class and split, sizes, modes, equal images, what was left out."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trifold.data.dataset import SPLITS, BadFile, Dataset
from trifold.data.decode import printable
from trifold.errors import InvalidData


class Sizes(NamedTuple):
    """Lengths of one side over all images, in pixels; the median rounded."""

    smallest: int
    median: int
    largest: int


class EqualImages(NamedTuple):
    """Two and more images with the same bytes: of each its name, its class and its split ("" where none is given)."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]

    @property
    def across_splits(self) -> bool:
        """Whether they stand in more than one of the splits that the source gives."""
        return len(set(self.splits)) > 1

    @property
    def two_labels(self) -> bool:
        """Whether they stand in more than one class."""
        return len(set(self.labels)) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A dataset in numbers.

    counts: split ("" where the source gives none), then class, then images. modes: images of each mode.
    bad: the files left out, with the reason. ignored: other files, no images by suffix.
    equal: groups of images with the same bytes. imbalance: images of the largest class over those of the smallest, in
    train where the source gives splits; infinite where the smallest has none.
    """

    name: str
    images: int
    counts: dict[str, dict[str, int]]
    widths: Sizes
    heights: Sizes
    modes: dict[str, int]
    bad: tuple[BadFile, ...]
    ignored: int
    equal: tuple[EqualImages, ...]
    imbalance: float

    @property
    def leaked(self) -> tuple[EqualImages, ...]:
        """The equal images that stand in more than one given split."""
        return tuple(group for group in self.equal if group.across_splits)

    @property
    def ambiguous(self) -> tuple[EqualImages, ...]:
        """The equal images that stand in more than one class."""
        return tuple(group for group in self.equal if group.two_labels)


def scan(dataset: Dataset) -> Scan:
    """The dataset's counts; no file is opened again, since every image was when the dataset was.

    Raises InvalidData if the dataset has no images.
    """
    if not dataset.samples:
        raise InvalidData(f"{printable(dataset.name)}: has no images; at least 1 a class is needed")
    counts = _counts(dataset)
    trained = counts.get("train", counts.get("", {}))
    smallest, largest = min(trained.values(), default=0), max(trained.values(), default=0)
    return Scan(
        name=dataset.name,
        images=len(dataset.samples),
        counts=counts,
        widths=_sizes([sample.width for sample in dataset.samples]),
        heights=_sizes([sample.height for sample in dataset.samples]),
        modes=dataset.modes,
        bad=dataset.skipped,
        ignored=dataset.ignored,
        equal=tuple(
            EqualImages(
                names=tuple(sample.name for sample in group),
                labels=tuple(dataset.classes[sample.label] for sample in group),
                splits=tuple(sample.split for sample in group),
            )
            for group in dataset.equal_images
        ),
        imbalance=largest / smallest if smallest else float("inf"),
    )


def _counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Images of each class in each split, splits in the order train, minival, test."""
    found = Counter((sample.split, sample.label) for sample in dataset.samples)
    given = {split for split, _ in found}
    return {
        split: {name: found[split, label] for label, name in enumerate(dataset.classes)}
        for split in ("", *SPLITS)
        if split in given
    }


def _sizes(sides: Sequence[int]) -> Sizes:
    return Sizes(min(sides), round(statistics.median(sides)), max(sides))
