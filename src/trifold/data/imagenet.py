"""ImageNet's classes as published classifiers number them, and the classes of a user's data found among them."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trifold.data.decode import printable
from trifold.errors import InvalidData

_SYNSET = re.compile(r"(n[0-9]{8})(?![0-9a-z])", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a classifier's outputs stand for, in their order.

    synsets: WordNet's ids, such as n01440764. names: each class's words, such as "tench, Tinca tinca".
    """

    synsets: tuple[str, ...]
    names: tuple[str, ...]

    def label(self, index: int) -> str:
        """An output's id and first word, such as "n01440764 tench"."""
        return f"{self.synsets[index]} {self.names[index].partition(',')[0]}"


class Matched(NamedTuple):
    """The output that each class of the data is, and what the classes were found by: "synset", "index and name"."""

    places: tuple[int, ...]
    by: str


def outputs_of(num_classes: int) -> Outputs | None:
    """The classes of a published classifier of so many outputs, by timm's tables; None where there is none such.

    1000 are ImageNet's own, 11,821 timm's ImageNet-12k, 21,843 Google's ImageNet-21k.
    """
    import trifold._torchvision  # noqa: F401, I001  timm.data imports torchvision, so our guard goes first
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return None
    info: Any = ImageNetInfo(subset)  # without annotations
    return Outputs(synsets=tuple(info.label_names()), names=tuple(info.label_descriptions()))


def match(classes: Sequence[str], outputs: Outputs, where: str) -> Matched:
    """The output that each class's name says: by its synset (words may follow it), its index from 0, or a word of it.

    The first word of a class goes before its other ones: "crayfish" is no spiny lobster.
    where: what errors call the data.

    Raises InvalidData naming the first class that is none of the outputs, with the nearest; that could be several; or
    that is the same as another.
    """
    finder = _Finder(outputs)
    found: dict[str, tuple[int, str]] = {}
    unknown = []
    for name in classes:
        indices, by = finder.find(name)
        if len(indices) > 1:
            could_be = " or ".join(outputs.label(index) for index in indices)
            raise InvalidData(f"{where}: class {printable(name)!r} could be {could_be}; name it by its synset")
        if indices:
            found[name] = (indices[0], by)
        else:
            unknown.append(name)
    if unknown:
        others = f" (as are {len(unknown) - 1} more)" if unknown[1:] else ""
        raise InvalidData(
            f"{where}: class {printable(unknown[0])!r}{others} is none of the {len(outputs.synsets)} classes by "
            f"synset, index or name; nearest are {finder.nearest(unknown[0])}"
        )
    _check_different({name: index for name, (index, _) in found.items()}, where)
    kinds = dict.fromkeys(by for _, by in found.values())
    return Matched(tuple(index for index, _ in found.values()), " and ".join(kinds))


def match_unnamed(classes: Sequence[str], num_classes: int, where: str) -> Matched:
    """As `match`, of outputs that nothing names: by index, or in the classes' own order where there are as many.

    Raises InvalidData naming a class that is no index.
    """
    if all(_NUMBER.fullmatch(name) for name in classes):
        places = tuple(map(int, classes))
        wrong = next((name for name, place in zip(classes, places, strict=True) if place >= num_classes), None)
        if wrong is None:
            _check_different(dict(zip(classes, places, strict=True)), where)
            return Matched(places, "index")
    elif len(classes) == num_classes:
        return Matched(tuple(range(num_classes)), "the order of their names")
    else:
        wrong = next(name for name in classes if not _NUMBER.fullmatch(name))
    raise InvalidData(
        f"{where}: class {printable(wrong)!r} is none of the {num_classes} outputs, which nothing names here; allowed "
        f"are the indices 0 to {num_classes - 1}, or {num_classes} classes in the outputs' order"
    )


def _check_different(places: dict[str, int], where: str) -> None:
    """Raises InvalidData if two classes are one output."""
    first: dict[int, str] = {}
    for name, place in places.items():
        if place in first:
            raise InvalidData(
                f"{where}: classes {printable(first[place])!r} and {printable(name)!r} are both output {place}; "
                "keep one of them"
            )
        first[place] = name


class _Finder:
    """The outputs by all that names them."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self.synsets = {synset: index for index, synset in enumerate(outputs.synsets)}
        self.words: tuple[defaultdict[str, list[int]], defaultdict[str, list[int]]] = (
            defaultdict(list),
            defaultdict(list),
        )
        for index, names in enumerate(outputs.names):
            first, *others = (_plain(word) for word in names.split(","))
            for words, into in (({first, _plain(names)}, self.words[0]), (set(others), self.words[1])):
                for word in words:
                    into[word].append(index)

    def find(self, name: str) -> tuple[list[int], str]:
        """The outputs that a class's name can mean, and what it was found by."""
        name = name.strip()
        if matched := _SYNSET.match(name):
            index = self.synsets.get(matched[1].lower())
            return ([] if index is None else [index]), "synset"
        if _NUMBER.fullmatch(name):
            return ([int(name)] if int(name) < len(self.outputs.synsets) else []), "index"
        word = _plain(name)
        return next((words[word] for words in self.words if word in words), []), "name"

    def nearest(self, name: str) -> str:
        """The outputs whose names or ids are most like a class's; the first ones where none is like it."""
        if _SYNSET.match(name.strip()):
            near = [self.synsets[one] for one in difflib.get_close_matches(name.strip().lower(), self.synsets, n=3)]
        else:
            words = {**self.words[1], **self.words[0]}
            near = [words[one][0] for one in difflib.get_close_matches(_plain(name), words, n=3)]
        return ", ".join(self.outputs.label(index) for index in dict.fromkeys(near or range(3)))


def _plain(text: str) -> str:
    """Words in small letters with one space between, so that great_grey_owl and "great grey owl" are the same."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))
