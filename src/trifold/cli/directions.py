"""The grid of alpha, beta, gamma at equal real cost, and the command that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trifold.cli.options import (
    Command,
    counting_options,
    json_option,
    labelled,
    print_json,
    print_table,
    rounding_of,
    rounding_options,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trifold.architecture import Architecture
    from trifold.study.directions import Candidate, Plan

COLUMNS = (
    "alpha", "beta", "gamma", "others", "phi", "layers", "stem", "resolution", "parameters", "multiply_adds", "off_%",
    "width_x",
)  # fmt: skip


def _row(one: Candidate) -> tuple[str | int | float | None, ...]:
    first, net = one.directions[0], one.architecture
    sizes = (net.num_blocks, net.stem.channels, net.resolution, one.cost.parameters, one.cost.multiply_adds)
    adjusted = None if one.width_adjustment == 1 else one.width_adjustment
    coefficients = (f"{first.alpha:g}", f"{first.beta:g}", f"{first.gamma:g}")
    return *coefficients, len(one.directions) - 1, one.phi, *sizes, f"{100 * one.off:+.1f}", adjusted


_GRID_OPTIONS = (
    click.option("--factor", default=2.0, show_default=True, help="Candidates cost NET's multiply-adds times this."),
    click.option("--step", default=0.1, show_default=True, help="Of the grid of alpha, beta and gamma, from 1 on."),
    click.option("--growth", default=2.0, show_default=True, help="What alpha * beta^2 * gamma^2 must be near."),
    click.option("--tolerance", default=0.1, show_default=True, help="How far from it it may be."),
)  # fmt: skip


def grid_options(command: Command) -> Command:
    """Adds the grid's options and those of rounding; `grid_plan` reads them."""
    command = rounding_options(command)
    for option in reversed(_GRID_OPTIONS):
        command = option(command)
    return command


def grid_plan(net: str, classes: int, in_channels: int, options: Mapping[str, Any]) -> tuple[Architecture, Plan]:
    """The baseline, and its grid at equal cost."""
    from trifold.baselines import load
    from trifold.cost import cost
    from trifold.study.directions import Grid, equal_cost

    architecture, family = load(net)
    grid = Grid(step=options["step"], growth=options["growth"], tolerance=options["tolerance"])
    own = cost(architecture, num_classes=classes, in_channels=in_channels).multiply_adds
    return architecture, equal_cost(
        architecture,
        grid.directions(),
        own * options["factor"],
        rounding=rounding_of(options, family),
        num_classes=classes,
        in_channels=in_channels,
    )


@click.command()
@click.argument("net")
@grid_options
@counting_options
@json_option
def directions(net: str, classes: int, in_channels: int, as_json: bool, **options: Any) -> None:
    """Print which networks a grid of directions really holds: followed to one cost, equal ones merged.

    These are the candidates of the paper's small grid search for alpha, beta and gamma.
    """
    from trifold.study.directions import plan_to_dict

    architecture, plan = grid_plan(net, classes, in_channels, options)
    if as_json:
        print_json(plan_to_dict(plan))
    else:
        print_plan(architecture, plan, options["factor"])


def print_plan(architecture: Architecture, plan: Plan, factor: float) -> None:
    """The candidates, which directions are the same, and which have none."""
    from trifold.study.directions import EQUAL, named

    asked = sum(len(one.directions) for one in plan.candidates) + len(plan.unreachable)
    title = (
        f"{architecture.name}: {asked} directions are {len(plan.candidates)} networks within {EQUAL:.0%} of "
        f"{plan.target:,} multiply-adds, {factor:g} times its own"
    )
    print_table(labelled(title, COLUMNS, [_row(one) for one in plan.candidates]))
    for one in plan.candidates:
        if len(one.directions) > 1:
            others = ", ".join(map(named, one.directions[1:]))
            click.echo(f"{named(one.directions[0])} is the same network as {others}")
    if plan.unreachable:
        missed = ", ".join(f"{named(one.direction)} {100 * one.nearest:+.1f} %" for one in plan.unreachable)
        click.echo(f"no network of that cost, even with its width adjusted; the nearest: {missed}")
