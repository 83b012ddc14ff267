"""The command that prints a family and, where its networks were trained, what they say of the next sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from trifold.cli.options import (
    coefficients_of,
    counting_options,
    file_name,
    json_option,
    labelled,
    print_json,
    print_table,
    rounding_of,
    rule_options,
)
from trifold.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trifold.scaling import Member
    from trifold.study.family import BackTest, Curve, Network, Prediction, Runs, Trained
    from trifold.table import Cell

PICTURES = (".png", ".svg", ".pdf")
RUN_FOLDERS = ("runs", "studies")
COLUMNS = ("phi", "depth", "width", "resolution", "blocks", "parameters", "multiply_adds", "activations")


class _Told(NamedTuple):
    """What trained networks say. curve: None where they are too few. looked: which runs were found, in words."""

    data: str
    trained: Trained
    looked: str
    curve: Curve | None
    tested: BackTest | None


class _Row(NamedTuple):
    """A member, its trained network and what the curve says of it; None where there is none, or it is too far off."""

    member: Member
    network: Network | None
    predicted: Prediction | None


@click.command()
@click.argument("net")
@click.argument("data", required=False)
@click.option("--phi", "phis", default="0..7", show_default=True, help="Range a..b in steps of 1, or a list 0,0.5,1.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Where the cost curves go  [NET-family.png].")
@click.option(
    "--runs",
    "folders",
    multiple=True,
    metavar="FOLDER",
    help="Where runs on DATA are looked for, at any depth; may be given again  [runs and studies].",
)
@rule_options
@counting_options
@json_option
def family(
    net: str,
    data: str | None,
    phis: str,
    picture: str | None,
    folders: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Print the family that phi makes of NET, and draw its cost curves.

    With DATA, finished runs of the family's networks on it give a curve of accuracy over cost, tried on the largest of
    them, and a prediction for the other members.
    """
    from pathlib import Path

    from trifold.baselines import load
    from trifold.scaling import family as members_of

    architecture, own = load(net)
    rounding, coefficients, values = rounding_of(options, own), coefficients_of(options), _phis(phis)
    path = Path(picture or f"{file_name(architecture.name)}-family.png")
    if path.suffix not in PICTURES:
        raise InvalidInput(f"--picture must end in {' or '.join(PICTURES)}, got {str(path)!r}")
    counted = {"num_classes": options["classes"], "in_channels": options["in_channels"]}
    members = members_of(architecture, values, coefficients, rounding, **counted)
    told = None
    if data is not None:
        from trifold.study.family import Line, trained_family

        source, found = _runs_on(data, folders)
        line = Line(baseline=architecture, coefficients=coefficients, rounding=rounding, members=members)
        told = _told(data, found, trained_family(found.runs, source, line))
        if told.curve is not None:
            counted = _counts(data, told.trained)
            members = members_of(architecture, _with_trained(members, told.trained), coefficients, rounding, **counted)
    elif folders:
        raise InvalidInput("--runs needs DATA: without it no run is looked for")
    rows = _rows(members, told)
    _draw_costs(members, path, title=f"{architecture.name} scaled by phi")
    pictures = {"picture": str(path)}
    if told is not None and told.curve is not None:
        accuracy = path.with_name(f"{path.stem}-accuracy{path.suffix}")
        _draw_accuracy(rows, told.curve, accuracy, title=f"{architecture.name} scaled by phi, trained on {data}")
        pictures["accuracy_picture"] = str(accuracy)
    if as_json:
        print_json({"net": architecture.name, **pictures, **_json(rows, told)})
    else:
        _print(rows, told, title=f"{architecture.name}, alpha·beta²·gamma² = {coefficients.growth:.4g}")
        for name, place in pictures.items():
            click.echo(f"{'cost' if name == 'picture' else 'accuracy'} curves: {place}")


def _phis(text: str) -> list[float]:
    """The values that --phi names: a..b in steps of 1, or a comma-separated list."""
    try:
        if ".." in text:
            first, last = map(float, text.split(".."))
            values = [first + i for i in range(int(min(last - first, 100)) + 1)]
        else:
            values = [float(part) for part in text.split(",")]
    except (ValueError, OverflowError):
        raise InvalidInput(f"--phi must be a range such as 0..7 or a list such as 0,0.5,1, got {text!r}") from None
    if not values:
        raise InvalidInput(f"--phi holds no value: {text!r}")
    return values


# ---- the trained networks ----


def _runs_on(data: str, folders: Sequence[str]) -> tuple[str, Runs]:
    """What records call these data, and all finished runs of the folders.

    Raises InvalidInput if a folder is none, or the data are neither there nor those of a run.
    """
    from pathlib import Path

    from trifold.data.sources import is_there, source_of
    from trifold.study.family import find_runs

    for folder in folders:
        if not Path(folder).is_dir():
            raise InvalidInput(f"--runs must be a folder, got {folder!r}")
    found = find_runs(folders or [folder for folder in RUN_FOLDERS if Path(folder).is_dir()])
    source = source_of(data)
    on = {run.source for run in found.runs}
    if source not in on and not is_there(source):
        known = f"; the {len(found.runs)} runs found are on {', '.join(sorted(on))}" if on else ""
        raise InvalidInput(f"DATA must be there, or what a run was trained on, got {data!r}{known}")
    return source, found


def _told(data: str, found: Runs, trained: Trained) -> _Told:
    """The curve and its back-test, where there are networks enough."""
    from trifold.study.family import LEAST, back_test, fit_curve

    points, runs = trained.points, len(found.runs)
    parts = [f"{sum(point.seeds for point in points)} taken"] if points else []
    parts += [f"{count} {why}" for why, count in trained.passed.items()]
    parts += [f"{sum(count for count, _ in trained.left_out)} of other settings"] if trained.left_out else []
    looked = f"{runs} run{'' if runs == 1 else 's'} found" + (f": {', '.join(parts)}" if parts else "")
    if found.unreadable:
        looked += f"; {found.unreadable} record{'' if found.unreadable == 1 else 's'} passed over, damaged or too old"
    enough = len({point.multiply_adds for point in points}) >= LEAST
    return _Told(
        data=data,
        trained=trained,
        looked=looked,
        curve=fit_curve(points) if enough else None,
        tested=back_test(points) if enough else None,
    )


def _counts(data: str, trained: Trained) -> dict[str, int]:
    """Classes and image channels of the runs. Raises InvalidInput if the command line asks for others."""
    context = click.get_current_context()
    counts = {"num_classes": trained.num_classes or 0, "in_channels": trained.in_channels or 0}
    for option, name in (("classes", "num_classes"), ("in_channels", "in_channels")):
        given = context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE
        if given and context.params[option] != counts[name]:
            flag = option.replace("_", "-")
            raise InvalidInput(
                f"--{flag} must be {counts[name]}, which the runs on {data} have, or left out; "
                f"got {context.params[option]}"
            )
    return counts


def _with_trained(members: Sequence[Member], trained: Trained) -> list[float]:
    """The members' phis with those of the trained networks that are none of them, rising."""
    held = {member.architecture for member in members}
    more = [network.phi for network in trained.networks if network.architecture not in held]
    return sorted([*(member.phi for member in members), *more])


def _rows(members: Sequence[Member], told: _Told | None) -> list[_Row]:
    if told is None or told.curve is None:
        return [_Row(member, None, None) for member in members]
    networks, curve = {network.architecture: network for network in told.trained.networks}, told.curve
    return [
        _Row(
            member,
            networks.get(member.architecture),
            curve.predict(member.cost.multiply_adds) if curve.reaches(member.cost.multiply_adds) else None,
        )
        for member in members
    ]


# ---- what is printed ----


def _cells(member: Member) -> tuple[Cell, ...]:
    """A row of COLUMNS."""
    by, spent = member.multipliers, member.cost
    return (member.phi, by.depth, by.width, member.architecture.resolution, member.architecture.num_blocks,
            spent.parameters, spent.multiply_adds, spent.activations)  # fmt: skip


def _test(network: Network) -> tuple[float, float | None]:
    """The mean accuracy on test in percent, and half of Student's 95 % interval over the runs; None for one run."""
    from trifold.study.choose import mean_and_interval

    errors = network.point.errors
    mean, half = mean_and_interval([100 * (1 - error) for error in errors])
    return mean, half if len(errors) > 1 else None


def _print(rows: Sequence[_Row], told: _Told | None, *, title: str) -> None:
    """The family's table, and in words what stands behind its predictions."""
    if told is None or told.curve is None:
        print_table(labelled(title, COLUMNS, [_cells(row.member) for row in rows]))
        if told is not None:
            click.echo(_no_curve(told))
        return
    cells = []
    for row in rows:
        mean, half = (None, None) if row.network is None else _test(row.network)
        test = None if mean is None else f"{mean:.2f}" if half is None else f"{mean:.2f} ± {half:.2f}"
        seeds = None if row.network is None else row.network.point.seeds
        fitted = row.predicted
        interval = None if fitted is None else f"{100 * fitted.low:.2f} to {100 * fitted.high:.2f}"
        shown = None if fitted is None else f"{100 * fitted.accuracy:.2f}"
        cells.append((*_cells(row.member), test, seeds, shown, interval))
    print_table(labelled(title, (*COLUMNS, "test_%", "seeds", "fitted_%", "interval"), cells))
    for line in _words(rows, told, told.curve):
        click.echo(line)


def _no_curve(told: _Told) -> str:
    from trifold.study.family import LEAST

    count = len(told.trained.networks)
    return (
        f"no curve: {count} trained network{'' if count == 1 else 's'} of this family on {told.data}, {LEAST} of "
        f"different cost are needed ({told.looked})"
    )


def _words(rows: Sequence[_Row], told: _Told, curve: Curve) -> list[str]:
    """What the curve is, what its intervals are for, the back-test, and which runs were not taken."""
    from trifold.report.figures import short_number
    from trifold.study.family import FURTHEST, LEAST_TO_TEST

    setting = told.trained.setting
    assert setting is not None
    seeds = "one run" if curve.seeds == 1 else f"the mean of {curve.seeds} runs"
    lines = [
        f"fitted: error on test as multiply-adds^{curve.slope:.3f} through {curve.networks} networks ({curve.runs} "
        f"runs, recipe {setting.recipe.name}, {setting.recipe.epochs} epochs); interval: 95 %, for {seeds}"
    ]
    if any(row.predicted is None for row in rows):
        lines.append(
            f"no prediction beyond {FURTHEST:g} times the trained networks' {short_number(curve.smallest)} to "
            f"{short_number(curve.largest)} multiply-adds: nothing trained backs it"
        )
    if clipped := sum(1 - point.accuracy < point.error for point in told.trained.points):
        lines.append(f"without an error on test, fitted as half an image: {clipped} of the networks")
    tested = told.tested
    if tested is None:
        lines.append(f"back-test: too few for a back-test, {LEAST_TO_TEST} networks are needed")
    else:
        lines.append(
            f"back-test: {short_number(tested.multiply_adds)} from the smaller ones: predicted "
            f"{100 * tested.predicted.accuracy:.2f} % ({100 * tested.predicted.low:.2f} to "
            f"{100 * tested.predicted.high:.2f}), observed {100 * tested.observed:.2f} %, {tested.off:+.2f} points, "
            f"{'within' if tested.holds else 'outside'} the interval"
        )
    lines.append(told.looked)
    if left := told.trained.left_out:
        shown = "; ".join(f"{count} with {what}" for count, what in left[:3])
        lines.append(f"runs left out: {shown}" + (f"; {len(left) - 3} more settings" if len(left) > 3 else ""))
    return lines


def _json(rows: Sequence[_Row], told: _Told | None) -> dict[str, Any]:
    """The members, and with DATA all that is said of its runs; percentages as in the table, null where it has none."""
    from dataclasses import asdict

    members = [dict(zip(COLUMNS, _cells(row.member), strict=True)) for row in rows]
    if told is None:
        return {"members": members}
    trained, tested = told.trained, told.tested
    for member, row in zip(members, rows, strict=True) if told.curve is not None else ():
        mean, half = (None, None) if row.network is None else _test(row.network)
        fitted = row.predicted
        more = {
            "test": mean,
            "test_interval": half,
            "seeds": None if row.network is None else row.network.point.seeds,
            "fitted": None if fitted is None else 100 * fitted.accuracy,
            "interval": None if fitted is None else [100 * fitted.low, 100 * fitted.high],
        }
        member.update(more)  # type: ignore[arg-type]  # a dict of a row's cells takes null and a list here
    return {
        "members": members,
        "data": told.data,
        "note": _no_curve(told) if told.curve is None else None,
        "runs": told.looked,
        "setting": None
        if trained.setting is None
        else {**trained.setting._asdict(), "recipe": trained.setting.recipe.to_dict()},
        "left_out": [{"runs": count, "with": what} for count, what in trained.left_out],
        "curve": None if told.curve is None else asdict(told.curve),
        "back_test": None if tested is None else {**asdict(tested), "off_points": tested.off},
    }


# ---- what is drawn ----


def _draw_costs(members: Sequence[Member], path: Path, *, title: str) -> None:
    from trifold.report.figures import FamilyRow, draw_family

    points = [
        FamilyRow(
            f"φ {m.phi:g}",
            m.phi,
            m.cost.multiply_adds,
            m.cost.parameters,
            m.cost.activations,
            m.architecture.resolution,
        )
        for m in members
    ]
    draw_family(points, path, title=title)


def _draw_accuracy(rows: Sequence[_Row], curve: Curve, path: Path, *, title: str) -> None:
    """The trained networks, and the curve over them and the members that it reaches."""
    import numpy as np

    from trifold.report.family import AccuracyCurve, Level, Size, draw_accuracy

    sizes = {}
    for row in rows:
        label, spent = f"φ {row.member.phi:.3g}", row.member.cost.multiply_adds
        if row.network is not None:
            mean, half = _test(row.network)
            low, high = max(0.0, mean - (half or 0)), min(100.0, mean + (half or 0))
            sizes[spent] = Size(f"{label}\n{mean:.1f} %", spent, mean / 100, low / 100, high / 100, True)
        elif (fitted := row.predicted) is not None and spent not in sizes:
            named = f"{label}\n{100 * fitted.accuracy:.1f} %"
            sizes[spent] = Size(named, spent, fitted.accuracy, fitted.low, fitted.high, False)
    costs = np.geomspace(min(sizes), max(sizes), 100)
    levels = [Level(float(one), *_ends(curve.predict(float(one)))) for one in costs]
    seeds = "one run" if curve.seeds == 1 else f"the mean of {curve.seeds} runs"
    draw_accuracy(
        AccuracyCurve(tuple(sizes.values()), tuple(levels), f"95 % prediction interval of {seeds}"), path, title=title
    )


def _ends(predicted: Prediction) -> tuple[float, float, float]:
    return predicted.accuracy, predicted.low, predicted.high
