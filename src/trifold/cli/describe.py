"""Commands that describe, cost and scale: none of them needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trifold.cli.options import (
    coefficients_of,
    counting_options,
    json_option,
    labelled,
    print_json,
    print_table,
    refuse_direction,
    rounding_of,
    rule_options,
)
from trifold.errors import InvalidInput

if TYPE_CHECKING:
    from trifold.architecture import Architecture
    from trifold.cost import Cost
    from trifold.scaling import Multipliers, Rounding
    from trifold.table import Cell


def _cost_json(architecture: Architecture, spent: Cost, *, classes: int, in_channels: int) -> dict[str, Any]:
    """What --json prints of an architecture."""
    from dataclasses import asdict

    from trifold.architecture import to_dict

    blocks = architecture.blocks(num_classes=classes, in_channels=in_channels)
    return {
        "name": architecture.name,
        "resolution": architecture.resolution,
        "num_classes": classes,
        "in_channels": in_channels,
        **asdict(spent),
        "weight_bytes": spent.weight_bytes,
        "file_bytes": spent.file_bytes,
        "architecture": to_dict(architecture),
        "blocks": [block._asdict() for block in blocks],
    }


def _print_architecture(architecture: Architecture, *, classes: int, in_channels: int) -> None:
    """The paper's Table 1 for an architecture, with the cost of each row."""
    from trifold.cost import cost
    from trifold.stages import StageRow, stage_rows

    rows: list[tuple[Cell, ...]] = [
        (str(row.stage), row.operator, f"{row.resolution}x{row.resolution}", *row[3:])
        for row in stage_rows(architecture, num_classes=classes, in_channels=in_channels)
    ]
    spent = cost(architecture, num_classes=classes, in_channels=in_channels)
    rows.append(("", "total", "", "", "", "", spent.parameters, spent.multiply_adds, spent.activations))
    title = f"{architecture.name} at {architecture.resolution}x{architecture.resolution}, {classes} classes"
    print_table(labelled(title, StageRow._fields, rows))
    click.echo(f"weight file, float32: at most {spent.file_bytes / 1e6:.1f} MB")


@click.command()
@click.argument("net")
@counting_options
@click.option("--resolution", type=int, help="Count at this resolution in place of the network's own.")
@click.option("--toml", "as_toml", is_flag=True, help="Print the description as TOML, to edit.")
@json_option
def show(net: str, classes: int, in_channels: int, resolution: int | None, as_toml: bool, as_json: bool) -> None:
    """Print NET (a name, or a .toml file) as the paper's Table 1, with the cost of each row."""
    from dataclasses import replace

    from trifold.architecture import to_toml
    from trifold.baselines import load
    from trifold.cost import cost

    architecture, _ = load(net)
    if resolution is not None:
        architecture = replace(architecture, resolution=resolution)
    spent = cost(architecture, num_classes=classes, in_channels=in_channels)
    if as_json:
        print_json(_cost_json(architecture, spent, classes=classes, in_channels=in_channels))
    elif as_toml:
        click.echo(to_toml(architecture), nl=False)
    else:
        _print_architecture(architecture, classes=classes, in_channels=in_channels)


@click.command(name="list")
@click.argument("pattern", default="*")
@json_option
def list_(pattern: str, as_json: bool) -> None:
    """Print the shipped networks whose name matches PATTERN, with their cost."""
    from trifold.baselines import find, list_models
    from trifold.cost import cost

    found = [(architecture, cost(architecture)) for architecture in map(find, list_models(pattern))]
    if not found:
        raise InvalidInput(f"no network matches {pattern!r}; `trifold list` prints them all")
    rows = [(a.name, a.resolution, c.parameters, c.multiply_adds, c.activations) for a, c in found]
    columns = ("name", "resolution", "parameters", "multiply_adds", "activations")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(labelled("1000 classes", columns, rows))


@click.command()
@click.argument("net")
@click.option("--phi", type=float, help="The dial, from -3 to 12.")
@click.option("--budget", help="Limits, such as multiply-adds=1.5e9,params=8M,size=20MB,resolution=128..256.")
@click.option("--depth-factor", type=float, help="Multiply layers by this, in place of --phi.")
@click.option("--width-factor", type=float, help="Multiply channels by this.")
@click.option("--resolution-factor", type=float, help="Multiply pixels by this.")
@click.option("--fill-width", is_flag=True, help="Spend what rounding leaves of the budget on width.")
@click.option("--out", type=click.Path(dir_okay=False), help="Also write the scaled network to this .toml file.")
@rule_options
@counting_options
@json_option
def scale(net: str, classes: int, in_channels: int, as_json: bool, out: str | None, **options: Any) -> None:
    """Scale NET by --phi, to a --budget, or by factors of its depth, width and resolution."""
    from dataclasses import asdict, replace
    from pathlib import Path

    from trifold.architecture import to_toml
    from trifold.baselines import load
    from trifold.cost import cost

    architecture, family = load(net)
    rounding = rounding_of(options, family)
    scaled, multipliers, answer = _scaled(architecture, options, rounding, classes=classes, in_channels=in_channels)
    scaled = replace(scaled, name=f"{architecture.name}-scaled"[:100])
    spent = cost(scaled, num_classes=classes, in_channels=in_channels)
    if out is not None:
        if not out.endswith(".toml"):
            raise InvalidInput(f"--out must end in .toml, got {out!r}")
        Path(out).write_text(to_toml(scaled), encoding="utf-8")
    if as_json:
        counts = _cost_json(scaled, spent, classes=classes, in_channels=in_channels)
        print_json({**counts, "multipliers": asdict(multipliers), "rounding": asdict(rounding), **answer})
        return
    _print_architecture(scaled, classes=classes, in_channels=in_channels)
    base = cost(architecture, num_classes=classes, in_channels=in_channels)
    phi = f"phi {answer['phi']:g}: " if "phi" in answer else ""
    click.echo(
        f"{phi}depth x{multipliers.depth:.4g}, width x{multipliers.width:.4g}, resolution x{multipliers.resolution:.4g}"
        f" of {architecture.name}; multiply-adds x{spent.multiply_adds / base.multiply_adds:.4g},"
        f" parameters x{spent.parameters / base.parameters:.4g}"
    )
    for line in _budget_lines(answer):
        click.echo(line)


def _scaled(
    architecture: Architecture, options: dict[str, Any], rounding: Rounding, *, classes: int, in_channels: int
) -> tuple[Architecture, Multipliers, dict[str, Any]]:
    """The scaled architecture, its multipliers, and what --phi or --budget add to the answer."""
    from trifold.budget import fit, parse_budget
    from trifold.scaling import Multipliers, scale

    factors = {name: options[f"{name}_factor"] for name in ("depth", "width", "resolution")}
    direct = {name: factor for name, factor in factors.items() if factor is not None}
    ways = [options["phi"] is not None, options["budget"] is not None, bool(direct)]
    if sum(ways) != 1:
        raise InvalidInput("scale needs one of --phi, --budget, or any of --depth-, --width-, --resolution-factor")
    if options["fill_width"] and options["budget"] is None:
        raise InvalidInput("--fill-width needs --budget: without one there is nothing left to spend")
    if direct:
        refuse_direction(options)
        multipliers = Multipliers(**direct)
        return scale(architecture, multipliers, rounding), multipliers, {}
    coefficients = coefficients_of(options)
    if options["phi"] is not None:
        multipliers = coefficients.multipliers(options["phi"])
        return scale(architecture, multipliers, rounding), multipliers, {"phi": options["phi"]}
    found = fit(
        architecture,
        parse_budget(options["budget"]),
        coefficients,
        rounding=rounding,
        num_classes=classes,
        in_channels=in_channels,
        fill_width=options["fill_width"],
    )
    answer = {
        "phi": found.phi,
        "limits": found.budget.limits,
        "unused": found.unused,
        "binding": list(found.binding),
        "width_adjustment": found.width_adjustment,
    }
    return found.architecture, found.multipliers, answer


def _budget_lines(answer: dict[str, Any]) -> list[str]:
    """What a budget's answer says in words: what is unused, what binds, what was spent on width."""
    if "binding" not in answer:
        return []
    shares = [f"{name.replace('_', '-')} {100 * share:.1f} %" for name, share in answer["unused"].items()]
    binding = " and ".join(name.replace("_", "-") for name in answer["binding"])
    reasons = {"phi": "phi ends at 12", "description": "the next network is larger than a description may be"}
    lines = [f"binding: {reasons.get(binding, binding)}" + (f"; unused: {', '.join(shares)}" if shares else "")]
    if answer["width_adjustment"] != 1:
        lines.append(f"width raised by {100 * (answer['width_adjustment'] - 1):.1f} % to spend the remainder")
    return lines


@click.command()
@click.argument("name")
@json_option
def explain(name: str, as_json: bool) -> None:
    """Say how far the published network NAME is from alpha^phi, beta^phi, gamma^phi, and why."""
    from dataclasses import asdict

    from trifold.explain import as_table
    from trifold.explain import explain as explained

    explanation = explained(name)
    if as_json:
        print_json(asdict(explanation))
    else:
        print_table(as_table(explanation))


@click.command()
@click.argument("number", metavar="[TABLE]", required=False)
@json_option
def paper(number: str | None, as_json: bool) -> None:
    """Recompute the paper's tables that need no training beside its own numbers; without TABLE, all of them."""
    from dataclasses import asdict

    from trifold.paper import needs_training, tables

    found = tables(number)
    missing = needs_training() if number is None else ()
    if as_json:
        print_json({"tables": [asdict(table) for table in found], "needs_training": [asdict(row) for row in missing]})
        return
    for table in found:
        click.echo(f"Table {table.number}: " if table.number[0].isdigit() else f"{table.number}: ", nl=False)
        print_table(table)
        click.echo()
    if missing:
        columns = ("what", "why")
        print_table(labelled("What needs training, and is not recomputed", columns, [(m.what, m.why) for m in missing]))
