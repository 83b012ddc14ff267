"""Labelled files that a source lists, turned into a dataset: each opened and fully decoded, every bad one named."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from trifold.data.dataset import BadFile, Dataset, Sample, content_digest
from trifold.data.decode import decode, printable, read_bytes
from trifold.errors import InvalidData

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": "train",
    "val": "minival",
    "valid": "minival",
    "validation": "minival",
    "minival": "minival",
    "test": "test",
}
"""The names that mean a split. What others call validation chooses the weights, so it is minival here."""

LISTED = 10
"""Bad files named in an error; the rest is counted."""

THREADS_FROM = 10_000
"""Bytes of a mean file from which threads help: below, decoding is so short that they only wait for each other."""

_CHUNK = 64

KEPT_PIXELS, KEPT_IMAGES = 40 * 40, 200_000
"""The pixels of images no larger are kept in memory, in sets no larger: at most a gigabyte, and half the decoding."""


class Candidate(NamedTuple):
    """An image that is yet to be opened: its fields are those of the Sample that it becomes."""

    name: str
    split: str
    label: int
    content: Path | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source says it holds, before any image is opened.

    where: what errors call the source, printable. splits: the splits that the source gives, each with the source's own
    word for it; empty if it gives none. bad: files known to be unusable before they are opened.
    """

    name: str
    where: str
    source: str
    classes: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    splits: Mapping[str, str] = field(default_factory=dict)
    bad: tuple[BadFile, ...] = ()
    ignored: int = 0


def open_listing(listing: Listing, *, skip_bad: bool = False) -> Dataset:
    """The listing's images; all are looked at before the first bad one stops it, or is left out with skip_bad.

    Raises InvalidData if there are fewer than two classes, a class without images in a split, a class whose name cannot
    be printed, or bad images, of which the first ten are named.
    """
    _check_names(listing)
    if not listing.bad:
        _check_classes(listing, listing.candidates, "images")
    looked_at = _look_at_all(listing.candidates)
    samples = tuple(found for found in looked_at if isinstance(found, Sample))
    bad = (*listing.bad, *(found for found in looked_at if isinstance(found, BadFile)))
    if bad and not skip_bad:
        raise InvalidData(_summary(listing.where, bad, len(listing.candidates) + len(listing.bad)))
    for file in bad:
        logger.warning("left out: %s", file.reason)
    if listing.ignored:
        logger.warning(
            "%s: %d files are not images by their suffix and were passed over", listing.where, listing.ignored
        )
    _check_classes(listing, samples, "usable images")
    dataset = Dataset(
        name=listing.name,
        source=listing.source,
        classes=listing.classes,
        samples=samples,
        skipped=bad,
        ignored=listing.ignored,
    )
    _warn_of_leakage(listing.where, dataset)
    return dataset


def _check_names(listing: Listing) -> None:
    for class_name in listing.classes:
        if not class_name.isprintable():
            raise InvalidData(
                f"{listing.where}: class {printable(class_name)!r} must have a name of printable characters"
            )
    if len(listing.classes) < 2:
        found = f"1 class, {listing.classes[0]!r}" if listing.classes else "0 classes"
        raise InvalidData(f"{listing.where}: has {found}; at least 2 are needed")


def _check_classes(listing: Listing, images: Sequence[Candidate] | Sequence[Sample], what: str) -> None:
    """Raises InvalidData naming the first class without images, in the split where it has none."""
    found = {(image.split, image.label) for image in images}
    for split, word in (listing.splits or {"": ""}).items():
        for label, name in enumerate(listing.classes):
            if (split, label) not in found:
                where = f" in {printable(word)}" if split else ""
                raise InvalidData(f"{listing.where}: class {name!r} has no {what}{where}; at least 1 is needed")


def _look_at_all(candidates: Sequence[Candidate]) -> list[Sample | BadFile]:
    """What each candidate turns out to be, in order, whatever the number of threads."""
    chunks = [candidates[start : start + _CHUNK] for start in range(0, len(candidates), _CHUNK)]
    sizes = [_size(candidate) for candidate in candidates[:: 1 + len(candidates) // 200]]
    threads = min(4, os.cpu_count() or 1) if sum(sizes) >= THREADS_FROM * len(sizes) else 1
    most = KEPT_PIXELS if len(candidates) <= KEPT_IMAGES else 0
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return [found for chunk in pool.map(partial(_look_at, keep=most), chunks) for found in chunk]


def _size(candidate: Candidate) -> int:
    if isinstance(candidate.content, bytes):
        return len(candidate.content)
    try:
        return candidate.content.stat().st_size
    except OSError:
        return 0


def _look_at(candidates: Sequence[Candidate], *, keep: int) -> list[Sample | BadFile]:
    return [_look_at_one(candidate, keep=keep) for candidate in candidates]


def _look_at_one(candidate: Candidate, *, keep: int) -> Sample | BadFile:
    """keep: number of pixels up to which the decoded image is kept."""
    path = candidate.name if isinstance(candidate.content, bytes) else candidate.content
    try:
        content = candidate.content if isinstance(candidate.content, bytes) else read_bytes(candidate.content)
        image = decode(content, path)
    except InvalidData as error:
        return BadFile(str(path), str(error))
    return Sample(
        name=candidate.name,
        label=candidate.label,
        split=candidate.split,
        width=image.width,
        height=image.height,
        mode=image.mode,
        digest=content_digest(content),
        content=candidate.content,
        pixels=image.tobytes() if image.width * image.height <= keep else b"",
    )


def _summary(where: str, bad: Sequence[BadFile], number: int) -> str:
    named = "; ".join(file.reason for file in bad[:LISTED])
    more = f"; and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    advice = "convert or remove them, or leave them out with --skip-bad"
    if len(bad) == 1:
        return f"{named} ({advice.replace('them', 'it')})"
    return f"{where}: {len(bad)} of {number} images cannot be used: {named}{more} ({advice})"


def _warn_of_leakage(where: str, dataset: Dataset) -> None:
    """Says that images stand in more than one of the splits that the source gives, with the first pair."""
    across = [group for group in dataset.equal_images if len({sample.split for sample in group}) > 1]
    if not across:
        return
    first = across[0][0]
    other = next(sample for sample in across[0] if sample.split != first.split)
    logger.warning(
        "%s: %d images stand in more than one split, byte by byte, such as %s (%s) and %s (%s)",
        where,
        len(across),
        printable(first.name),
        first.split,
        printable(other.name),
        other.split,
    )
