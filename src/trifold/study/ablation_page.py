"""The page of an ablation, and its answer in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trifold.report.markup import duration
from trifold.report.study_contents import Block, Plot, Series, StudyPage, Table, Value
from trifold.study.ablation import Ablation, Findings, findings, reference
from trifold.study.comparison import SINGLE
from trifold.study.comparison import Point as Compared
from trifold.study.directions import EQUAL
from trifold.study.pieces import Found, courses, epochs, machine, plus_minus, point, runs, sizes, versions

_NONE = Value("–", "")


def said(reached: Findings) -> str:
    """The answer of an ablation: what is known at its largest factor."""
    told = by_factor(reached)
    if not told:
        return f"{reached.trained} of {reached.full} trainings are finished: too few for an answer."
    return told[max(told)]


def by_factor(reached: Findings) -> dict[float, str]:
    """A sentence on the differences at each factor."""
    joints = {
        "better": "than",
        "worse": "than",
        "not told apart": "from",
        "the same network": "as",
        "not judged": "without more seeds against",
    }
    told = {}
    for factor in sorted({one.factor for one in reached.differences}):
        here = [one for one in reached.differences if one.factor == factor]
        parts = [
            f"{verdict} {joint} " + ", ".join(f"{one.other} ({one.points:+.1f})" for one in alike)
            for verdict, joint in joints.items()
            if (alike := [one for one in here if one.verdict == verdict])
        ]
        told[factor] = (
            f"At {factor:g} times the multiply-adds, {here[0].kind} is {'; '.join(parts)} (points of accuracy on test)."
        )
    return told


def ablation_page(ablation: Ablation, about: Mapping[str, Any], found: Found) -> StudyPage:
    """What is finished of an ablation, as a page. about: `data` and `command`."""
    reached = findings(ablation, found)
    comparison = ablation.comparison
    baseline = comparison.baseline.architecture.name
    names = ablation.names
    scaled = [one for one in comparison.points if one.sweep is None]
    swept = [one for one in comparison.points if one.sweep is not None]
    blocks: list[Block] = []

    if scaled and reached.measured:
        single = [one for one in scaled if one.kind in SINGLE]
        blocks.append(scaled_plot(ablation, reached))
        if single and len(single) < len(scaled):
            blocks.append(_accuracy("One dimension alone (as Figure 3)", _lines(ablation, reached, single)))
    if swept and reached.measured:
        blocks.append(
            _accuracy(
                "Width under four depths and resolutions (as Figure 4)",
                _lines(ablation, reached, swept, from_baseline=False),
            )
        )
    blocks += [compared(ablation, reached), differences(reached)]
    blocks += [courses(found, names), runs(found, names)]
    factors = ", ".join(f"{one:g}" for one in dict.fromkeys(point.factor for point in scaled))
    return StudyPage(
        title=f"Depth, width and resolution of {baseline} on {about['data']}",
        question=(
            f"What do depth, width and resolution bring {baseline} on {about['data']}, alone and together, at "
            f"{factors} times its multiply-adds? Costs are equal within {EQUAL:.0%}; {ablation.seeds} seeds, "
            f"{epochs(ablation.common)}."
        ),
        answer=said(reached),
        notes=ablation_notes(ablation, reached, found),
        blocks=tuple(blocks),
        command=about["command"],
        machine=machine(found),
        versions=versions(found),
    )


def scaled_plot(ablation: Ablation, reached: Findings) -> Plot:
    """Every kind over its cost, from the baseline on."""
    scaled = [one for one in ablation.comparison.points if one.sweep is None]
    return _accuracy("Scaled alone and together (as Figure 8)", _lines(ablation, reached, scaled))


def _lines(
    ablation: Ablation, reached: Findings, points: list[Compared], *, from_baseline: bool = True
) -> tuple[Series, ...]:
    """A series for each kind of these points."""
    names = ablation.names
    numbers = dict(zip(map(id, ablation.comparison.points), ablation.numbers, strict=True))
    series = []
    for kind in dict.fromkeys(one.kind for one in points):
        own = [(one.candidate, numbers[id(one)]) for one in points if one.kind == kind]
        if from_baseline:
            own = [(ablation.comparison.baseline, 0), *own]
        drawn = [
            point(
                float(candidate.cost.multiply_adds),
                *reached.measured[number].test,
                f"{kind}: {names[number]}, {reached.measured[number].seeds} seeds",
            )
            for candidate, number in own
            if number in reached.measured
        ]
        series.append(Series(kind, tuple(drawn)))
    return tuple(series)


def _accuracy(title: str, series: tuple[Series, ...]) -> Plot:
    return Plot(
        title=title,
        x_label="multiply-adds",
        y_label="accuracy on test, %",
        series=series,
        caption="Means over seeds with Student's 95 % intervals.",
        log_x=True,
    )


def ablation_notes(ablation: Ablation, reached: Findings, found: Found) -> tuple[str, ...]:
    """What the reader of an ablation must know."""
    notes = []
    if ablation.seeds == 1:
        notes.append("One seed: a smoke test, and no difference can be told from chance.")
    if reached.trained < reached.full:
        notes.append(f"Not finished: {reached.full - reached.trained} of {reached.full} trainings are still to come.")
    if reached.noise is not None:
        notes.append(f"A seed alone moves the accuracy on test by {reached.noise:.2f} points (standard deviation).")
    told = by_factor(reached)
    notes += [told[factor] for factor in sorted(told)[:-1]]
    scaled = [point for point in ablation.comparison.points if point.sweep is None]
    without = sorted({point.factor for point in scaled} - {p.factor for p in scaled if p.kind == reference(ablation)})
    if without:
        named = ", ".join(f"{factor:g}" for factor in without)
        notes.append(
            f"{reference(ablation)} has no network at {named} times the cost, so there is no comparison there."
        )
    if images := {one.facts["images"]["test"] for one in found.values()}:
        notes.append(
            f"Differences and their intervals are about these {max(images):,} test images: they hold what other seeds "
            "would change, not what other images would."
        )
    missed = [f"{kind} at {factor:g} ({off:+.1%})" for kind, factor, off in ablation.comparison.unreachable]
    if missed:
        notes.append(f"No network of that cost, with how far off the nearest is: {', '.join(missed)}.")
    return tuple(notes)


def compared(ablation: Ablation, reached: Findings) -> Table:
    """As the paper's Table 3."""
    comparison = ablation.comparison
    columns = (
        "scaled", "times the cost", "seeds", "minival, %", "test, %", "depth x", "width x", "resolution x", "layers",
        "pixels", "parameters", "multiply-adds", "off", "width adjusted", "time",
    )  # fmt: skip
    rows = []
    everything = [("baseline", 1.0, comparison.baseline, 0)]
    everything += [
        (one.kind, one.factor, one.candidate, number)
        for one, number in zip(comparison.points, ablation.numbers, strict=True)
    ]
    for kind, factor, candidate, number in everything:
        multipliers = candidate.multipliers
        factors = (multipliers.depth, multipliers.width * candidate.width_adjustment, multipliers.resolution)
        found = reached.measured.get(number)
        results = (
            (Value("0", 0), _NONE, _NONE)
            if found is None
            else (
                Value(str(found.seeds), found.seeds),
                Value(plus_minus(*found.minival), found.minival[0]),
                Value(plus_minus(*found.test), found.test[0]),
            )
        )
        rows.append(
            (
                Value(kind, kind),
                Value(f"{factor:.3g}", factor),
                *results,
                *(Value(f"{one:.3g}", one) for one in factors),
                *sizes(candidate),
                _NONE if found is None else Value(duration(found.seconds), found.seconds),
            )
        )
    return Table("Networks (as Table 3)", columns, tuple(rows))


def differences(reached: Findings) -> Table:
    """Every difference with its interval."""
    rows = tuple(
        (
            Value(f"{one.kind} less {one.other}", one.other),
            Value(f"{one.factor:g}", one.factor),
            Value(f"{one.points:+.2f}", one.points),
            Value("0" if one.same else f"± {one.half:.2f}" if math.isfinite(one.half) else "–", one.half),
            Value(one.verdict, one.verdict),
        )
        for one in reached.differences
    )
    return Table(
        "Differences on test, in points",
        ("difference", "times the cost", "points", "95 % interval", "verdict"),
        rows,
        "The intervals hold together (Bonferroni); the noise of a seed is pooled over all networks.",
    )
