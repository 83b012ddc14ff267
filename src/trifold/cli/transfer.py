"""The command that carries trained networks over to other data, beside the same networks from random weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from trifold.cli.options import json_option, labelled, print_json, print_table, recipe_changes
from trifold.cli.study import SEEDS, go, print_hours, print_sortable, study_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trifold.claimed import Common
    from trifold.data.dataset import Dataset
    from trifold.study.pieces import Found
    from trifold.study.transfer import Opened, Transfer
    from trifold.train.recipe import Recipe

NEEDED = ("bn_eps", "padding", "normalisation")
"""What weights need as they were trained with it."""


@click.command()
@click.argument("data")
@click.argument("runs_given", nargs=-1, required=True, metavar="RUN...")
@click.option("--no-scratch", is_flag=True, help="Fine-tune alone, without the same networks from random weights.")
@click.option("--seeds", type=SEEDS, default=3, show_default=True, help="Of every network.")
@partial(study_options, recipe="finetune")
@click.option("--out", default="studies/transfer", show_default=True, help="Folder of the study.")
@json_option
def transfer(data: str, runs_given: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Fine-tune the networks of finished RUNs on DATA, and say what their weights bring there (paper §5.3).

    Runs of one network are its seeds. The same networks are trained on DATA from random weights for as many epochs, by
    the recipe that the runs had. The same command goes on where it was stopped; given again elsewhere with the same
    --storage, it shares the work.
    """
    from trifold.study.transfer import by_network, carried

    done = carry_over(data, by_network(runs_given), options, as_json=as_json)
    if done is None:
        return
    from trifold.study.transfer_page import brought, compared, gains, transfer_notes

    study, found = done
    reached = carried(study, found)
    if as_json:
        from dataclasses import asdict

        print_json({"networks": study.names, "findings": asdict(reached)})
        return
    print_sortable(f"{reached.trained} of {reached.full} trainings", compared(study, reached))
    if reached.gains:
        print_sortable("pretrained less random weights, in points of test", gains(reached))
    for line in (brought(study, reached), *transfer_notes(study, reached)):
        click.echo(line)


def carry_over(
    data: str, runs: Mapping[str, Sequence[str | Path]], options: Mapping[str, Any], *, as_json: bool
) -> tuple[Transfer, Found] | None:
    """Plans and runs the study of these networks' runs; None where only its plan was asked for."""
    from trifold.study.transfer import open_sources

    opened = open_sources(runs)
    recipe = _recipe(opened, options)

    def planned(classes: int, channels: int, images: int | None) -> Opened:
        _print_plan(opened, (classes, channels), images, recipe, options, as_json=as_json)
        return opened

    def make(_: Opened, common: Common, dataset: Dataset) -> Transfer:
        from dataclasses import replace

        from trifold.study.transfer import Transfer

        warmup = min(opened.recipe.warmup_epochs, recipe.epochs / 2)
        return Transfer(
            sources=opened.sources,
            origin=opened.origin,
            common=common,
            scratch=None
            if options["no_scratch"]
            else replace(opened.recipe, epochs=recipe.epochs, warmup_epochs=warmup),
            seeds=options["seeds"],
            seen=sum(sample.digest in opened.used for sample in dataset.samples),
        )

    return go(planned, make, data, recipe, options, weights=opened.files)


def _recipe(opened: Opened, options: Mapping[str, Any]) -> Recipe:
    """How to fine-tune: by default with what the weights need."""
    from trifold.train.recipes import RECIPES, find_recipe

    needed = {name: getattr(opened.recipe, name) for name in NEEDED} if options["recipe"] in RECIPES else {}
    return find_recipe(options["recipe"], opened.sources[0].architecture, {**needed, **recipe_changes(options)})


def _print_plan(
    opened: Opened, counts: tuple[int, int], images: int | None, recipe: Recipe, options: Mapping[str, Any], *,
    as_json: bool,
) -> None:  # fmt: skip
    from trifold.cost import cost

    classes, channels = counts
    costs = [cost(one.architecture, num_classes=classes, in_channels=channels) for one in opened.sources]
    rows = [
        (one.name, len(one.weights), one.accuracy, one.architecture.resolution, spent.parameters, spent.multiply_adds)
        for one, spent in zip(opened.sources, costs, strict=True)
    ]
    columns = ("network", "runs", "test_%", "resolution", "parameters", "multiply_adds")
    if as_json:
        if options["only_plan"]:
            print_json({"networks": [dict(zip(columns, row, strict=True)) for row in rows]})
        return
    print_table(labelled(f"networks trained on {opened.origin}", columns, rows, digits=2))
    trainings = options["seeds"] * (1 if options["no_scratch"] else 2)
    spent_by_all = trainings * sum(one.multiply_adds for one in costs)
    print_hours(trainings * len(costs), spent_by_all, recipe, images, f"{len(costs)} networks")
