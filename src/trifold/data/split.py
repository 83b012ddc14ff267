"""Which samples train, which choose (minival) and which are reported (test): stratified, from a seed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from trifold.data.dataset import SPLITS, Dataset
from trifold.data.decode import printable
from trifold.errors import InvalidData, InvalidInput

logger = logging.getLogger(__name__)

TEST_SHARE = 0.2
MINIVAL_SHARE = 0.1


class Split(NamedTuple):
    """Indices into a dataset's samples, each in ascending order; no index stands twice, none is missing.

    train: what weights are fitted to. minival: what epochs and recipes are chosen on. test: what is reported, once.
    """

    train: tuple[int, ...]
    minival: tuple[int, ...]
    test: tuple[int, ...]


def split(
    dataset: Dataset, *, seed: int = 0, test_share: float = TEST_SHARE, minival_share: float = MINIVAL_SHARE
) -> Split:
    """The dataset's samples dealt out class by class; splits that the source gives are kept as they are.

    What is missing is cut from the samples the source calls train, or from all: of each class test_share and
    minival_share of what is cut from, rounded, at least one image. A class's cut depends on the seed and on its own
    samples only, so other classes may come and go without moving it, unless they hold the same images.

    Equal images (by digest) never come into different parts: those of one class stay together, which may make a part a
    little smaller than its share; those that stand in several classes, one of which must be wrong, all train.

    Raises InvalidData with the counts if a class has too few different images, or none in a given split; InvalidInput
    for shares outside (0, 1).
    """
    for name, value in (("test_share", test_share), ("minival_share", minival_share)):
        if not 0 < value < 1:
            raise InvalidInput(f"{name} must lie between 0 and 1, got {value!r}")
    given = {sample.split for sample in dataset.samples}
    shares = {"test": test_share, "minival": minival_share}
    missing = {name: share for name, share in shares.items() if name not in given}
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    for name in shares.keys() & given:
        parts[name] = [i for i, sample in enumerate(dataset.samples) if sample.split == name]
        _check_given(dataset, name)
    ambiguous = _ambiguous(dataset) if missing else set()
    for class_name, pool in zip(dataset.classes, _pools(dataset), strict=True):
        digests = {i: dataset.samples[i].digest for i in pool}
        parts["train"].extend(i for i in pool if digests[i] in ambiguous)
        clear = {i: digest for i, digest in digests.items() if digest not in ambiguous}
        for name, indices in _deal(clear, missing, seed, class_name).items():
            parts[name].extend(indices)
    return Split(*(tuple(sorted(parts[name])) for name in SPLITS))


def _check_given(dataset: Dataset, split: str) -> None:
    """Raises InvalidData naming the first class without an image in a split that the source gives."""
    found = {sample.label for sample in dataset.samples if sample.split == split}
    for label, name in enumerate(dataset.classes):
        if label not in found:
            raise InvalidData(
                f"{printable(dataset.name)}: class {printable(name)!r} has no images in {split}; at least 1 is needed"
            )


def _pools(dataset: Dataset) -> list[list[int]]:
    """Of each class the indices of the samples that are cut."""
    pools: list[list[int]] = [[] for _ in dataset.classes]
    for i, sample in enumerate(dataset.samples):
        if sample.split in ("", "train"):
            pools[sample.label].append(i)
    return pools


def _ambiguous(dataset: Dataset) -> set[str]:
    """The digests of images to be cut that stand in more than one class."""
    labels: dict[str, int] = {}
    cut = [sample for sample in dataset.samples if sample.split in ("", "train")]
    found = {sample.digest for sample in cut if labels.setdefault(sample.digest, sample.label) != sample.label}
    if found:
        logger.warning(
            "%s: %d images stand in more than one class, byte by byte; they are left to train",
            printable(dataset.name),
            len(found),
        )
    return found


def _deal(pool: Mapping[int, str], shares: dict[str, float], seed: int, class_name: str) -> dict[str, list[int]]:
    """One class's samples (index to digest) shuffled and cut: the named shares first, the rest to train."""
    order = np.random.default_rng([seed, *class_name.encode(errors="surrogateescape")]).permutation(len(pool))
    indices = list(pool)
    groups: dict[str, list[int]] = {}
    for i in order:
        groups.setdefault(pool[indices[int(i)]], []).append(indices[int(i)])
    counts = {name: max(1, round(share * len(pool))) for name, share in shares.items()}
    if sum(counts.values()) >= len(pool) or len(groups) <= len(counts):
        parts = " and ".join(["train", *shares])
        found = f"{len(pool)} images"
        needed = f"{sum(counts.values()) + 1}"
        if len(groups) <= len(counts) and len(groups) < len(pool):
            found, needed = f"{found}, {len(groups)} different ones", f"{len(counts) + 1} different ones"
        raise InvalidData(
            f"class {printable(class_name)!r} has {found}; its split into {parts} needs at least {needed}"
        )
    dealt: dict[str, list[list[int]]] = {name: [] for name in (*counts, "train")}
    room = {**counts, "train": len(pool)}
    for group in groups.values():
        name = next(name for name in dealt if len(group) <= room[name])
        dealt[name].append(group)
        room[name] -= len(group)
    _fill(dealt)
    return {name: [i for group in part for i in group] for name, part in dealt.items()}


def _fill(dealt: dict[str, list[list[int]]]) -> None:
    """Gives each part without images the smallest group of the part that holds most groups."""
    for part in dealt.values():
        if not part:
            donor = max(dealt.values(), key=len)
            smallest = min(donor, key=len)
            donor.remove(smallest)
            part.append(smallest)
