"""The page of a search for alpha, beta, gamma, and its answer in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trifold.report.study_contents import Block, Dots, Plot, Point, Row, Series, StudyPage, Table, Value
from trifold.study.coefficients import Answer, Search, answer
from trifold.study.directions import EQUAL, named
from trifold.study.pieces import Found, courses, epochs, machine, plus_minus, point, runs, sizes, versions


def sentence(search: Search, reached: Answer) -> str:
    """The answer of a search."""
    choice = reached.choice
    if choice is None:
        return f"{reached.trained} trainings are finished: too few for an answer."
    first = search.directions.candidates[choice.best].directions[0]
    tied = sum(one.tied for one in choice.standings) - 1
    best = choice.standings[reached.candidates.index(choice.best)]
    unjudged = len([number for number in reached.early.stopped if number not in reached.candidates])
    return (
        f"alpha {first.alpha:g}, beta {first.beta:g}, gamma {first.gamma:g}: "
        f"{plus_minus(best.fitted, best.fitted_interval)} % on minival by the fit; {tied} of the "
        f"{len(reached.candidates) - 1} others {'is' if tied == 1 else 'are'} tied with it"
        + (f", and {unjudged} were stopped early." if unjudged else ".")
    )


def search_notes(search: Search, reached: Answer) -> tuple[str, ...]:
    """What the reader of a search's answer must know."""
    choice, notes = reached.choice, []
    if search.seeds == 1:
        notes.append("One seed: a smoke test.")
    if reached.to_come:
        notes.append(f"Not finished: {reached.to_come} trainings are still to come.")
    if choice is not None:
        plain = search.directions.candidates[choice.argmax].directions[0]
        same = choice.argmax == choice.best
        notes.append(
            f"The best plain mean is {'the same' if same else named(plain)}; plain means of those that went on to more "
            "seeds are a little high, as their first seed is what chose them. A seed alone moves a score by "
            f"{choice.noise:.2f} points (standard deviation)."
        )
    if reached.needed is not None and reached.needed > reached.images:
        notes.append(
            f"To tell the best from the next best by the fit would take {reached.needed:,} images; minival has "
            f"{reached.images:,}, and what more seeds on it can tell holds for these images alone."
        )
    notes.append(_early_note(search, reached))
    return tuple(notes)


def _early_note(search: Search, reached: Answer) -> str:
    early = reached.early
    if not early.stopped:
        return f"No training {'was' if early.applied else 'would have been'} stopped early."
    names = ", ".join(
        f"{named(search.directions.candidates[number].directions[0])} after {epochs}"
        for number, epochs in early.stopped.items()
    )
    saved = "saves" if early.applied and not early.known else "would have saved"
    done = "were" if early.applied else "would have been"
    note = f"Stopping weak first trainings early {saved} {early.saved:.0%} of the epochs: {names} {done} stopped"
    note += ", and were finished after all." if early.applied and early.known else "."
    if not early.known:
        return f"{note} What that changes is known once they are finished (--finish-stopped)."
    if reached.choice is None or early.without is None:
        return f"{note} What the answer would be with them stopped takes trainings that are not there."
    if early.without == reached.choice.best:
        return f"{note} With them stopped the answer is the same."
    other = named(search.directions.candidates[early.without].directions[0])
    return f"{note} With them stopped the answer is {other}."


def search_page(search: Search, about: Mapping[str, Any], found: Found) -> StudyPage:
    """What is finished of a search, as a page. about: `data` and `command`."""
    reached = answer(search, found)
    baseline, plan = search.baseline.name, search.directions
    blocks: list[Block] = []
    if reached.choice is not None:
        blocks += [dots(search, reached), _map(search, reached), standings(search, reached)]
    blocks += [
        _candidates(search),
        courses(found, search.names),
        runs(found, search.names),
    ]
    question = (
        f"In which direction (alpha, beta, gamma) should {baseline} grow to {plan.target:,} multiply-adds for "
        f"{about['data']}? {len(plan.candidates)} different networks within {EQUAL:.0%} of that cost, "
        f"{epochs(search.common)}; minival chooses, test is only reported."
    )
    return StudyPage(
        title=f"alpha, beta, gamma for {baseline} on {about['data']}",
        question=question,
        answer=sentence(search, reached),
        notes=search_notes(search, reached),
        blocks=tuple(blocks),
        command=about["command"],
        machine=machine(found),
        versions=versions(found),
    )


def dots(search: Search, reached: Answer) -> Dots:
    """Each candidate's mean and fitted score. The answer must have a choice."""
    assert reached.choice is not None
    rows = []
    ranked = sorted(zip(reached.candidates, reached.choice.standings, strict=True), key=lambda one: -one[1].fitted)
    for number, one in ranked:
        name = named(search.directions.candidates[number].directions[0])
        points = (
            point(0, one.mean, one.interval, f"{name}: mean of {one.seeds}"),
            point(0, one.fitted, one.fitted_interval, f"{name}: by the fit"),
        )
        rows.append(Row(name, points, marked=number == reached.choice.best))
    return Dots(
        title="Accuracy on minival, the best first",
        x_label="%",
        legend=("mean of the seeds", "smooth fit"),
        rows=tuple(rows),
        caption="With 95 % intervals; a mean of one seed has none.",
    )


def _map(search: Search, reached: Answer) -> Plot:
    assert reached.choice is not None
    fitted = [one.fitted for one in reached.choice.standings]
    low, high = min(fitted), max(fitted)
    points = []
    for number, value in zip(reached.candidates, fitted, strict=True):
        depth, _, resolution = search.points[number]
        name = named(search.directions.candidates[number].directions[0])
        shade = (value - low) / (high - low) if high > low else 0.5
        points.append(Point(depth, resolution, f"{name}: {value:.2f} % by the fit", shade=shade))
    return Plot(
        title="Where the good directions lie",
        x_label="depth's share of the growth",
        y_label="resolution's share",
        series=(Series("candidates", tuple(points), joined=False),),
        caption="Shares of the growth of multiply-adds as they are after rounding; width has the rest.",
        shade_low=f"{low:.1f} %",
        shade_high=f"{high:.1f} %",
    )


def standings(search: Search, reached: Answer) -> Table:
    """What is known of each candidate. The answer must have a choice."""
    assert reached.choice is not None
    rows: list[tuple[Value, ...]] = []
    for number, one in zip(reached.candidates, reached.choice.standings, strict=True):
        test = reached.test[number]
        first = search.directions.candidates[number].directions[0]
        standing = "best" if number == reached.choice.best else "tied" if one.tied else "behind"
        rows.append(
            (
                Value(named(first), number),
                Value(str(one.seeds), one.seeds),
                Value(plus_minus(one.mean, one.interval), one.mean),
                Value(plus_minus(one.fitted, one.fitted_interval), one.fitted),
                Value(f"{one.chance:.0%}", one.chance),
                Value(standing, standing),
                Value(plus_minus(*test), test[0]),
            )
        )
    columns = ("direction", "seeds", "minival, %", "fit, %", "chance to be best", "standing", "test, %")
    return Table("Answers", columns, tuple(rows), marked=(reached.candidates.index(reached.choice.best),))


def _candidates(search: Search) -> Table:
    columns = (
        "direction", "the same network", "depth", "width", "resolution", "layers", "pixels", "parameters",
        "multiply-adds", "off", "width adjusted",
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for number, (one, own) in enumerate(zip(search.directions.candidates, search.points, strict=True)):
        others = ", ".join(map(named, one.directions[1:]))
        rows.append(
            (
                Value(named(one.directions[0]), number),
                Value(others or "–", others),
                *(Value(f"{share:.0%}", share) for share in own),
                *sizes(one),
            )
        )
    missed = ", ".join(f"{named(one.direction)} {one.nearest:+.1%}" for one in search.directions.unreachable)
    note = "Depth, width and resolution: shares of the growth after rounding."
    return Table(
        f"Candidates: within {EQUAL:.0%} of {search.directions.target:,} multiply-adds",
        columns,
        tuple(rows),
        note + (f" No network of that cost, with how far off the nearest is: {missed}." if missed else ""),
    )
