"""The page of the paper in miniature: every part's answer and figures, beside the links to their own pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trifold.report.markup import duration
from trifold.report.study_contents import Block, Picture, Plot, Point, Series, StudyPage, Table, Value
from trifold.study.ablation import findings
from trifold.study.ablation_page import compared, differences, said, scaled_plot
from trifold.study.architecture_page import (
    answered,
    contested,
    front_plot,
    growth,
    stages,
)
from trifold.study.architecture_page import differences as search_differences
from trifold.study.contest import BASELINE, RANDOM
from trifold.study.contest import FOUND as SEARCHED
from trifold.study.directions import named
from trifold.study.folder import PAGE
from trifold.study.miniature import COEFFICIENTS, FAMILY, SEARCH, TRANSFER, Carriage, Family, Grid, Miniature
from trifold.study.pieces import machine, plus_minus, point, versions
from trifold.study.search_page import dots, sentence, standings
from trifold.study.searched import Searched
from trifold.study.transfer import carried
from trifold.study.transfer_page import accuracy, brought, gains
from trifold.study.transfer_page import compared as carried_table
from trifold.trials import Trained


def miniature_page(miniature: Miniature, about: Mapping[str, Any]) -> StudyPage:
    """What is finished of a miniature, as a page. about: `data`, `other` and `command`."""
    blocks: list[Block] = [_steps(miniature)]
    if miniature.searched is not None:
        blocks += _titled("Search", _of_search(miniature.searched))
    if miniature.grid is not None:
        blocks += _titled("Coefficients", _of_grid(miniature.grid))
    if miniature.family is not None and miniature.family.found:
        blocks += _titled("Family", _of_family(miniature.family, miniature.searched, miniature.maps))
    if miniature.carriage is not None and miniature.carriage.found:
        blocks += _titled("Transfer", _of_transfer(miniature.carriage))
    found = {(number, 0): one for number, one in enumerate(_trainings(miniature))}
    return StudyPage(
        title=f"The paper in miniature: {about['data']}, then {about['other']}",
        question=(
            f"Can a network be searched on {about['data']}, scaled by coefficients found for it, and carried over to "
            f"{about['other']}, and does each step help?"
        ),
        answer=told(miniature, about),
        notes=miniature_notes(miniature),
        blocks=tuple(blocks),
        command=about["command"],
        machine=machine(found),
        versions=versions(found),
    )


def told(miniature: Miniature, about: Mapping[str, Any]) -> str:
    """The answer in a few sentences, as far as it is known."""
    parts = (
        _told_search(miniature.searched),
        _told_grid(miniature.grid),
        _told_family(miniature.family),
        _told_transfer(miniature.carriage, str(about["other"])),
    )
    return " ".join(part for part in parts if part) or "Nothing is finished yet."


def _told_search(searched: Searched | None) -> str:
    reached = None if searched is None else searched.outcome
    if reached is None or SEARCHED not in reached.chosen:
        return ""
    words = [f"Found: {plus_minus(*reached.measured[reached.chosen[SEARCHED]].test)} % on test"]
    others = {BASELINE: "the baseline of its cost", RANDOM: "random search's best"}
    words += [
        f"{name} {plus_minus(*reached.measured[reached.chosen[role]].test)}"
        for role, name in others.items()
        if role in reached.chosen
    ]
    return f"{', '.join(words)}."


def _told_grid(grid: Grid | None) -> str:
    found = None if grid is None else grid.coefficients
    return "" if found is None else f"Best direction of growth: {named(found)}."


def _told_family(family: Family | None) -> str:
    if family is None:
        return ""
    measured = findings(family.ablation, family.found).measured
    known = {name: measured[number].test for name, number in family.sizes.items() if number in measured}
    sizes = ", ".join(f"{name} {plus_minus(*test)}" for name, test in known.items())
    return f"Family: {sizes} %." if len(known) > 1 else ""


def _told_transfer(carriage: Carriage | None, other: str) -> str:
    gained = () if carriage is None else carried(*carriage).gains
    parts = [f"{gain.name} {gain.points:+.1f} points ({gain.verdict})" for gain in gained]
    return f"Carried over to {other}, against random weights: {', '.join(parts)}." if parts else ""


def miniature_notes(miniature: Miniature) -> tuple[str, ...]:
    """What the reader must know of the whole; each step's own page has what is to be known of that step."""
    notes = []
    if 1 in _seeds(miniature):
        notes.append("One seed: a smoke test, and no difference can be told from chance.")
    parts = {
        SEARCH: miniature.searched is not None and not miniature.searched.to_come,
        COEFFICIENTS: miniature.grid is not None and not miniature.grid.search.to_come(miniature.grid.found),
        FAMILY: miniature.family is not None and not miniature.family.ablation.to_come(miniature.family.found),
        TRANSFER: miniature.carriage is not None and not miniature.carriage.transfer.to_come(miniature.carriage.found),
    }
    if unfinished := [name for name, done in parts.items() if not done]:
        notes.append(f"Not finished: {', '.join(unfinished)}.")
    notes.append("Minival makes every choice, and test is only reported. Each step's own page has its notes.")
    return tuple(notes)


def _seeds(miniature: Miniature) -> list[int]:
    """Of each study that has begun."""
    seeds = [] if miniature.grid is None else [miniature.grid.search.seeds]
    seeds += [] if miniature.family is None else [miniature.family.ablation.seeds]
    return seeds + ([] if miniature.carriage is None else [miniature.carriage.transfer.seeds])


def _steps(miniature: Miniature) -> Table:
    """A row a part: what it answers, and where its own page is."""
    rows: list[tuple[str, str, str, list[Trained]]] = []
    searched, grid, family, carriage = miniature.searched, miniature.grid, miniature.family, miniature.carriage
    if searched is not None:
        rows.append(("search for a baseline (§4)", SEARCH, answered(searched), _of_searched(searched)))
    if grid is not None:
        rows.append(
            ("coefficients (§3.3)", COEFFICIENTS, sentence(grid.search, grid.answer), list(grid.found.values()))
        )
    if family is not None:
        compared_there = findings(*family)
        reached = said(compared_there) if compared_there.differences else _told_family(family)
        rows.append(("family by φ (§5.1, §5.2)", FAMILY, reached, list(family.found.values())))
    if carriage is not None:
        answer = brought(carriage.transfer, carried(*carriage))
        rows.append(("transfer (§5.3)", TRANSFER, answer, list(carriage.found.values())))
    made = []
    for name, folder, answer, ones in rows:
        seconds = sum(float(one.facts.get("seconds", 0)) for one in ones)
        made.append(
            (
                Value(name, name, f"{folder}/{PAGE}"),
                Value(str(len(ones)), len(ones)),
                Value(duration(seconds), seconds),
                Value(answer, answer),
            )
        )
    columns = ("step", "trainings", "time", "answer")
    return Table("The steps", columns, tuple(made), "Each name opens the step's own page, with every training.")


def _of_searched(searched: Searched) -> list[Trained]:
    return [*searched.found.values(), *searched.beside.values(), *searched.full.values()]


def _trainings(miniature: Miniature) -> list[Trained]:
    ones = [] if miniature.searched is None else _of_searched(miniature.searched)
    for part in (miniature.grid, miniature.family, miniature.carriage):
        ones += [] if part is None else list(part.found.values())
    return ones


def _of_search(searched: Searched) -> list[Block]:
    blocks: list[Block] = []
    if any(not one.failed for one in searched.found.values()):
        blocks += [_below(front_plot(searched), SEARCH), growth(searched)]
    reached = searched.outcome
    if searched.contest is not None and reached is not None and reached.measured:
        blocks += [contested(searched, searched.contest, reached), search_differences(reached)]
    if searched.chosen is not None:
        blocks.append(stages(searched, searched.chosen))
    return blocks


def _below(plot: Plot, folder: str) -> Plot:
    """The plot with links that lead from the folder above."""

    def moved(one: Point) -> Point:
        return one._replace(link=f"{folder}/{one.link}" if one.link else "")

    return plot._replace(series=tuple(s._replace(points=tuple(map(moved, s.points))) for s in plot.series))


def _of_grid(grid: Grid) -> list[Block]:
    reached = grid.answer
    return [] if reached.choice is None else [dots(grid.search, reached), standings(grid.search, reached)]


def _of_family(family: Family, searched: Searched | None, maps: bytes) -> list[Block]:
    reached = findings(*family)
    blocks: list[Block] = [
        _sizes(family, searched),
        scaled_plot(family.ablation, reached),
        compared(family.ablation, reached),
    ]
    blocks += [differences(reached)] if reached.differences else []
    if maps:
        blocks.append(
            Picture(
                title="Where the networks look (as Figure 7)",
                png=maps,
                alt="class activation maps of the first network and of each kind's largest, side by side",
                caption="The class that each network finds most probable; the first images of test, none chosen.",
            )
        )
    return blocks


def _of_transfer(carriage: Carriage) -> list[Block]:
    reached = carried(*carriage)
    blocks: list[Block] = [accuracy(carriage.transfer, reached), carried_table(carriage.transfer, reached)]
    return [*blocks, gains(reached)] if reached.gains else blocks


def _titled(step: str, blocks: list[Block]) -> list[Block]:
    """The blocks with the step before their titles: several steps have tables of one name."""
    return [block._replace(title=f"{step}: {block.title[0].lower()}{block.title[1:]}") for block in blocks]


def _sizes(family: Family, searched: Searched | None) -> Plot:
    """The family over its parameters, beside what the search was held to."""
    reached, ablation = findings(*family), family.ablation
    candidates = {0: ablation.comparison.baseline}
    candidates |= {
        number: one.candidate for one, number in zip(ablation.comparison.points, ablation.numbers, strict=True)
    }
    sizes = {number: name for name, number in family.sizes.items() if number in reached.measured}
    members = tuple(
        point(float(candidates[number].cost.parameters), *reached.measured[number].test, f"family, {name}")
        for number, name in sizes.items()
    )
    series = [Series("the family found", members)]
    outcome = None if searched is None else searched.outcome
    if searched is not None and searched.contest is not None and outcome is not None:
        others = {BASELINE: "the baseline of the search", RANDOM: "random search's best"}
        for role, name in others.items():
            if role in outcome.chosen:
                entrant = searched.contest.entrants[outcome.chosen[role]]
                got = outcome.measured[outcome.chosen[role]]
                series.append(Series(name, (point(entrant.costs["parameters"], *got.test, name),), joined=False))
    return Plot(
        title="Accuracy over parameters (as Figure 1)",
        x_label="parameters",
        y_label="accuracy on test, %",
        series=tuple(series),
        caption="Means over seeds with Student's 95 % intervals.",
        log_x=True,
    )
