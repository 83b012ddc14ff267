"""Commands of the studies."""

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
    recipe_changes,
    rounding_of,
    rounding_options,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from trifold.architecture import Architecture
    from trifold.scaling import Coefficients
    from trifold.study.coefficients import Answer, Search, Shown
    from trifold.study.directions import Candidate, Plan
    from trifold.study.trials import Job, Trained
    from trifold.train.assemble import Progress

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


_GRID_OPTIONS = (
    click.option("--factor", default=2.0, show_default=True, help="Candidates cost NET's multiply-adds times this."),
    click.option("--step", default=0.1, show_default=True, help="Of the grid of alpha, beta and gamma, from 1 on."),
    click.option("--growth", default=2.0, show_default=True, help="What alpha * beta^2 * gamma^2 must be near."),
    click.option("--tolerance", default=0.1, show_default=True, help="How far from it it may be."),
)  # fmt: skip


def _grid_options(command: Command) -> Command:
    command = rounding_options(command)
    for option in reversed(_GRID_OPTIONS):
        command = option(command)
    return command


def _planned(net: str, classes: int, in_channels: int, options: Mapping[str, Any]) -> tuple[Architecture, Plan]:
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
@_grid_options
@counting_options
@json_option
def directions(net: str, classes: int, in_channels: int, as_json: bool, **options: Any) -> None:
    """Print which networks a grid of directions really holds: followed to one cost, equal ones merged.

    These are the candidates of the paper's small grid search for alpha, beta and gamma.
    """
    architecture, plan = _planned(net, classes, in_channels, options)
    if as_json:
        print_json(_plan_json(plan))
    else:
        _print_plan(architecture, plan, options["factor"])


def _print_plan(architecture: Architecture, plan: Plan, factor: float) -> None:
    from trifold.study.directions import EQUAL

    asked = sum(len(one.directions) for one in plan.candidates) + len(plan.unreachable)
    title = (
        f"{architecture.name}: {asked} directions are {len(plan.candidates)} networks within {EQUAL:.0%} of "
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


@click.command()
@click.argument("net")
@click.argument("data")
@_grid_options
@click.option("--seeds", default=3, show_default=True, help="Of the candidates that go on to the second round.")
@click.option("--recipe", default="small", show_default=True, help="How to train: as for `trifold train`.")
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field of the recipe.")
@click.option("--epochs", type=int, help="Short for --set epochs=N.")
@click.option("--split-seed", default=0, show_default=True, help="Of the split that all trainings share.")
@click.option("--skip-bad", is_flag=True, help="Leave bad images out, named and counted, instead of stopping.")
@click.option("--threads", type=int, default=1, show_default=True, help="Of torch, in each training.")
@click.option("--out", default="studies/coefficients", show_default=True, help="Folder of the trainings.")
@click.option("--storage", help="Optuna's storage, which several workers may share  [sqlite in --out].")
@click.option("--name", default="coefficients", show_default=True, help="Of the study in the storage.")
@click.option("--plan", "only_plan", is_flag=True, help="Print the candidates and stop.")
@json_option
def coefficients(net: str, data: str, only_plan: bool, as_json: bool, **options: Any) -> None:
    """Find alpha, beta and gamma for NET on DATA: the paper's small grid search, at equal real cost, with seeds.

    Every candidate is trained once, then the best quarter with the other seeds. The same command goes on where it was
    stopped; given again elsewhere with the same --storage, it shares the work.
    """
    from dataclasses import asdict
    from pathlib import Path

    from trifold.data.sources import open_data
    from trifold.study.coefficients import Search, answer, search_coefficients
    from trifold.study.trials import Storage
    from trifold.train.machine import Machine
    from trifold.train.recipes import find_recipe

    dataset = open_data(data, skip_bad=options["skip_bad"])
    architecture, plan = _planned(net, len(dataset.classes), dataset.in_channels, options)
    search = Search(
        baseline=architecture,
        directions=plan,
        recipe=find_recipe(options["recipe"], architecture, recipe_changes(options)),
        seeds=options["seeds"],
        split_seed=options["split_seed"],
        fingerprint=dataset.fingerprint,
    )
    if not as_json or only_plan:
        _print_plan(architecture, plan, options["factor"])
        click.echo(
            f"{search.most_trainings} trainings of {search.recipe.epochs} epochs; the full grid has "
            f"{len(plan.candidates) * search.seeds}"
        )
    if only_plan:
        return
    folder = Path(options["out"])
    folder.mkdir(parents=True, exist_ok=True)
    url = options["storage"] or f"sqlite:///{(folder / 'trials.db').resolve()}"
    found = search_coefficients(
        search,
        dataset,
        folder=folder,
        storage=Storage(url=url, name=options["name"]),
        machine=Machine(threads=options["threads"]),
        shown=_shown(search),
    )
    reached = answer(search, found)
    if as_json:
        print_json({**_plan_json(plan), "answer": asdict(reached)})
    else:
        _print_answer(search, reached)


def _shown(search: Search) -> Shown:
    """Says on stderr which training begins and how long all may take, and shows its progress."""

    def begin(job: Job, found: Mapping[Job, Trained]) -> AbstractContextManager[Progress | None]:
        from trifold.report.markup import duration
        from trifold.train.progress import progress_bar

        first = search.directions.candidates[job[0]].directions[0]
        seconds = [one.facts["seconds"] for one in found.values()]
        left = (search.most_trainings - len(found)) * sum(seconds) / len(seconds) if seconds else 0
        click.echo(
            f"training {len(found) + 1} of {search.most_trainings}: {_named(first)}, seed {job[1]}"
            + (f"; {duration(left)} left on one worker" if left else ""),
            err=True,
        )
        return progress_bar()

    return begin


def _print_answer(search: Search, reached: Answer) -> None:
    choice = reached.choice
    if choice is None:
        click.echo(f"{reached.trained} trainings: too few for an answer")
        return
    numbers = sorted(reached.test)
    rows: list[tuple[str | int | float | None, ...]] = []
    for number, one in zip(numbers, choice.standings, strict=True):
        first = search.directions.candidates[number].directions[0]
        mark = "best" if number == choice.best else "tied" if one.tied else ""
        test, spread = reached.test[number]
        fitted = (f"{one.fitted:.2f} ± {one.fitted_interval:.2f}", f"{one.chance:.0%}", mark)
        rows.append((_named(first), one.seeds, _plus_minus(one.mean, one.interval), *fitted, _plus_minus(test, spread)))
    columns = ("alpha, beta, gamma", "seeds", "minival_%", "fitted_%", "chance", "", "test_%")
    print_table(labelled(f"{reached.trained} trainings; the full grid has {reached.full}", columns, rows))
    best = search.directions.candidates[choice.best].directions[0]
    tied = sum(one.tied for one in choice.standings) - 1
    plain = search.directions.candidates[choice.argmax].directions[0]
    click.echo(
        f"alpha {best.alpha:g}, beta {best.beta:g}, gamma {best.gamma:g}: {tied} of {len(numbers) - 1} others are tied "
        f"with it; the best plain mean is {_named(plain)}; a seed's noise is {choice.noise:.2f} points"
        + ("; one seed: a smoke test" if search.seeds == 1 else "")
    )
    if reached.needed is not None and reached.needed > reached.images:
        click.echo(
            f"telling it from the next best would take {reached.needed:,} images; minival has {reached.images:,}, and "
            "what more seeds on it can tell holds for these images alone"
        )


def _plus_minus(mean: float, half: float) -> str:
    return f"{mean:.2f}" if half == float("inf") else f"{mean:.2f} ± {half:.2f}"
