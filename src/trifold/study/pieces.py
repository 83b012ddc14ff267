"""The pieces that the pages of studies share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from trifold.claimed import Common
from trifold.report.contents import Fact
from trifold.report.markup import duration
from trifold.report.study_contents import Plot, Point, Series, Table, Value
from trifold.study.directions import Candidate
from trifold.study.folder import PAGE
from trifold.trials import Job, Trained

Found = Mapping[Job, Trained]


def plus_minus(mean: float, half: float) -> str:
    """A mean with half its interval, where it has one."""
    return f"{mean:.2f} ± {half:.2f}" if math.isfinite(half) else f"{mean:.2f}"


def point(x: float, y: float, half: float, label: str, *, shade: float | None = None) -> Point:
    """An accuracy in percent with half its interval, infinite where there is none."""
    low, high = (max(0.0, y - half), min(100.0, y + half)) if math.isfinite(half) else (None, None)
    return Point(x, y, label, low, high, shade)


def sizes(one: Candidate) -> tuple[Value, ...]:
    """A network's layers, pixels, parameters, multiply-adds, how far those are off, and how width was adjusted."""
    adjusted = one.width_adjustment
    return (
        Value(f"{one.architecture.num_blocks:,}", one.architecture.num_blocks),
        Value(f"{one.architecture.resolution:,}", one.architecture.resolution),
        Value(f"{one.cost.parameters:,}", one.cost.parameters),
        Value(f"{one.cost.multiply_adds:,}", one.cost.multiply_adds),
        Value(f"{one.off:+.1%}", one.off),
        Value("–" if adjusted == 1 else f"x {adjusted:.3f}", adjusted),
    )


def courses(found: Found, names: Sequence[str]) -> Plot:
    """Accuracy on minival over the epochs, a series a training; names: of the networks."""
    series = tuple(
        Series(
            f"{names[number]}, seed {seed}",
            tuple(
                Point(float(epoch), score, f"{names[number]}, seed {seed}", link=_address(one))
                for epoch, score in one.curve.items()
            ),
        )
        for (number, seed), one in found.items()
        if one.curve
    )
    return Plot("Courses of the trainings", "epoch", "accuracy on minival, %", series)


def _address(one: Trained) -> str:
    """Of a run's page; one that was stopped has none."""
    return f"{one.facts['run']}/{PAGE}" if one.whole else ""


def runs(found: Found, names: Sequence[str]) -> Table:
    """Every training, linked to its own page."""
    rows = []
    for (number, seed), one in found.items():
        run = PurePosixPath(one.facts["run"]).name
        test, seconds = one.facts.get("test"), float(one.facts["seconds"])
        ended = "to its end" if one.whole else f"stopped after {one.stopped} epochs"
        rows.append(
            (
                Value(run, run, _address(one)),
                Value(names[number], names[number]),
                Value(str(seed), seed),
                Value(f"{one.score:.2f}", one.score),
                Value("–", "") if test is None else Value(f"{test:.2f}", test),
                Value(duration(seconds), seconds),
                Value(ended, one.stopped),
            )
        )
    columns = ("run", "network", "seed", "minival, %", "test, %", "time", "trained")
    note = "Each name opens the run's own page, where the run folders lie beside this one."
    return Table("Runs", columns, tuple(rows), note)


def epochs(common: Common) -> str:
    """How all are trained."""
    recipe = common.recipe
    return f"trained for {recipe.epochs} epochs each by the recipe {recipe.name}, all on the same split"


def machine(found: Found) -> tuple[Fact, ...]:
    """What computed; where workers differed, all that did."""
    seen: dict[str, dict[str, None]] = {}
    for one in found.values():
        for name, value in one.facts.get("computed", {}).items():
            if name not in ("held", "epochs", "lr"):
                seen.setdefault(name, {})[str(value)] = None
    spent = sum(float(one.facts["seconds"]) for one in found.values())
    facts = [Fact(name, ", ".join(values)) for name, values in seen.items()]
    return (Fact("time of all trainings", duration(spent)), *facts)


def versions(found: Found) -> tuple[Fact, ...]:
    """Of the packages that computed; where workers differed, all."""
    seen: dict[str, dict[str, None]] = {}
    for one in found.values():
        for name, value in one.facts.get("versions", {}).items():
            seen.setdefault(name, {})[str(value)] = None
    return tuple(Fact(name, ", ".join(values)) for name, values in seen.items())
