"""Commands that train and use a trained network; torch is imported when one of them runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from trifold.cli.options import (
    BEGAN,
    Command,
    coefficients_of,
    file_name,
    is_first,
    json_option,
    open_images,
    print_json,
    print_table,
    recipe_changes,
    rounding_of,
    rule_options,
)
from trifold.errors import ImpossibleBudget, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trifold.architecture import Architecture
    from trifold.data.dataset import Dataset
    from trifold.train.machine import Machine
    from trifold.train.recipe import Recipe
    from trifold.train.record import Record

_TRAINING_OPTIONS = (
    click.option("--out", type=click.Path(file_okay=False), help="Run folder  [runs/DATA-NET-ID]."),
    click.option("--recipe", default="small", show_default=True,
                 help="How to train: small, modern, paper, finetune, or a .toml file."),
    click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field of the recipe."),
    click.option("--epochs", type=int, help="Short for --set epochs=N."),
    click.option("--time", help="Plan the epochs to fill this time: 20m, 1h30m, 90s."),
    click.option("--find-lr", is_flag=True, help="Find the learning rate by a short range test, once."),
    click.option("--weights", type=click.Path(), help="Begin with these weights: a run, .safetensors, .pth or .npz."),
    click.option("--seed", default=0, show_default=True, help="Of weights, order and augmentation."),
    click.option("--split-seed", default=0, show_default=True, help="Of the split into train, minival and test."),
    click.option("--skip-bad", is_flag=True, help="Leave bad images out, named and counted, instead of stopping."),
    click.option("--overwrite", is_flag=True, help="Begin anew, in place of what the folder holds."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
    click.option("--threads", type=int, default=0, help="Of torch  [1 for small networks, else all cores]."),
    click.option("-j", "--workers", type=int, default=-1, help="Processes that decode images not held in memory."),
    click.option("--in-memory", default="auto", show_default=True, help="Hold decoded images: auto, yes or no."),
    click.option("--checkpoint-every", type=float, default=15.0, show_default=True, help="Seconds."),
    click.option("--inexact", is_flag=True, help="Go on with other threads, processes or versions than begun with."),
)  # fmt: skip


def _training_options(command: Command) -> Command:
    for option in reversed(_TRAINING_OPTIONS):
        command = option(command)
    return command


_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def _seconds(text: str | None) -> float:
    """A length of time such as 20m, 1h30m, 90s or 90, in seconds; 0 for None."""
    if text is None:
        return 0.0
    found = _TIME.fullmatch(text.strip().lower())
    parts = [float(part or 0) for part in found.groups()] if found else [0.0]
    seconds = sum(part * size for part, size in zip(parts, (3600, 60, 1), strict=False))
    if seconds <= 0:
        raise InvalidInput(f"--time must be a length such as 20m, 1h30m or 90s, got {text!r}")
    return seconds


def _run(
    dataset: Dataset, architecture: Architecture, options: Mapping[str, Any], scaling: dict[str, Any] | None
) -> tuple[Record, str]:
    """Trains and gives back the record and the run folder."""
    from pathlib import Path

    from trifold.train.progress import progress_bar
    from trifold.train.recipes import find_recipe
    from trifold.train.record import Plan, asked, run_id
    from trifold.train.run import train
    from trifold.weights.loading import pretrained

    if options["time"] is not None and options["epochs"] is not None:
        raise InvalidInput("--time plans the epochs; give --epochs or --time, not both")
    recipe = find_recipe(options["recipe"], architecture, recipe_changes(options))
    begin_with = None if options["weights"] is None else pretrained(options["weights"])
    plan = Plan(
        architecture=architecture,
        recipe=recipe,
        seed=options["seed"],
        split_seed=options["split_seed"],
        seconds=_seconds(options["time"]),
        weights="" if begin_with is None else begin_with.digest,
        find_lr=options["find_lr"],
    )
    run = run_id(asked(plan, dataset.fingerprint))
    name = Path(dataset.name).resolve().name if "/" in dataset.name else dataset.name
    folder = options["out"] or str(Path("runs") / f"{file_name(name)}-{file_name(architecture.name)}-{run[:8]}")
    _say_recipe(recipe, architecture)
    with progress_bar() as progress:
        record = train(
            dataset,
            plan,
            run_folder=folder,
            machine=_machine(options),
            overwrite=options["overwrite"],
            pretrained=begin_with,
            scaling=scaling,
            progress=progress,
        )
    return record, folder


def _machine(options: Mapping[str, Any]) -> Machine:
    from trifold.train.machine import Machine

    return Machine(
        threads=options["threads"],
        workers=options["workers"],
        device=options["device"],
        in_memory=options["in_memory"],
        checkpoint_seconds=options["checkpoint_every"],
        inexact=options["inexact"],
        began=click.get_current_context().find_root().meta.get(BEGAN, 0.0),
    )


def _say_recipe(recipe: Recipe, architecture: Architecture) -> None:
    """Says on stderr which recipe it is and what it changes of its base."""
    from trifold.train.recipe import difference
    from trifold.train.recipes import base_of

    if is_first():
        changes = [
            f"{name} {value} (not {before})"
            for name, before, value in difference(recipe, base_of(recipe, architecture))
        ]
        click.echo(f"recipe {recipe.name}" + (f" with {', '.join(changes)}" if changes else ""), err=True)


@click.command()
@click.argument("data")
@click.option("--budget", required=True, help="Limits, such as multiply-adds=4M,params=500k,size=2MB.")
@click.option("--net", help="Baseline to scale  [efficientnet_mini for images up to 64 pixels, else efficientnet_b0].")
@click.option("--fill-width", is_flag=True, help="Spend what rounding leaves of the budget on width.")
@rule_options
@_training_options
@json_option
def fit(data: str, budget: str, net: str | None, fill_width: bool, as_json: bool, **options: Any) -> None:
    """Scale a network to a budget and train it on DATA (a folder with one subfolder a class, or `digits`)."""
    from dataclasses import replace

    from trifold.baselines import load
    from trifold.budget import fit as largest
    from trifold.budget import parse_budget
    from trifold.train.fit import SMALL_NETWORK, default_network, describe

    limits = parse_budget(budget)
    coefficients = coefficients_of(options)
    dataset = open_images(data, skip_bad=options["skip_bad"])
    candidates = [net] if net else list(dict.fromkeys((default_network(dataset), SMALL_NETWORK)))
    for name in candidates:
        baseline, family = load(name)
        try:
            found = largest(
                baseline,
                limits,
                coefficients,
                rounding=rounding_of(options, family),
                num_classes=len(dataset.classes),
                in_channels=dataset.in_channels,
                fill_width=fill_width,
            )
            break
        except ImpossibleBudget as error:
            if name == candidates[-1]:
                raise
            click.echo(f"{name}: {error}; trying {candidates[-1]}", err=True)
    if not as_json and is_first():
        click.echo(
            f"{baseline.name} at phi {found.phi:g}: {found.architecture.num_blocks} blocks,"
            f" {found.architecture.resolution} pixels, {found.cost.parameters:,} parameters,"
            f" {found.cost.multiply_adds:,} multiply-adds; binding: {' and '.join(found.binding).replace('_', '-')}"
        )
    scaled = replace(found.architecture, name=f"{baseline.name}-scaled"[:100])
    _report(*_run(dataset, scaled, options, describe(found)), as_json=as_json)


@click.command()
@click.argument("data")
@click.option("--net", required=True, help="The network, by name or .toml file, as it is.")
@click.option("--resolution", type=int, help="Train at this resolution in place of the network's own.")
@_training_options
@json_option
def train(data: str, net: str, resolution: int | None, as_json: bool, **options: Any) -> None:
    """Train a network on DATA without scaling it."""
    from dataclasses import replace

    from trifold.baselines import load

    architecture, _ = load(net)
    if resolution is not None:
        architecture = replace(architecture, resolution=resolution)
    dataset = open_images(data, skip_bad=options["skip_bad"])
    _report(*_run(dataset, architecture, options, None), as_json=as_json)


def _report(record: Record, folder: str, *, as_json: bool) -> None:
    """What a training came to; for the paper's transfer sets, beside its Table 5."""
    from trifold.paper import transfer
    from trifold.published import TRANSFER_SETS

    if not is_first():
        return
    if as_json:
        print_json({"run": folder, **record.to_dict()})
        return
    result = record.result
    low, high = result.test.interval
    if result.note:
        click.echo(f"{result.data}: {result.note}")
    click.echo(
        f"test accuracy {record.accuracy:.2%} ({result.test.correct} of {result.test.total}; 95 % interval"
        f" {low:.1%} to {high:.1%}); one seed: a smoke test, not a comparison"
    )
    click.echo(
        f"three nearest neighbours on the same split {result.nearest.accuracy:.2%};"
        f" weights of epoch {result.epoch} of {result.epochs}, chosen on minival"
        f" ({result.minival_accuracy:.2%}); {result.seconds:.0f} s, {result.waiting:.1%} of it waiting for images"
    )
    measured = {name: result.quality[name] for name in ("top5", "balanced_accuracy", "macro_f1", "calibration_error")}
    shown = (f"{name.replace('_', ' ')} {value:.2%}" for name, value in measured.items() if value is not None)
    click.echo("on test " + ", ".join(shown))
    if result.loaded:
        begun = len(result.loaded["loaded"])
        click.echo(f"begun with {begun} of {begun + len(result.loaded['initial'])} tensors pretrained")
    click.echo(f"run folder: {folder} (open its report.html)")
    known = result.data.partition(":")[0]
    if known in TRANSFER_SETS:
        print_table(transfer(known, 100 * record.accuracy))


@click.command()
@click.argument("run")
@click.argument("images", nargs=-1, required=True)
@click.option("--top", default=5, show_default=True, help="How many classes.")
@json_option
def predict(run: str, images: tuple[str, ...], top: int, as_json: bool) -> None:
    """Print the most probable classes of each image file, by a run's network."""
    from dataclasses import asdict

    from trifold.train.use import predict as predicted

    predictions = predicted(run, images, top=top)
    if as_json:
        print_json([asdict(prediction) for prediction in predictions])
        return
    for prediction in predictions:
        ranked = ", ".join(f"{name} {chance:.1%}" for name, chance in prediction.ranked)
        click.echo(f"{prediction.path}: {ranked}")
