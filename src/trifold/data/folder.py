"""A folder with one subfolder a class, listed once: what lies there that is no image is counted or named."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

from trifold.data.dataset import BadFile, Dataset
from trifold.data.decode import SUFFIXES, printable
from trifold.data.listing import SPLIT_NAMES, Candidate, Listing, open_listing
from trifold.errors import InvalidData

logger = logging.getLogger(__name__)

_DANGLING = "is a dangling link; allowed are image files"
"""Why a link to nothing is refused."""

_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


def open_folder(root: str | Path, *, skip_bad: bool = False) -> Dataset:
    """The images in root/<class>/ or root/{train,test,val}/<class>/, at any depth below; classes sorted by name.

    Names that begin with a dot are passed over; other files without an image's suffix are counted in `ignored`.
    skip_bad: leave bad images out, named in the log and in `skipped`, instead of stopping.

    Raises InvalidData if the folder is absent or empty, has fewer than two classes or a class without images, or
    holds bad images; all of them are looked at first, and the first ten named. What bears an image's suffix without
    being a file (a dangling link, a folder, a pipe) is a bad image; so is a link to a folder inside a class.
    """
    return open_listing(list_folder(root), skip_bad=skip_bad)


def list_folder(root: str | Path) -> Listing:
    """What lies in the folder, before any image is opened. Raises InvalidData if it is absent or has no images."""
    name, root = str(root), Path(root)  # Path("./digits") would forget that it is no built-in set
    splits = _split_folders(root)
    classes = tuple(sorted({folder.name for parent, _ in splits for folder in _subfolders(parent)}))
    candidates, bad, ignored = _candidates(root, splits, classes)
    if not candidates and not bad:
        allowed = " ".join(SUFFIXES)
        raise InvalidData(f"{printable(root)}: has no images; allowed are {allowed} in one subfolder a class")
    return Listing(
        name=name,
        where=printable(root),
        source=str(root.resolve()),
        classes=classes,
        candidates=tuple(candidates),
        splits={split: parent.name for parent, split in splits if split},
        bad=tuple(bad),
        ignored=ignored,
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _split_folders(root: Path) -> list[tuple[Path, str]]:
    """The folders that hold the class folders, each with the split it stands for ("" if the root itself does)."""
    if not root.exists():
        raise InvalidData(
            f"{printable(root)}: there is no such folder; allowed are a folder of images, a .csv, digits, "
            "or one of torchvision's sets such as cifar10:FOLDER"
        )
    if not root.is_dir():
        raise InvalidData(f"{printable(root)}: is a file; allowed is a folder with one subfolder a class, or a .csv")
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


def _candidates(
    root: Path, splits: list[tuple[Path, str]], classes: tuple[str, ...]
) -> tuple[list[Candidate], list[BadFile], int]:
    """Every file with an image's suffix, in the order of its path's parts; bad files; the number of other files."""
    labels = {name: label for label, name in enumerate(classes)}
    candidates: list[Candidate] = []
    bad: list[BadFile] = []
    ignored = 0
    for parent, split in splits:
        bad.extend(_beside_the_classes(parent))
        for folder in _subfolders(parent):
            place = folder.relative_to(root).as_posix()
            for below, found in _files(folder, place):
                if isinstance(found, BadFile):
                    bad.append(found)
                elif found.suffix.lower() in SUFFIXES:
                    candidates.append(Candidate(below, split, labels[folder.name], found))
                else:
                    ignored += 1
    return candidates, bad, ignored


def _beside_the_classes(parent: Path) -> list[BadFile]:
    """Dangling links that may have been classes; images that belong to no class are counted in the log."""
    entries = sorted(path for path in parent.iterdir() if not path.name.startswith("."))
    images = [path for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]
    if images:
        logger.warning(
            "%s: %d images, such as %s, lie beside the class folders and were passed over",
            printable(parent),
            len(images),
            printable(images[0].name),
        )
    dangling = [path for path in entries if path.is_symlink() and not path.exists()]
    return [BadFile(str(path), f"{printable(path)}: {_DANGLING}, folders or links to them") for path in dangling]


def _files(folder: Path, place: str) -> Iterator[tuple[str, Path | BadFile]]:
    """Every file below a folder with its path below the root; what only looks like an image as a BadFile.

    Folders are entered in the order of their names among the files, so that the order is that of sorted paths.
    """
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        yield place, BadFile(str(folder), f"{printable(folder)}: cannot be read: {error.strerror}")
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        below = f"{place}/{path.name}"
        named = path.suffix.lower() in SUFFIXES
        mode = _mode(path)
        if stat.S_ISDIR(mode) and not named and not path.is_symlink():
            yield from _files(path, below)
        elif stat.S_ISDIR(mode) or (named and not stat.S_ISREG(mode)):
            yield below, BadFile(str(path), f"{printable(path)}: {_no_image(path, mode)}")
        else:
            yield below, path


def _mode(path: Path) -> int:
    """What kind of thing the path leads to, 0 for nothing."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _no_image(path: Path, mode: int) -> str:
    """Why what a user would take for an image, or for a folder of them, cannot be used."""
    if stat.S_ISDIR(mode):
        if path.is_symlink():
            return "is a link to a folder, which is not followed; allowed are folders and files"
        return "is a folder named like an image; allowed are image files"
    if not mode:
        return _DANGLING
    return f"is {_KINDS.get(stat.S_IFMT(mode), 'a device')}; allowed are image files"
