"""A folder with one subfolder a class, scanned once: every image opened and fully decoded, every bad one named."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from trifold.data.dataset import BadFile, Dataset, Sample, content_digest
from trifold.data.decode import SUFFIXES, decode, printable, read_bytes
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
"""The folder names that mean a split. What others call validation chooses the weights, so it is minival here."""

LISTED = 10
"""Bad files named in an error; the rest is counted."""


class _Candidate(NamedTuple):
    path: Path
    split: str
    label: int


def open_folder(root: str | Path, *, skip_bad: bool = False) -> Dataset:
    """The images in root/<class>/ or root/{train,test,val}/<class>/, at any depth below; classes sorted by name.

    Names that begin with a dot are passed over; other files without an image's suffix are counted in `ignored`.
    skip_bad: leave bad images out, named in the log and in `skipped`, instead of stopping.

    Raises InvalidData if the folder is absent or empty, has fewer than two classes or a class without images, or
    holds bad images; all of them are looked at first, and the first ten named.
    """
    name, root = str(root), Path(root)  # Path("./digits") would forget that it is no built-in set
    splits = _split_folders(root)
    classes = tuple(sorted({folder.name for parent, _ in splits for folder in _subfolders(parent)}))
    candidates, ignored = _candidates(splits, classes)
    if not candidates:
        allowed = " ".join(SUFFIXES)
        raise InvalidData(f"{printable(root)}: has no images; allowed are {allowed} in one subfolder a class")
    for class_name in classes:
        if not class_name.isprintable():
            raise InvalidData(
                f"{printable(root)}: class {printable(class_name)!r} must have a name of printable characters"
            )
    if len(classes) < 2:
        raise InvalidData(f"{printable(root)}: has 1 class, {printable(classes[0])!r}; at least 2 are needed")
    _check_classes(root, splits, classes, {(c.split, c.label) for c in candidates}, "images")
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        looked_at = list(pool.map(lambda candidate: _look_at(root, candidate), candidates))
    samples = tuple(found for found in looked_at if isinstance(found, Sample))
    bad = tuple(found for found in looked_at if isinstance(found, BadFile))
    if bad and not skip_bad:
        raise InvalidData(_listing(root, bad, len(candidates)))
    for file in bad:
        logger.warning("left out: %s", file.reason)
    if ignored:
        logger.warning("%s: %d files are not images by their suffix and were passed over", printable(root), ignored)
    _check_classes(root, splits, classes, {(s.split, s.label) for s in samples}, "usable images")
    source = str(root.resolve())
    return Dataset(name=name, source=source, classes=classes, samples=samples, skipped=bad, ignored=ignored)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _split_folders(root: Path) -> list[tuple[Path, str]]:
    """The folders that hold the class folders, each with the split it stands for ("" if the root itself does)."""
    if not root.exists():
        raise InvalidData(f"{printable(root)}: there is no such folder; allowed are a folder of images and digits")
    if not root.is_dir():
        raise InvalidData(f"{printable(root)}: is a file; allowed is a folder with one subfolder a class")
    folders = _subfolders(root)
    if not folders:
        raise InvalidData(f"{printable(root)}: has no subfolders; allowed is one subfolder a class")
    names = {folder.name.lower() for folder in folders}
    if not names <= SPLIT_NAMES.keys():
        return [(root, "")]
    if "train" not in names:
        found = ", ".join(sorted(names))
        raise InvalidData(f"{printable(root)}: has the splits {found}; a folder with splits needs train")
    splits = [(folder, SPLIT_NAMES[folder.name.lower()]) for folder in folders]
    if len({split for _, split in splits}) < len(splits):
        found = ", ".join(folder.name for folder in folders)
        raise InvalidData(f"{printable(root)}: has {found}, of which two mean the same split; keep one of them")
    return splits


def _candidates(splits: list[tuple[Path, str]], classes: tuple[str, ...]) -> tuple[list[_Candidate], int]:
    """Every file with an image's suffix, in a fixed order, and the number of other files."""
    candidates, ignored = [], 0
    for parent, split in splits:
        for folder in _subfolders(parent):
            for path in sorted(folder.rglob("*")):
                if path.name.startswith(".") or not path.is_file():
                    continue
                if path.suffix.lower() in SUFFIXES:
                    candidates.append(_Candidate(path, split, classes.index(folder.name)))
                else:
                    ignored += 1
    return candidates, ignored


def _check_classes(
    root: Path, splits: list[tuple[Path, str]], classes: tuple[str, ...], found: set[tuple[str, int]], what: str
) -> None:
    """Raises InvalidData naming the first class without images, in the split where it has none."""
    for parent, split in splits:
        for label, name in enumerate(classes):
            if (split, label) not in found:
                where = f" in {parent.name}" if split else ""
                named = f"class {printable(name)!r}"
                raise InvalidData(f"{printable(root)}: {named} has no {what}{where}; at least 1 is needed")


def _look_at(root: Path, candidate: _Candidate) -> Sample | BadFile:
    try:
        content = read_bytes(candidate.path)
        image = decode(content, candidate.path)
    except InvalidData as error:
        return BadFile(str(candidate.path), str(error))
    return Sample(
        name=candidate.path.relative_to(root).as_posix(),
        label=candidate.label,
        split=candidate.split,
        width=image.width,
        height=image.height,
        mode=image.mode,
        digest=content_digest(content),
        content=candidate.path,
    )


def _listing(root: Path, bad: tuple[BadFile, ...], number: int) -> str:
    named = "; ".join(file.reason for file in bad[:LISTED])
    more = f"; and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    advice = "convert or remove them, or leave them out with --skip-bad"
    if len(bad) == 1:
        return f"{named} ({advice.replace('them', 'it')})"
    return f"{printable(root)}: {len(bad)} of {number} images cannot be used: {named}{more} ({advice})"
