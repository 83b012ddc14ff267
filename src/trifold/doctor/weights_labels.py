"""Whether a network's outputs stand in the order of the labels, found by what it says of labelled photographs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trifold.data.decode import printable, read_bytes
from trifold.errors import InvalidData

SURE = 2.5
"""Standard errors of a difference of two paired shares (McNemar 1947)."""

_FILE = ("file", "path", "image")
_LABEL = ("class_index", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order of the outputs. name: in words. correct: images right under it, of total.

    sure: standard errors by which it is right more often than the order as given.
    """

    name: str
    correct: int
    total: int
    sure: float
    given: bool


def read_labels(path: str | Path, images: Sequence[str | Path], classes: Sequence[str]) -> Tensor:
    """The output that each image should give, by a .csv with the columns file (or path, image) and class_index (label).

    A label is an output's number from 0, or one of the classes' names. Images are matched by their files' names.

    Raises InvalidData naming the file and what is missing.
    """
    where = printable(path)
    try:
        rows = list(csv.DictReader(io.StringIO(read_bytes(Path(path)).decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise InvalidData(f"{where}: is no .csv in UTF-8") from None
    columns = rows[0].keys() if rows else ()
    file, label = (next((name for name in names if name in columns), "") for names in (_FILE, _LABEL))
    if not file or not label:
        raise InvalidData(f"{where}: needs lines with the columns file (or path, image) and class_index (or label)")
    places = {name: str(place) for place, name in enumerate(classes)}
    known = {Path(row[file] or "").name: places.get(row[label] or "", row[label] or "") for row in rows}
    labels = []
    for image in images:
        text = known.get(Path(image).name)
        if text is None:
            raise InvalidData(f"{where}: has no line for {printable(image)}")
        if not text.isascii() or not text.isdigit():
            raise InvalidData(f"{where}: {label} must be an output's number or a class's name, got {printable(text)!r}")
        labels.append(int(text))
    return torch.tensor(labels)


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Names of the outputs in their order, one a line. Raises InvalidData if the file cannot be read or is empty."""
    try:
        names = tuple(read_bytes(Path(path)).decode("utf-8").split("\n"))
    except UnicodeDecodeError:
        raise InvalidData(f"{printable(path)}: is no text in UTF-8") from None
    names = tuple(name.strip() for name in names if name.strip())
    if not names:
        raise InvalidData(f"{printable(path)}: must hold the outputs' names, one a line")
    return names


def orders(num_classes: int, classes: Sequence[str]) -> dict[str, Tensor]:
    """Usual mistakes, by name: the output where each label's answer then stands, -1 for nowhere."""
    labels = torch.arange(num_classes)
    found = {
        "as given": labels,
        "one output later (a background class stands first)": torch.where(labels + 1 < num_classes, labels + 1, -1),
        "one output earlier (labels count from 1)": labels - 1,
    }
    sorts = {"numbers sorted as text (0, 1, 10, 100, ...)": [str(i) for i in range(num_classes)]}
    if classes:
        sorts["alphabetical order of the names"] = [name.casefold() for name in classes]
    for name, keys in sorts.items():
        by_rank = torch.tensor(sorted(range(num_classes), key=keys.__getitem__))
        rank = torch.empty_like(by_rank)
        rank[by_rank] = labels
        if not torch.equal(rank, labels):
            found[f"outputs in {name}"] = rank
            found[f"labels in {name}"] = by_rank
    return found


def try_orders(predicted: Tensor, labels: Tensor, num_classes: int, classes: Sequence[str] = ()) -> list[Order]:
    """How many images are right under each usual order, most first.

    predicted: the most probable output of each image; labels: the output that it should be; classes: the names of the
    outputs in their order, or none.

    Raises InvalidData if a label is not the number of an output.
    """
    if int(labels.max()) >= num_classes:
        raise InvalidData(f"labels must be below the network's {num_classes} outputs, got {int(labels.max())}")
    tried = {name: places[labels] == predicted for name, places in orders(num_classes, classes).items()}
    as_given = tried["as given"]
    found = []
    for name, right in tried.items():
        better, worse = int((right & ~as_given).sum()), int((as_given & ~right).sum())
        sure = (better - worse) / max(1.0, (better + worse) ** 0.5)
        found.append(Order(name=name, correct=int(right.sum()), total=len(labels), sure=sure, given=name == "as given"))
    return sorted(found, key=lambda order: (-order.correct, not order.given))
