"""What several commands share: their options, and how a table and JSON are printed."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trifold.errors import InvalidInput

if TYPE_CHECKING:
    from trifold.data.dataset import Dataset
    from trifold.scaling import Coefficients, Rounding
    from trifold.table import Cell, Table

BEGAN = "trifold.began"
"""Where a command's context keeps the reading of time.monotonic() at which it began."""

Command = TypeVar("Command", bound=Callable[..., Any])


def is_first() -> bool:
    """Whether this process speaks for all that torchrun started, or was started alone."""
    return os.environ.get("RANK", "0") == "0"


def json_option(command: Command) -> Command:
    """Adds --json, which reaches the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def counting_options(command: Command) -> Command:
    """Adds --classes and --in-channels."""
    command = click.option("--in-channels", default=3, show_default=True, help="Channels of the image.")(command)
    return click.option("--classes", default=1000, show_default=True, help="Classes of the classifier.")(command)


RULE_OPTIONS = (
    click.option("--rule", default="compound", show_default=True,
                 help="Direction: compound (the paper's), depth, width, resolution, uniform, fast, tiny."),
    click.option("--alpha", type=float, help="Depth factor at phi 1, in place of the rule's."),
    click.option("--beta", type=float, help="Width factor at phi 1."),
    click.option("--gamma", type=float, help="Resolution factor at phi 1."),
)  # fmt: skip

ROUNDING_OPTIONS = (
    click.option("--divisor", type=int, help="Channels become a multiple of this  [default: 8, or the family's]."),
    click.option("--keep-ratio", type=float, help="Never round channels below this share  [0.9; V2: 0]."),
    click.option("--depth-rounding", help="ceil or nearest  [ceil]."),
    click.option("--resolution-step", type=int, help="Pixels become a multiple of this  [4]."),
    click.option("--fixed-ends/--scaled-ends", default=None, help="Keep stem, head, first and last layers (Lite)."),
)  # fmt: skip


def rounding_options(command: Command) -> Command:
    """Adds the options that say how multiplied numbers are rounded; `rounding_of` reads them."""
    for option in reversed(ROUNDING_OPTIONS):
        command = option(command)
    return command


def rule_options(command: Command) -> Command:
    """Adds the options of a scaling rule and of its rounding; `coefficients_of` and `rounding_of` read them."""
    command = rounding_options(command)
    for option in reversed(RULE_OPTIONS):
        command = option(command)
    return command


def coefficients_of(options: dict[str, Any]) -> Coefficients:
    """The direction that --rule names, with --alpha, --beta, --gamma put in its place."""
    from dataclasses import replace

    from trifold.scaling import RULES

    rule = options["rule"]
    if rule not in RULES:
        raise InvalidInput(f"--rule must be {' or '.join(RULES)}, got {rule!r}")
    given = {name: options[name] for name in ("alpha", "beta", "gamma") if options[name] is not None}
    return replace(RULES[rule], **given)


def refuse_direction(options: dict[str, Any]) -> None:
    """Raises InvalidInput if a direction is given where nothing would follow it."""
    given = [f"--{name}" for name in ("alpha", "beta", "gamma") if options[name] is not None]
    if given or options["rule"] != "compound":
        raise InvalidInput(f"{(given or ['--rule'])[0]} needs --phi or --budget: factors are taken as they are")


def file_name(name: str) -> str:
    """A network's name as part of a file's: letters, digits, dot, dash and underscore; others become a dash."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "network"


def rounding_of(options: Mapping[str, Any], family: Rounding) -> Rounding:
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
    depth = DEPTH_ROUNDING.get(options.get("rule", ""), family.depth)
    return replace(family, **{"depth": depth, **given})


def recipe_changes(options: Mapping[str, Any]) -> dict[str, Any]:
    """What --set and --epochs change in the recipe; values are read as TOML, bare words as text."""
    import tomllib

    changes: dict[str, Any] = {}
    for text in options["changes"]:
        name, sign, value = text.partition("=")
        if not sign:
            raise InvalidInput(f"--set must have the form FIELD=VALUE, got {text!r}")
        try:
            changes[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[name.strip()] = value.strip()
    return changes if options["epochs"] is None else {**changes, "epochs": options["epochs"]}


def open_images(data: str, *, skip_bad: bool, check: Callable[[tuple[str, ...]], object] | None = None) -> Dataset:
    """The dataset of `sources.open_data`; each bad image that is left out is logged, their number is said here."""
    from trifold.data.sources import open_data

    dataset = open_data(data, skip_bad=skip_bad, check=check)
    if dataset.skipped:
        click.echo(f"{len(dataset.skipped)} bad images left out", err=True)
    return dataset


def print_json(data: object) -> None:
    """One JSON value on stdout; numbers that JSON does not have, such as infinity, become null."""
    click.echo(json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(data: object) -> object:
    if isinstance(data, Mapping):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def print_table(table: Table) -> None:
    """A table under its title, with its source and notes."""
    from trifold.table import lines

    click.echo(click.style(table.title, bold=True) + (f" ({table.source})" if table.source else ""))
    for line in (*lines(table), *table.notes):
        click.echo(line)


def labelled(title: str, columns: Sequence[str], rows: Sequence[tuple[Cell, ...]], *, digits: int = 3) -> Table:
    """A table all of whose columns are our own, so that none is marked."""
    from trifold.table import Column, Table

    marked = tuple(Column(name=name.replace("_", "-"), kind="label", digits=digits) for name in columns)
    return Table(number="", title=title, source="", columns=marked, rows=tuple(rows))
