"""The page of a transfer, and its answer in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trifold.cost import Cost, cost
from trifold.report.study_contents import Block, Plot, Series, StudyPage, Table, Value
from trifold.study.pieces import Found, courses, epochs, machine, plus_minus, point, runs, versions
from trifold.study.transfer import Carried, Gain, Transfer, carried

_NONE = Value("–", "")


def brought(transfer: Transfer, reached: Carried) -> str:
    """The answer of a transfer."""
    best = max(
        (number for number in reached.measured if number < len(transfer.sources)),
        key=lambda number: reached.measured[number].minival[0],
        default=None,
    )
    if best is None:
        return f"{reached.trained} of {reached.full} trainings are finished: too few for an answer."
    own = reached.measured[best].test
    told = f"Pretrained on {transfer.origin}, {transfer.sources[best].name} has {plus_minus(*own)} % on test"
    return f"{told}{_against(reached)}."


def _against(reached: Carried) -> str:
    parts = [f"{gain.name} is {gain.verdict} ({gain.points:+.1f} points)" for gain in reached.gains]
    return f"; against random weights {', '.join(parts)}" if parts else ""


def transfer_page(transfer: Transfer, about: Mapping[str, Any], found: Found) -> StudyPage:
    """What is finished of a transfer, as a page. about: `data` and `command`."""
    reached = carried(transfer, found)
    blocks: list[Block] = []
    if reached.measured:
        blocks += [accuracy(transfer, reached), compared(transfer, reached)]
    if reached.gains:
        blocks.append(gains(reached))
    blocks += [courses(found, transfer.names), runs(found, transfer.names)]
    named = ", ".join(source.name for source in transfer.sources)
    return StudyPage(
        title=f"From {transfer.origin} to {about['data']}",
        question=(
            f"What do {named}, trained on {transfer.origin}, bring to {about['data']}? {transfer.seeds} seeds, "
            f"{epochs(transfer.common)}"
            + ("." if transfer.scratch is None else f"; from random weights {_scratch(transfer)}.")
        ),
        answer=brought(transfer, reached),
        notes=transfer_notes(transfer, reached),
        blocks=tuple(blocks),
        command=about["command"],
        machine=machine(found),
        versions=versions(found),
    )


def _scratch(transfer: Transfer) -> str:
    assert transfer.scratch is not None
    return f"for {transfer.scratch.epochs} epochs by the recipe {transfer.scratch.name}"


def transfer_notes(transfer: Transfer, reached: Carried) -> tuple[str, ...]:
    """What the reader of a transfer must know."""
    notes = []
    if transfer.seeds == 1:
        notes.append("One seed: a smoke test, and no difference can be told from chance.")
    if reached.trained < reached.full:
        notes.append(f"Not finished: {reached.full - reached.trained} of {reached.full} trainings are still to come.")
    if transfer.seen:
        notes.append(
            f"{transfer.seen:,} of these images trained the networks before, or chose their weights: accuracy on them "
            "is no evidence of transfer."
        )
    return tuple(notes)


def _costs(transfer: Transfer) -> list[Cost]:
    """Of every source's network, with these data's classes."""
    common = transfer.common
    return [
        cost(source.architecture, num_classes=common.classes, in_channels=common.channels)
        for source in transfer.sources
    ]


def accuracy(transfer: Transfer, reached: Carried) -> Plot:
    """Every network's accuracy over its parameters."""
    count, costs = len(transfer.sources), _costs(transfer)
    ways = ("pretrained",) if transfer.scratch is None else ("pretrained", "random weights")
    series = tuple(
        Series(
            way,
            tuple(
                point(
                    float(costs[number].parameters),
                    *reached.measured[place * count + number].test,
                    transfer.names[place * count + number],
                )
                for number in range(count)
                if place * count + number in reached.measured
            ),
        )
        for place, way in enumerate(ways)
    )
    return Plot(
        title="Accuracy over parameters (as Figure 6)",
        x_label="parameters",
        y_label="accuracy on test, %",
        series=series,
        caption="Means over seeds with Student's 95 % intervals.",
        log_x=True,
    )


def compared(transfer: Transfer, reached: Carried) -> Table:
    """As the paper's Table 5."""
    columns = (
        "network", "begins with", "seeds", "minival, %", "test, %", "where trained, %", "pixels", "parameters",
        "multiply-adds",
    )  # fmt: skip
    count, costs, rows = len(transfer.sources), _costs(transfer), []
    for number, got in reached.measured.items():
        source, spent = transfer.sources[number % count], costs[number % count]
        before = number < count
        rows.append(
            (
                Value(source.name, source.name),
                Value("its weights" if before else "random weights", "its" if before else "random"),
                Value(str(got.seeds), got.seeds),
                Value(plus_minus(*got.minival), got.minival[0]),
                Value(plus_minus(*got.test), got.test[0]),
                Value(f"{source.accuracy:.2f}", source.accuracy) if before else _NONE,
                Value(str(source.architecture.resolution), source.architecture.resolution),
                Value(f"{spent.parameters:,}", spent.parameters),
                Value(f"{spent.multiply_adds:,}", spent.multiply_adds),
            )
        )
    return Table("Networks (as Table 5)", columns, tuple(rows))


def gains(reached: Carried) -> Table:
    """What the weights bring, with intervals."""

    def interval(gain: Gain) -> str:
        return f"± {gain.half:.2f}" if math.isfinite(gain.half) else "–"

    rows = tuple(
        (
            Value(gain.name, gain.name),
            Value(f"{gain.points:+.2f}", gain.points),
            Value(interval(gain), gain.half),
            Value(gain.verdict, gain.verdict),
        )
        for gain in reached.gains
    )
    return Table(
        "Pretrained less random weights, in points of test",
        ("network", "points", "95 % interval", "verdict"),
        rows,
        "The intervals hold together (Bonferroni); the noise of a seed is pooled over all networks.",
    )
