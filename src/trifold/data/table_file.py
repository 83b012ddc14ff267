"""A .csv that names images and their labels: every line checked, then every image opened as a folder's are."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trifold.data.dataset import BadFile, Dataset
from trifold.data.decode import printable
from trifold.data.listing import SPLIT_NAMES, Candidate, Listing, open_listing
from trifold.errors import InvalidData

COLUMNS = {"path": "path", "image": "path", "file": "path", "label": "label", "split": "split"}
"""The headings that are read, and what they mean; capitals or not."""

CLASS_COLUMNS = ("synset", "class_index")
"""Without a column label the first of these that is there names the class, as in ImageNet's own lists."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One line of the file: where errors say it stands, and its values."""

    where: str
    path: str
    label: str
    split: str


def open_table(file: str | Path, *, skip_bad: bool = False) -> Dataset:
    """The images that a .csv names: a header with path (or image, or file), label and, if it likes, split; UTF-8.

    In place of label there may be a column of CLASS_COLUMNS. Paths are absolute or start at the file's folder. Splits
    are named as folders are (`listing.SPLIT_NAMES`). Classes are sorted by name, or by number where every label is a
    whole number. Spaces around a label or split are no part of it; other columns are passed over. skip_bad: as in
    `folder.open_folder`; a path without a file is a bad image.

    Raises InvalidData naming file, line, field, value and what is allowed.
    """
    return open_listing(list_table(file), skip_bad=skip_bad)


def list_table(file: str | Path) -> Listing:
    """What the .csv names, before any image is opened. Raises InvalidData as `open_table` does of its lines."""
    name, file = str(file), Path(file)
    where = printable(file)
    rows = _rows(where, _text(file, where))
    given = {row.split for row in rows}
    if given != {""} and "train" not in given:
        raise InvalidData(f"{where}: has the splits {', '.join(sorted(given))}; a file with splits needs train")
    classes = in_order({row.label for row in rows})
    candidates, bad = _candidates(file, rows, classes)
    return Listing(
        name=name,
        where=where,
        source=str(file.absolute()),  # not resolved: the paths in a linked file start at the link
        classes=classes,
        candidates=tuple(candidates),
        splits={split: split for split in sorted(given) if split},
        bad=tuple(bad),
    )


def in_order(names: set[str]) -> tuple[str, ...]:
    """The names of classes sorted: by number if all are whole numbers, else as text."""
    if all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _text(file: Path, where: str) -> str:
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise InvalidData(f"{where}: is no regular file; allowed is a .csv of paths and labels")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidData(f"{where}: cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidData(
            f"{where}: line {line}: has the byte 0x{content[error.start]:02x}, which is not UTF-8; allowed is UTF-8"
        ) from None


def _rows(where: str, text: str) -> list[_Row]:
    """Every line after the header; empty lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    lines = _lines(where, reader)
    header = next(lines, None)
    if header is None:
        raise InvalidData(f"{where}: is empty; allowed is a header with path and label, and a line an image")
    places = _places(*header)
    rows = [_row(at, cells, places, width=len(header[1])) for at, cells in lines]
    if not rows:
        raise InvalidData(f"{where}: has no rows below its header; at least 1 image a class is needed")
    return rows


def _lines(where: str, reader: Iterator[list[str]]) -> Iterator[tuple[str, list[str]]]:
    """Each line's cells, and what errors call it."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line = reader.line_num  # type: ignore[attr-defined]  # of csv.reader, whose class has no public name
            raise InvalidData(f"{where}: line {line}: is not CSV: {printable(error)}") from None
        if cells:
            yield f"{where}: line {reader.line_num}", cells  # type: ignore[attr-defined]  # as above


def _places(where: str, header: list[str]) -> dict[str, int]:
    """Where each field that is read stands in a line."""
    places: dict[str, int] = {}
    for place, heading in enumerate(header):
        field = COLUMNS.get(heading.strip().lower())
        if field is None:
            continue
        if field in places:
            pair = f"{printable(header[places[field]])} and {printable(heading)}"
            raise InvalidData(f"{where}: has the columns {pair}, which both mean the {field}; keep one of them")
        places[field] = place
    if "label" not in places:
        headings = [heading.strip().lower() for heading in header]
        named = next((name for name in CLASS_COLUMNS if name in headings), None)
        if named is not None:
            places["label"] = headings.index(named)
    for field in ("path", "label"):
        if field not in places:
            found = ", ".join(printable(heading) for heading in header)
            raise InvalidData(
                f"{where}: has no column {field}, only {found:.200}; needed are path (or image, or file) and label, "
                "split if there is one, with commas between them"
            )
    return places


def _row(where: str, cells: list[str], places: dict[str, int], *, width: int) -> _Row:
    if len(cells) != width:
        raise InvalidData(f"{where}: has {len(cells)} fields; the header has {width}")
    path, label = cells[places["path"]], cells[places["label"]].strip()
    split = cells[places["split"]].strip() if "split" in places else ""
    if not path.strip():
        raise InvalidData(f"{where}: path is empty; allowed is the path of an image")
    if not label:
        raise InvalidData(f"{where}: label is empty; allowed is the name of a class")
    if not label.isprintable():
        raise InvalidData(f"{where}: label is {printable(label)!r}; allowed are printable characters")
    if "split" in places and split.lower() not in SPLIT_NAMES:
        found = f"{printable(split)!r}" if split else "empty"
        raise InvalidData(f"{where}: split is {found}; allowed are {', '.join(SPLIT_NAMES)}")
    return _Row(where=where, path=path, label=label, split=SPLIT_NAMES.get(split.lower(), ""))


def _candidates(file: Path, rows: list[_Row], classes: tuple[str, ...]) -> tuple[list[Candidate], list[BadFile]]:
    """An image each row, in the file's order; rows without a file become bad files.

    Raises InvalidData for a path that stands twice.
    """
    base = file.parent.absolute()
    labels = {name: label for label, name in enumerate(classes)}
    first: dict[str, str] = {}
    candidates, bad = [], []
    for row in rows:
        name = _name(base, row.path)
        if name in first:
            line = first[name].rpartition(" ")[2]
            raise InvalidData(
                f"{row.where}: path is {printable(row.path)!r}, as in line {line}; allowed is each path once"
            )
        first[name] = row.where
        path = base / row.path
        reason = _absent(path)
        if reason:
            text = f"{row.where}: path is {printable(row.path)!r}, {reason}; allowed are image files"
            bad.append(BadFile(str(path), text))
        else:
            candidates.append(Candidate(name, row.split, labels[row.label], path))
    return candidates, bad


def _name(base: Path, path: str) -> str:
    """The path below the file's folder without detours, or the absolute path where it lies elsewhere."""
    folder = os.path.normpath(base)
    whole = os.path.normpath(base / path)
    return whole.removeprefix(folder).lstrip("/") if Path(folder) in Path(whole).parents else whole


def _absent(path: Path) -> str:
    """Why there is no file of that path; "" if there is."""
    if path.is_file():
        return ""
    if path.is_dir():
        return "which is a folder"
    if "\0" not in str(path) and path.is_symlink():
        return "which is a dangling link"
    return "which is no regular file" if path.exists() else "where there is no file"
