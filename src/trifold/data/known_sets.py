"""The sets that networks are transferred to, as torchvision lays them out on disk, with their official splits."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.io.matlab import MatReadError

from trifold._torchvision import torchvision
from trifold.data.dataset import Dataset
from trifold.data.decode import printable
from trifold.data.listing import SPLIT_NAMES, Candidate, Listing, open_listing
from trifold.errors import InvalidData

_DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MatReadError, zlib.error)
"""What torchvision raises where the files are absent, or are not those that it knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One official split as torchvision names it: its images, each a path or (height, width, 3) bytes, and labels."""

    classes: Sequence[str]
    images: Sequence[Any]
    labels: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSet:
    """How a set is opened: reader gives a Part of (root, split), for each split that the set has.

    splits: torchvision's word to ours. files: what must lie below the root, for the error that says so.
    """

    title: str
    reader: Callable[[str, str], Part]
    splits: dict[str, str]
    files: str


def _cifar(dataset: type[torchvision.datasets.CIFAR10]) -> Callable[[str, str], Part]:
    def read(root: str, split: str) -> Part:
        part = dataset(root, train=split == "train")
        return Part(classes=part.classes, images=list(part.data), labels=part.targets)

    return read


def _files(dataset: Callable[..., Any]) -> Callable[[str, str], Part]:
    def read(root: str, split: str) -> Part:
        part = dataset(root, split, loader=Path)  # the loader is given each image's path: the path is what it returns
        images, labels = zip(*(part[i] for i in range(len(part))), strict=True) if len(part) else ((), ())
        return Part(classes=part.classes, images=images, labels=labels)

    return read


def _pets(root: str, split: str) -> Part:
    part = torchvision.datasets.OxfordIIITPet(root, split)  # has no loader; these two names are as old as the class
    return Part(classes=part.classes, images=part._images, labels=part._labels)


_TRAIN_TEST = {"train": "train", "test": "test"}
_TRAIN_VAL_TEST = {"train": "train", "val": "minival", "test": "test"}

KNOWN_SETS: dict[str, KnownSet] = {
    "cifar10": KnownSet(
        title="CIFAR-10",
        reader=_cifar(torchvision.datasets.CIFAR10),
        splits=_TRAIN_TEST,
        files="cifar-10-batches-py with data_batch_1 to data_batch_5, test_batch and batches.meta",
    ),
    "cifar100": KnownSet(
        title="CIFAR-100",
        reader=_cifar(torchvision.datasets.CIFAR100),
        splits=_TRAIN_TEST,
        files="cifar-100-python with train, test and meta",
    ),
    "flowers102": KnownSet(
        title="Oxford 102 Flowers",
        reader=_files(torchvision.datasets.Flowers102),
        splits=_TRAIN_VAL_TEST,
        files="flowers-102 with jpg/, imagelabels.mat and setid.mat",
    ),
    "stanford_cars": KnownSet(
        title="Stanford Cars",
        reader=_files(torchvision.datasets.StanfordCars),
        splits=_TRAIN_TEST,
        files="stanford_cars with cars_train/, cars_test/, cars_test_annos_withlabels.mat, devkit/cars_meta.mat and "
        "devkit/cars_train_annos.mat",
    ),
    "fgvc_aircraft": KnownSet(
        title="FGVC-Aircraft",
        reader=_files(torchvision.datasets.FGVCAircraft),
        splits=_TRAIN_VAL_TEST,
        files="fgvc-aircraft-2013b/data with images/, variants.txt and images_variant_{train,val,test}.txt",
    ),
    "oxford_pets": KnownSet(
        title="Oxford-IIIT Pet",
        reader=_pets,
        splits={"trainval": "train", "test": "test"},
        files="oxford-iiit-pet with images/, annotations/trainval.txt and annotations/test.txt",
    ),
    "food101": KnownSet(
        title="Food-101",
        reader=_files(torchvision.datasets.Food101),
        splits=_TRAIN_TEST,
        files="food-101 with images/, meta/train.json and meta/test.json",
    ),
}
"""The sets by the names that users give them; aircraft by variant, the task of the paper's table 5."""


def open_known(name: str, root: str | Path, *, skip_bad: bool = False) -> Dataset:
    """The set of that name in KNOWN_SETS, from the files below root, with its official splits; nothing is downloaded.

    What torchvision calls val is minival; a set without it has its minival cut from train by `split.split`.

    Raises InvalidData saying which files are expected where, if they are absent or damaged.
    """
    known = KNOWN_SETS[name]
    if not str(root):
        raise InvalidData(f"{name}: must be followed by the folder that holds it, as in {name}:/data")
    parts = {word: _read(name, Path(root), word) for word in known.splits}
    classes = tuple(str(label) for label in next(iter(parts.values())).classes)
    where = f"{name}:{printable(root)}"
    candidates: list[Candidate] = []
    for word, part in parts.items():
        if tuple(part.classes) != classes:
            raise InvalidData(f"{where}: its splits name different classes; allowed is one list of classes")
        candidates.extend(_candidates(where, Path(root), word, part))
    return open_listing(
        Listing(
            name=f"{name}:{root}",
            where=where,
            source=f"{name}:{Path(root).resolve()}",
            classes=classes,
            candidates=tuple(candidates),
            splits={split: word for word, split in known.splits.items()},
        ),
        skip_bad=skip_bad,
    )


def _read(name: str, root: Path, split: str) -> Part:
    known = KNOWN_SETS[name]
    try:
        return known.reader(str(root), split)
    except _DAMAGED as error:
        raise InvalidData(
            f"{name}:{printable(root)}: {known.title} is not there or is damaged ({_reason(error)}); expected below "
            f"that folder is {known.files}; nothing is downloaded"
        ) from None


def _reason(error: Exception) -> str:
    """The error on one short line, without torchvision's advice to download."""
    if isinstance(error, OSError) and error.filename:
        return f"{printable(error.filename)}: {error.strerror}"
    text = " ".join(str(error).split("You can use download")[0].split()).rstrip(".")
    return printable(text or type(error).__name__)[:200]


def _candidates(where: str, root: Path, word: str, part: Part) -> list[Candidate]:
    """The part's images; raises InvalidData for a label that is no place in the list of classes."""
    split = SPLIT_NAMES.get(word, "train")
    candidates = []
    for number, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
        in_memory = not isinstance(image, str | os.PathLike)
        name = f"{word}/{number:05d}" if in_memory else Path(os.path.relpath(image, root)).as_posix()
        if not 0 <= int(label) < len(part.classes):
            raise InvalidData(
                f"{where}: {printable(name)}: label is {int(label)}; allowed are 0 to {len(part.classes) - 1}"
            )
        candidates.append(Candidate(name, split, int(label), _ppm(image) if in_memory else Path(image)))
    return candidates


def _ppm(pixels: Any) -> bytes:
    """The bytes of a binary PPM, uncompressed: (height, width, 3), uint8, nothing lost."""
    height, width, _ = pixels.shape
    header: bytes = b"P6\n%d %d\n255\n" % (width, height)
    return header + bytes(pixels.tobytes())
