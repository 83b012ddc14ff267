"""The paper in miniature: search, coefficients, family by phi and transfer, a study each in a folder of its own.

Paper §4 (the baseline by search), §3.3 (alpha, beta, gamma), §5.1 and §5.2 (the family), §5.3 (transfer), Figure 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trifold.data.dataset import Dataset
from trifold.data.split import split
from trifold.report.activation import draw_activation_maps
from trifold.scaling import Coefficients
from trifold.study.ablation import Ablation, ablation_from
from trifold.study.activation import Picture, figure_data, look, open_runs
from trifold.study.coefficients import Answer, Search, answer, search_from
from trifold.study.comparison import FOUND
from trifold.study.folder import STUDY, read_study
from trifold.study.pieces import Found
from trifold.study.searched import Searched, kept_search
from trifold.study.transfer import Transfer, transfer_from

SEARCH, COEFFICIENTS, FAMILY, TRANSFER = "search", "coefficients", "family", "transfer"
"""The folders of its studies, in its own."""

MAPS = "maps.png"
"""Class activation maps of the family, in its folder."""

SHOWN_CLASSES = 6
"""Classes of which an image is mapped."""


class Grid(NamedTuple):
    """The search for coefficients with what is finished of it."""

    search: Search
    found: Found

    @property
    def answer(self) -> Answer:
        """What is known so far."""
        return answer(self.search, self.found)

    @property
    def coefficients(self) -> Coefficients | None:
        """The answer's direction; None while there is none."""
        choice = self.answer.choice
        return None if choice is None else self.search.directions.candidates[choice.best].directions[0]


class Family(NamedTuple):
    """The comparison that the family is part of, with what is finished of it."""

    ablation: Ablation
    found: Found

    @property
    def sizes(self) -> dict[str, int]:
        """The family's networks by how many times the first one's multiply-adds they have."""
        points = zip(self.ablation.comparison.points, self.ablation.numbers, strict=True)
        return {"1x": 0, **{f"{one.factor:g}x": number for one, number in points if one.kind == FOUND}}

    def runs(self, folder: Path) -> dict[str, list[Path]]:
        """The family's run folders, by size and in the order of seeds. folder: the comparison's."""
        return {
            name: [folder / one.facts["run"] for (own, _), one in sorted(self.found.items()) if own == number]
            for name, number in self.sizes.items()
        }


class Carriage(NamedTuple):
    """The transfer with what is finished of it."""

    transfer: Transfer
    found: Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Miniature:
    """What there is of each part; None where it has not begun. maps: a PNG file, or empty."""

    searched: Searched | None
    grid: Grid | None
    family: Family | None
    carriage: Carriage | None
    maps: bytes


def kept_miniature(folder: Path) -> Miniature:
    """What a miniature's folder holds. Raises InvalidData as `folder.read_study` does."""
    kept: dict[str, Any] = {
        name: read_study(folder / name)
        for name in (SEARCH, COEFFICIENTS, FAMILY, TRANSFER)
        if (folder / name / STUDY).exists()
    }
    searched, grid, family, carried = (kept.get(name) for name in (SEARCH, COEFFICIENTS, FAMILY, TRANSFER))
    return Miniature(
        searched=None if searched is None else kept_search(folder / SEARCH, searched),
        grid=None if grid is None else Grid(search_from(grid.question), grid.found),
        family=None if family is None else Family(ablation_from(family.question), family.found),
        carriage=None if carried is None else Carriage(transfer_from(carried.question), carried.found),
        maps=(folder / MAPS).read_bytes() if (folder / MAPS).exists() else b"",
    )


def draw_maps(family: Family, dataset: Dataset, *, folder: Path, path: Path) -> None:
    """Draws where the first network and each kind's largest look, in one image of each of the first classes (Figure 7).

    The images are the first of test; each network is its first seed. folder: the comparison's, which run folders are
    found from.
    """
    largest: dict[str, int] = {"1x": 0}
    for point, number in zip(family.ablation.comparison.points, family.ablation.numbers, strict=True):
        if point.sweep is None and number:
            largest[point.kind] = number  # factors rise, so the last is the largest
    shown = {number: name for name, number in reversed(largest.items())}  # one network of two kinds is shown once
    runs = {name: folder / family.found[number, 0].facts["run"] for number, name in reversed(shown.items())}
    lookers = open_runs(list(runs.values()))
    pictures = _pictures(dataset, family.ablation.common.split_seed)
    draw_activation_maps(figure_data(lookers, pictures, look(lookers, pictures), names=list(runs)), path)


def _pictures(dataset: Dataset, split_seed: int) -> list[Picture]:
    """The first test image of each of the first classes."""
    first: dict[int, int] = {}
    for index in split(dataset, seed=split_seed).test:
        first.setdefault(dataset.samples[index].label, index)
    return [
        Picture(
            path=f"{dataset.classes[label]}/{Path(dataset.samples[first[label]].name).name}",
            image=dataset.samples[first[label]].open(),
            digest=dataset.samples[first[label]].digest,
        )
        for label in sorted(first)[:SHOWN_CLASSES]
    ]
