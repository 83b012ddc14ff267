"""The sets of images that a user can name: a folder, a .csv, a built-in set, or one of torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trifold.data.dataset import Dataset
from trifold.data.digits import open_digits
from trifold.data.folder import list_folder
from trifold.data.known_sets import KNOWN_SETS, open_known
from trifold.data.listing import open_listing
from trifold.data.table_file import list_table

BUILT_IN: dict[str, Callable[[], Dataset]] = {"digits": open_digits}

LABELS = "labels.csv"
"""What the .csv is called that lies beside the images which it names."""


def open_data(
    data: str | Path, *, skip_bad: bool = False, check: Callable[[tuple[str, ...]], object] | None = None
) -> Dataset:
    """The built-in set of that name, torchvision's set "cifar10:FOLDER" and such, the .csv's images, or the folder's.

    "./digits" is the folder, and so is any Path. A folder without subfolders but with a labels.csv is that file.
    check: called with the classes before a folder's or a .csv's images are looked at, which takes minutes if there are
    many; what it raises stops that.

    Raises InvalidData as `open_folder`, `open_table` and `open_known` do.
    """
    if isinstance(data, str):
        if data in BUILT_IN:
            return BUILT_IN[data]()
        name, colon, root = data.partition(":")
        if name in KNOWN_SETS and (colon or not Path(data).exists()):
            return open_known(name, root, skip_bad=skip_bad)
    table = _table(data)
    listing = list_folder(data) if table is None else list_table(table)
    if check is not None:
        check(listing.classes)
    return open_listing(listing, skip_bad=skip_bad)


def source_of(data: str) -> str:
    """The `Dataset.source` that these data have, found without opening them."""
    if data in BUILT_IN:
        return data
    name, colon, root = data.partition(":")
    if name in KNOWN_SETS and (colon or not Path(data).exists()):
        return f"{name}:{Path(root).resolve()}"
    table = _table(data)
    return str(Path(data).resolve() if table is None else Path(table).absolute())


def _table(data: str | Path) -> str | Path | None:
    """The .csv that the data are; None where they are a folder's subfolders."""
    path = Path(data)
    if not path.is_dir():
        return data if path.suffix.lower() == ".csv" else None
    table = path / LABELS
    flat = table.is_file() and not any(one.is_dir() and not one.name.startswith(".") for one in path.iterdir())
    return table if flat else None


def is_there(source: str) -> bool:
    """Whether what `Dataset.source` named still lies where it did; its content is not looked at."""
    name, colon, root = source.partition(":")
    return source in BUILT_IN or Path(root if colon and name in KNOWN_SETS else source).exists()
