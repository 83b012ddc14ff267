"""Commands of the studies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trifold.cli.options import (
    counting_options,
    json_option,
    labelled,
    print_json,
    print_table,
    rounding_of,
    rounding_options,
)

if TYPE_CHECKING:
    from trifold.scaling import Coefficients
    from trifold.study.directions import Candidate, Plan

COLUMNS = (
    "alpha", "beta", "gamma", "others", "phi", "layers", "stem", "resolution", "parameters", "multiply_adds", "off_%",
    "width_x",
)  # fmt: skip


def _plan_json(plan: Plan) -> dict[str, Any]:
    """What --json prints of a plan."""
    from dataclasses import asdict

    from trifold.architecture import to_dict

    return {
        "target": plan.target,
        "candidates": [
            {
                "directions": [asdict(direction) for direction in one.directions],
                "phi": one.phi,
                "multipliers": asdict(one.multipliers),
                "width_adjustment": one.width_adjustment,
                "multiply_adds": one.cost.multiply_adds,
                "parameters": one.cost.parameters,
                "off": one.off,
                "architecture": to_dict(one.architecture),
            }
            for one in plan.candidates
        ],
        "unreachable": [{**asdict(one.direction), "nearest": one.nearest} for one in plan.unreachable],
    }


def _named(direction: Coefficients) -> str:
    return f"({direction.alpha:g}, {direction.beta:g}, {direction.gamma:g})"


def _row(one: Candidate) -> tuple[str | int | float | None, ...]:
    first, net = one.directions[0], one.architecture
    layers = sum(stage.layers for stage in net.stages)
    sizes = (layers, net.stem.channels, net.resolution, one.cost.parameters, one.cost.multiply_adds)
    adjusted = None if one.width_adjustment == 1 else one.width_adjustment
    coefficients = (f"{first.alpha:g}", f"{first.beta:g}", f"{first.gamma:g}")
    return *coefficients, len(one.directions) - 1, one.phi, *sizes, f"{100 * one.off:+.1f}", adjusted


@click.command()
@click.argument("net")
@click.option("--factor", default=2.0, show_default=True, help="The candidates' cost: NET's multiply-adds times this.")
@click.option("--step", default=0.1, show_default=True, help="Of the grid of alpha, beta and gamma, from 1 on.")
@click.option("--growth", default=2.0, show_default=True, help="What alpha * beta^2 * gamma^2 must be near.")
@click.option("--tolerance", default=0.1, show_default=True, help="How far from it it may be.")
@rounding_options
@counting_options
@json_option
def directions(net: str, factor: float, classes: int, in_channels: int, as_json: bool, **options: Any) -> None:
    """Print which networks a grid of directions really holds: followed to one cost, equal ones merged.

    These are the candidates of the paper's small grid search for alpha, beta and gamma.
    """
    from trifold.baselines import load
    from trifold.cost import cost
    from trifold.study.directions import EQUAL, Grid, equal_cost

    architecture, family = load(net)
    grid = Grid(step=options["step"], growth=options["growth"], tolerance=options["tolerance"])
    own = cost(architecture, num_classes=classes, in_channels=in_channels).multiply_adds
    asked = grid.directions()
    plan = equal_cost(
        architecture,
        asked,
        own * factor,
        rounding=rounding_of(options, family),
        num_classes=classes,
        in_channels=in_channels,
    )
    if as_json:
        print_json(_plan_json(plan))
        return
    title = (
        f"{architecture.name}: {len(asked)} directions are {len(plan.candidates)} networks within {EQUAL:.0%} of "
        f"{plan.target:,} multiply-adds, {factor:g} times its own"
    )
    print_table(labelled(title, COLUMNS, [_row(one) for one in plan.candidates]))
    for one in plan.candidates:
        if len(one.directions) > 1:
            others = ", ".join(map(_named, one.directions[1:]))
            click.echo(f"{_named(one.directions[0])} is the same network as {others}")
    if plan.unreachable:
        missed = ", ".join(f"{_named(one.direction)} {100 * one.nearest:+.1f} %" for one in plan.unreachable)
        click.echo(f"no network of that cost, even with its width adjusted; the nearest: {missed}")
