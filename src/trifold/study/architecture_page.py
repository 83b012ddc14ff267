"""The page of an architecture search: the front, how the best grew, what the full trainings say, every candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trifold.architecture import Architecture
from trifold.report.markup import duration
from trifold.report.study_contents import Block, Plot, Point, Series, StudyPage, Table, Value
from trifold.search.run import Found, front, ranked, spent
from trifold.search.space import size
from trifold.stages import stage_rows
from trifold.study.contest import BASELINE, FOUND, RANDOM, Contest, Outcome, Rank
from trifold.study.folder import PAGE
from trifold.study.pieces import epochs, machine, plus_minus, runs, versions
from trifold.study.searched import Searched
from trifold.trials import Trained

SHOWN_CANDIDATES = 1_000
"""Rows of the table of candidates, the best first, where there are more."""

_NONE = Value("–", "")


def answered(searched: Searched) -> str:
    """The answer of a search in a sentence or two."""
    best, reached = ranked(searched.found), searched.outcome
    if not best:
        return "No candidate has been evaluated yet."
    if searched.contest is None or reached is None or FOUND not in reached.chosen:
        one = searched.found[best[0]]
        costs = ", ".join(f"{one.facts['costs'][name]:,.0f} {_words(name)}" for name in searched.measures)
        return (
            f"The best of {len(searched.found)} candidates so far is number {best[0][0]}: "
            f"{one.facts['accuracy']:.2f} % on minival by the estimate, {costs}."
        )
    own = reached.measured[reached.chosen[FOUND]]
    others = {
        BASELINE: "the baseline of the same cost",
        RANDOM: "the best of random search with the same compute",
    }
    parts = []
    for lead in reached.differences:
        joint = {"the same network": "as", "not told apart": "from", "not judged": "against"}.get(lead.verdict, "than")
        half = f" ± {lead.half:.2f}" if math.isfinite(lead.half) else ""
        told = "" if lead.same else f" ({lead.points:+.2f}{half} points)"
        parts.append(f"{lead.verdict} {joint} {others[lead.other]}{told}")
    tail = f"; {' and '.join(parts)}" if parts else ""
    told = f"The network found has {plus_minus(*own.test)} % on test, trained in full{tail}."
    return f"{told} {_proxy(reached.rank)}".strip()


def _proxy(rank: Rank | None) -> str:
    if rank is None:
        return ""
    told = f"Kendall's tau {rank.tau:.2f}, {rank.low:.2f} to {rank.high:.2f}, over {rank.networks} networks"
    return f"The search's estimate {rank.verdict} full trainings ({told})."


def _words(name: str) -> str:
    return name.replace("_", "-") if name == "multiply_adds" else name


def architecture_notes(searched: Searched) -> tuple[str, ...]:
    """What the reader of a search must know."""
    found, notes = searched.found, []
    if len(found) < searched.candidates:
        notes.append(f"Not finished: {searched.candidates - len(found)} of {searched.candidates} candidates to come.")
    reached = searched.outcome
    if reached is not None:
        if reached.to_come:
            notes.append(f"Not finished: {reached.to_come} trainings in full are still to come.")
        seeds = {one.seeds for one in searched.contest.entrants if FOUND in one.roles} if searched.contest else set()
        if seeds == {1}:
            notes.append("One seed: a smoke test, and no difference can be told from chance.")
        if reached.rank is not None and reached.rank.low <= 0:
            notes.append(
                "The estimate is not shown to rank networks as full trainings do: what it chose may be no better than "
                "what it passed over. Longer short trainings, or a larger sample, would tell."
            )
    if searched.beside:
        notes.append(
            f"Random search had {len(searched.beside)} candidates, and the search {len(found)}, for as much training: "
            f"{spent(searched.beside):,.0f} and {spent(found):,.0f} multiply-adds of one image, summed over candidates."
        )
    failed = [(number, one.failed) for (number, _), one in found.items() if one.failed]
    if failed:
        named = "; ".join(f"{number}: {why}" for number, why in failed[:5])
        notes.append(f"{len(failed)} candidates failed and were left out ({named}{'; …' if len(failed) > 5 else ''}).")
    same = sum("same" in one.facts for one in found.values())
    if same:
        notes.append(f"{same} proposals were networks that had been evaluated before, and cost nothing.")
    notes.append("Estimates and choices are minival's; test is looked at by full trainings alone and only reported.")
    return tuple(notes)


def architecture_page(searched: Searched, about: Mapping[str, Any]) -> StudyPage:
    """What is finished of a search, as a page. about: `data` and `command`."""
    search, reached = searched.search, searched.outcome
    blocks: list[Block] = []
    if ranked(searched.found):
        blocks += [front_plot(searched), growth(searched)]
    if searched.contest is not None and reached is not None and reached.measured:
        blocks += [contested(searched, searched.contest, reached), differences(reached)]
        agreement = _agreement(searched.contest, searched.full)
        blocks += [agreement] if agreement.series[0].points else []
    if searched.chosen is not None:
        blocks.append(stages(searched, searched.chosen))
    blocks += [front_table(searched), candidates(searched)]
    if searched.contest is not None and searched.full:
        blocks.append(runs(searched.full, searched.contest.names))
    counted = size(search.space)
    weighed = ", ".join(f"{_words(one.measure)} of {one.value:,.6g}" for one in search.targets)
    limits = ", ".join(f"{_words(one.measure)} at most {one.most:,.6g}" for one in search.limits)
    everything = {("found", *job): one for job, one in searched.found.items()}
    everything |= {("beside", *job): one for job, one in searched.beside.items()}
    everything |= {("full", *job): one for job, one in searched.full.items()}
    computed: dict[tuple[int, int], Trained] = {(n, 0): one for n, one in enumerate(everything.values())}
    return StudyPage(
        title=f"An architecture for {about['data']}, searched around {search.space.baseline.name}",
        question=(
            f"Which of {counted.networks:,} networks around {search.space.baseline.name} is best on {about['data']}"
            + (f", accuracy weighed against {weighed}" if weighed else "")
            + (f"; {limits}" if limits else "")
            + f"? Sampler: {search.sampler}; candidates are judged by "
            + ("a short training each, " if search.evaluator == "training" else "their part of a shared network, ")
            + f"{epochs(search.common)}."
        ),
        answer=answered(searched),
        notes=architecture_notes(searched),
        blocks=tuple(blocks),
        command=about["command"],
        machine=machine(computed),
        versions=versions(computed),
    )


def _link(one: Trained) -> str:
    return f"{one.facts['run']}/{PAGE}" if "run" in one.facts else ""


def front_plot(searched: Searched) -> Plot:
    """Every candidate, those of random search, and the front."""
    measure = searched.measures[0]

    def points(found: Found, only: set[tuple[int, int]] | None = None) -> tuple[Point, ...]:
        return tuple(
            Point(one.facts["costs"][measure], one.facts["accuracy"], f"candidate {job[0]}", link=_link(one))
            for job, one in found.items()
            if not one.failed and "same" not in one.facts and (only is None or job in only)
        )

    series = [Series("candidates", points(searched.found), joined=False)]
    if searched.beside:
        series.append(Series("random search", points(searched.beside), joined=False))
    series.append(Series("front", points(searched.found, set(front(searched.found, [measure])))))
    return Plot(
        title="Accuracy against cost",
        x_label=_words(measure),
        y_label="accuracy on minival by the estimate, %",
        series=tuple(series),
        caption="The front joins the candidates that none beats at their cost or less.",
        log_x=True,
    )


def growth(searched: Searched) -> Plot:
    """The best reward so far, over the candidates."""

    def so_far(found: Found) -> tuple[Point, ...]:
        points, best = [], -math.inf
        for place, one in enumerate(found.values(), start=1):
            best = best if one.failed else max(best, one.score)
            if math.isfinite(best):
                points.append(Point(float(place), best, f"after {place} candidates"))
        return tuple(points)

    series = [Series(searched.search.sampler, so_far(searched.found))]
    if searched.beside:
        series.append(Series("random search", so_far(searched.beside), dashed=True))
    return Plot("The best so far", "candidates", "reward", tuple(series))


def _agreement(contest: Contest, full: Found) -> Plot:
    points = tuple(
        Point(entrant.estimate, full[number, 0].score, name)
        for number, (entrant, name) in enumerate(zip(contest.entrants, contest.names, strict=True))
        if entrant.estimate is not None and (number, 0) in full
    )
    return Plot(
        title="What the estimate is worth",
        x_label="accuracy on minival by the estimate, %",
        y_label="trained in full, %",
        series=(Series("networks", points, joined=False),),
        caption="First seeds; a good estimate rises from left to right.",
    )


def contested(searched: Searched, contest: Contest, reached: Outcome) -> Table:
    """The networks that were trained in full."""
    columns = (
        "network", "seeds", "minival, %", "test, %", "reward", "estimate, %", "layers", "pixels", "parameters",
        "multiply-adds", "also",
    )  # fmt: skip
    rows, marked = list[tuple[Value, ...]](), list[int]()
    for number, (entrant, name) in enumerate(zip(contest.entrants, contest.names, strict=True)):
        got = reached.measured.get(number)
        if got is None:
            continue
        if number in (reached.chosen.get(FOUND), reached.chosen.get(RANDOM)):
            marked.append(len(rows))
        network = entrant.architecture
        counted = stage_rows(
            network, num_classes=searched.search.common.classes, in_channels=searched.search.common.channels
        )
        parameters, multiply_adds = (sum(getattr(row, n) for row in counted) for n in ("parameters", "multiply_adds"))
        rows.append(
            (
                Value(name, name),
                Value(str(got.seeds), got.seeds),
                Value(plus_minus(*got.minival), got.minival[0]),
                Value(plus_minus(*got.test), got.test[0]),
                _NONE
                if math.isnan(reached.worth[number])
                else Value(f"{reached.worth[number]:.2f}", reached.worth[number]),
                _NONE if entrant.estimate is None else Value(f"{entrant.estimate:.2f}", entrant.estimate),
                Value(str(network.num_blocks), network.num_blocks),
                Value(str(network.resolution), network.resolution),
                Value(f"{parameters:,}", parameters),
                Value(f"{multiply_adds:,}", multiply_adds),
                Value(", ".join(entrant.roles[1:]), ", ".join(entrant.roles[1:])),
            )
        )
    note = "Marked: what the search, and random search, gave in the end: the finalist of the best reward on minival."
    return Table("Trained in full", columns, tuple(rows), note, tuple(marked))


def differences(reached: Outcome) -> Table:
    """The found network's lead on test."""
    rows = tuple(
        (
            Value(f"found less {one.other}", one.other),
            Value(f"{one.points:+.2f}", one.points),
            Value("0" if one.same else f"± {one.half:.2f}" if math.isfinite(one.half) else "–", one.half),
            Value(one.verdict, one.verdict),
        )
        for one in reached.differences
    )
    note = "The intervals hold together (Bonferroni), about these test images; the noise of a seed is pooled."
    return Table("Differences on test, in points", ("difference", "points", "95 % interval", "verdict"), rows, note)


def stages(searched: Searched, chosen: Architecture) -> Table:
    """A network as the paper's Table 1 has it."""
    classes, channels = searched.search.common.classes, searched.search.common.channels
    rows = tuple(
        (
            Value(str(row.stage), row.stage),
            Value(row.operator, row.operator),
            Value(str(row.resolution), row.resolution),
            Value(str(row.channels), row.channels),
            Value(str(row.layers), row.layers),
            Value(f"{row.multiply_adds:,}", row.multiply_adds),
        )
        for row in stage_rows(chosen, num_classes=classes, in_channels=channels)
    )
    columns = ("stage", "operator", "input, pixels", "channels", "layers", "multiply-adds")
    return Table("The network found (as Table 1)", columns, rows)


def _costs(one: Trained, names: tuple[str, ...]) -> tuple[Value, ...]:
    return tuple(Value(f"{one.facts['costs'][name]:,.6g}", one.facts["costs"][name]) for name in names)


def front_table(searched: Searched) -> Table:
    """The candidates that no other one beats in accuracy without costing more."""
    names = tuple(dict.fromkeys((*searched.measures, "multiply_adds", "parameters")))
    rows = tuple(
        (
            Value(f"candidate {job[0]}", job[0], _link(searched.found[job])),
            Value(f"{searched.found[job].facts['accuracy']:.2f}", searched.found[job].facts["accuracy"]),
            Value(f"{searched.found[job].score:.2f}", searched.found[job].score),
            *_costs(searched.found[job], names),
        )
        for job in sorted(front(searched.found, searched.measures), key=lambda job: -searched.found[job].score)
    )
    columns = ("front", "estimate, %", "reward", *map(_words, names))
    return Table(f"The front in accuracy and {', '.join(map(_words, searched.measures))}", columns, rows)


def candidates(searched: Searched) -> Table:
    """Every candidate, the best first."""
    names = tuple(dict.fromkeys((*searched.measures, "multiply_adds", "parameters")))
    order = sorted(searched.found.items(), key=lambda one: -one[1].score if not one[1].failed else math.inf)
    rows = []
    for (number, _), one in order[:SHOWN_CANDIDATES]:
        ended = one.failed or (f"the same network as {one.facts['same']}" if "same" in one.facts else "evaluated")
        judged = (_NONE, _NONE) if one.failed else (
            Value(f"{one.facts['accuracy']:.2f}", one.facts["accuracy"]), Value(f"{one.score:.2f}", one.score)
        )  # fmt: skip
        seconds = float(one.facts.get("seconds", 0))
        rows.append(
            (
                Value(str(number), number, _link(one)),
                *judged,
                *_costs(one, names),
                Value(duration(seconds), seconds),
                Value(ended, ended),
            )
        )
    columns = ("candidate", "estimate, %", "reward", *map(_words, names), "time", "state")
    note = f"The best {SHOWN_CANDIDATES:,} of {len(order):,}." if len(order) > SHOWN_CANDIDATES else ""
    return Table("Candidates", columns, tuple(rows), note)
