"""The command line: parse, call, print; every module but click is imported inside the command that needs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trifold.errors import InvalidInput

if TYPE_CHECKING:
    from trifold.architecture import Architecture
    from trifold.cost import Cost
    from trifold.scaling import Coefficients, Multipliers, Rounding
    from trifold.table import Cell, Table

Command = TypeVar("Command", bound=Callable[..., Any])


def main() -> None:
    """Runs a command; every refusal is one line on stderr: status 2 for bad input, 1 for a failure, 130 for Ctrl-C."""
    try:
        status = trifold.main(standalone_mode=False)
    except InvalidInput as error:
        _stop(str(error), 2)
    except click.ClickException as error:
        _stop(" ".join(error.format_message().split()), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _stop("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        _stop(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    raise SystemExit(status if isinstance(status, int) else 0)


def _stop(text: str, status: int) -> None:
    click.echo(f"trifold: {text}", err=True)
    raise SystemExit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="trifold")
def trifold() -> None:
    """Scale a convolutional network's depth, width and resolution together, to a budget."""


def _json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def _counting_options(command: Command) -> Command:
    command = click.option("--in-channels", default=3, show_default=True, help="Channels of the image.")(command)
    return click.option("--classes", default=1000, show_default=True, help="Classes of the classifier.")(command)


_RULE_OPTIONS = (
    click.option("--rule", default="compound", show_default=True,
                 help="Direction: compound (the paper's), depth, width, resolution, uniform, fast, tiny."),
    click.option("--alpha", type=float, help="Depth factor at phi 1, in place of the rule's."),
    click.option("--beta", type=float, help="Width factor at phi 1."),
    click.option("--gamma", type=float, help="Resolution factor at phi 1."),
    click.option("--divisor", type=int, help="Channels become a multiple of this  [default: 8, or the family's]."),
    click.option("--keep-ratio", type=float, help="Never round channels below this share  [0.9; V2: 0]."),
    click.option("--depth-rounding", help="ceil or nearest  [ceil]."),
    click.option("--resolution-step", type=int, help="Pixels become a multiple of this  [4]."),
    click.option("--fixed-ends/--scaled-ends", default=None, help="Keep stem, head, first and last layers (Lite)."),
)  # fmt: skip


def _rule_options(command: Command) -> Command:
    for option in reversed(_RULE_OPTIONS):
        command = option(command)
    return command


def _coefficients(options: dict[str, Any]) -> Coefficients:
    """The direction that --rule names, with --alpha, --beta, --gamma put in its place."""
    from dataclasses import replace

    from trifold.scaling import RULES

    rule = options["rule"]
    if rule not in RULES:
        raise InvalidInput(f"--rule must be {' or '.join(RULES)}, got {rule!r}")
    given = {name: options[name] for name in ("alpha", "beta", "gamma") if options[name] is not None}
    return replace(RULES[rule], **given)


def _rounding(options: dict[str, Any], family: Rounding) -> Rounding:
    """The family's rounding with what the rule and the options change."""
    from dataclasses import replace

    from trifold.scaling import DEPTH_ROUNDING

    names = {
        "divisor": "divisor",
        "keep_ratio": "keep_ratio",
        "depth_rounding": "depth",
        "resolution_step": "resolution_step",
        "fixed_ends": "fixed_ends",
    }
    given = {field: options[name] for name, field in names.items() if options[name] is not None}
    depth = DEPTH_ROUNDING.get(options["rule"], family.depth)
    return replace(family, **{"depth": depth, **given})


def _print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def _print_table(table: Table) -> None:
    """A table under its title, with its source and notes."""
    from trifold.table import lines

    click.echo(click.style(table.title, bold=True) + (f" ({table.source})" if table.source else ""))
    for line in (*lines(table), *table.notes):
        click.echo(line)


def _labelled(title: str, columns: Sequence[str], rows: Sequence[tuple[Cell, ...]], *, digits: int = 3) -> Table:
    """A table all of whose columns are our own, so that none is marked."""
    from trifold.table import Column, Table

    marked = tuple(Column(name=name.replace("_", "-"), kind="label", digits=digits) for name in columns)
    return Table(number="", title=title, source="", columns=marked, rows=tuple(rows))


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
    from itertools import groupby

    from trifold.cost import blocks_cost

    rows: list[tuple[Cell, ...]] = []
    blocks = architecture.blocks(num_classes=classes, in_channels=in_channels)
    for number, (_, group) in enumerate(groupby(blocks, key=lambda b: (b.stage, _kind(b.operator))), start=1):
        members = list(group)
        first, spent = members[0], blocks_cost(members)
        rows.append((str(number), _operator(architecture, first), f"{first.in_size}x{first.in_size}",
                     members[-1].out_channels, len(members), first.stride,
                     spent.parameters, spent.multiply_adds, spent.activations))  # fmt: skip
    spent = blocks_cost(blocks)
    rows.append(("", "total", "", "", "", "", spent.parameters, spent.multiply_adds, spent.activations))
    title = f"{architecture.name} at {architecture.resolution}x{architecture.resolution}, {classes} classes"
    columns = (
        "stage",
        "operator",
        "resolution",
        "channels",
        "layers",
        "stride",
        "parameters",
        "multiply_adds",
        "activations",
    )
    _print_table(_labelled(title, columns, rows))
    click.echo(f"weight file, float32: at most {spent.file_bytes / 1e6:.1f} MB")


def _kind(operator: str) -> str:
    """Stem convolution and pooling, head convolution and classifier are rows of their own."""
    return operator if operator in ("max_pool", "linear") else "blocks"


def _operator(architecture: Architecture, block: Any) -> str:
    """The operator as the paper writes it: MBConv6, k3x3."""
    kernel = f"k{block.kernel_size}x{block.kernel_size}"
    if block.operator == "linear":
        return "pooling & FC"
    if block.operator in ("mbconv", "fused_mbconv"):
        ratio = architecture.stages[block.stage - 1].expand_ratio
        name = f"{'MBConv' if block.operator == 'mbconv' else 'Fused-MBConv'}{ratio:g}"
    else:
        name = block.operator.replace("_", "-")
    return f"{name}, {kernel}" + (", SE" if block.squeeze_channels else "")


@trifold.command()
@click.argument("net")
@_counting_options
@click.option("--resolution", type=int, help="Count at this resolution in place of the network's own.")
@click.option("--toml", "as_toml", is_flag=True, help="Print the description as TOML, to edit.")
@_json_option
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
        _print_json(_cost_json(architecture, spent, classes=classes, in_channels=in_channels))
    elif as_toml:
        click.echo(to_toml(architecture), nl=False)
    else:
        _print_architecture(architecture, classes=classes, in_channels=in_channels)


@trifold.command(name="list")
@click.argument("pattern", default="*")
@_json_option
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
        _print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        _print_table(_labelled("1000 classes", columns, rows))


@trifold.command()
@click.argument("net")
@click.option("--phi", type=float, help="The dial, from -3 to 12.")
@click.option("--budget", help="Limits, such as multiply-adds=1.5e9,params=8M,size=20MB,resolution=128..256.")
@click.option("--depth", type=float, help="Multiply layers by this, in place of --phi.")
@click.option("--width", type=float, help="Multiply channels by this.")
@click.option("--resolution", type=float, help="Multiply pixels by this.")
@click.option("--fill-width", is_flag=True, help="Spend what rounding leaves of the budget on width.")
@click.option("--out", type=click.Path(dir_okay=False), help="Also write the scaled network to this .toml file.")
@_rule_options
@_counting_options
@_json_option
def scale(net: str, classes: int, in_channels: int, as_json: bool, out: str | None, **options: Any) -> None:
    """Scale NET by --phi, to a --budget, or by --depth, --width and --resolution."""
    from dataclasses import asdict, replace
    from pathlib import Path

    from trifold.architecture import to_toml
    from trifold.baselines import load
    from trifold.cost import cost

    architecture, family = load(net)
    rounding = _rounding(options, family)
    scaled, multipliers, answer = _scaled(architecture, options, rounding, classes=classes, in_channels=in_channels)
    scaled = replace(scaled, name=f"{architecture.name}-scaled"[:100])
    spent = cost(scaled, num_classes=classes, in_channels=in_channels)
    if out is not None:
        Path(out).write_text(to_toml(scaled), encoding="utf-8")
    if as_json:
        counts = _cost_json(scaled, spent, classes=classes, in_channels=in_channels)
        _print_json({**counts, "multipliers": asdict(multipliers), "rounding": asdict(rounding), **answer})
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

    direct = {name: options[name] for name in ("depth", "width", "resolution") if options[name] is not None}
    ways = [options["phi"] is not None, options["budget"] is not None, bool(direct)]
    if sum(ways) != 1:
        raise InvalidInput("scale needs one of --phi, --budget, or any of --depth, --width, --resolution")
    if direct:
        multipliers = Multipliers(**direct)
        return scale(architecture, multipliers, rounding), multipliers, {}
    coefficients = _coefficients(options)
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


@trifold.command()
@click.argument("net")
@click.option("--phi", "phis", default="0..7", show_default=True, help="Range a..b in steps of 1, or a list 0,0.5,1.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Where the cost curves go  [NET-family.png].")
@_rule_options
@_counting_options
@_json_option
def family(
    net: str, phis: str, picture: str | None, classes: int, in_channels: int, as_json: bool, **options: Any
) -> None:
    """Print the family that phi makes of NET, and draw its cost curves."""
    from pathlib import Path

    from trifold.baselines import load
    from trifold.scaling import family as members_of

    architecture, own = load(net)
    rounding, coefficients = _rounding(options, own), _coefficients(options)
    members = members_of(
        architecture, _phis(phis), coefficients, rounding, num_classes=classes, in_channels=in_channels
    )
    path = Path(picture or f"{architecture.name}-family.png")
    from trifold.report.figures import draw_family

    draw_family(members, path)
    columns = ("phi", "depth", "width", "resolution", "blocks", "parameters", "multiply_adds", "activations")
    rows = [
        (m.phi, m.multipliers.depth, m.multipliers.width, m.architecture.resolution, m.architecture.num_blocks,
         m.cost.parameters, m.cost.multiply_adds, m.cost.activations)
        for m in members
    ]  # fmt: skip
    if as_json:
        _print_json({"net": architecture.name, "picture": str(path),
                     "members": [dict(zip(columns, row, strict=True)) for row in rows]})  # fmt: skip
    else:
        growth = f"alpha·beta²·gamma² = {coefficients.growth:.4g}"
        _print_table(_labelled(f"{architecture.name}, {growth}", columns, rows))
        click.echo(f"cost curves: {path}")


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


@trifold.command()
@click.argument("name")
@_json_option
def explain(name: str, as_json: bool) -> None:
    """Say how far the published network NAME is from alpha^phi, beta^phi, gamma^phi, and why."""
    from dataclasses import asdict

    from trifold.explain import as_table
    from trifold.explain import explain as explained

    explanation = explained(name)
    if as_json:
        _print_json(asdict(explanation))
    else:
        _print_table(as_table(explanation))


@trifold.command()
@click.argument("number", metavar="[TABLE]", required=False)
@_json_option
def paper(number: str | None, as_json: bool) -> None:
    """Recompute the paper's tables that need no training beside its own numbers; without TABLE, all of them."""
    from dataclasses import asdict

    from trifold.paper import needs_training, tables

    found = tables(number)
    missing = needs_training() if number is None else ()
    if as_json:
        _print_json({"tables": [asdict(table) for table in found], "needs_training": [asdict(row) for row in missing]})
        return
    for table in found:
        click.echo(f"Table {table.number}: " if table.number[0].isdigit() else f"{table.number}: ", nl=False)
        _print_table(table)
        click.echo()
    if missing:
        columns = ("what", "why")
        _print_table(
            _labelled("What needs training, and is not recomputed", columns, [(m.what, m.why) for m in missing])
        )
