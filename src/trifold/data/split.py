"""Which samples train, which choose (minival) and which are reported (test): stratified, from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trifold.data.dataset import SPLITS, Dataset
from trifold.data.decode import printable
from trifold.errors import InvalidData, InvalidInput

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
    samples only, so other classes may come and go without moving it.

    Raises InvalidData with the counts if a class has too few images; InvalidInput for shares outside (0, 1).
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
    for label, class_name in enumerate(dataset.classes):
        pool = [i for i, s in enumerate(dataset.samples) if s.label == label and s.split in ("", "train")]
        for name, indices in _deal(pool, missing, seed, class_name).items():
            parts[name].extend(indices)
    return Split(*(tuple(sorted(parts[name])) for name in SPLITS))


def _deal(pool: Sequence[int], shares: dict[str, float], seed: int, class_name: str) -> dict[str, list[int]]:
    """One class's samples shuffled and cut: the named shares first, the rest to train."""
    order = np.random.default_rng([seed, *class_name.encode(errors="surrogateescape")]).permutation(len(pool))
    shuffled = [pool[int(i)] for i in order]
    counts = {name: max(1, round(share * len(pool))) for name, share in shares.items()}
    if sum(counts.values()) >= len(pool):
        parts = " and ".join(["train", *shares])
        raise InvalidData(
            f"class {printable(class_name)!r} has {len(pool)} images; its split into {parts} needs at least "
            f"{sum(counts.values()) + 1}"
        )
    dealt, start = {}, 0
    for name, count in counts.items():
        dealt[name] = shuffled[start : start + count]
        start += count
    dealt["train"] = shuffled[start:]
    return dealt
