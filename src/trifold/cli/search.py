"""The command that searches for an architecture, and trains what it found beside what it must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from trifold.cli.options import Command, json_option, labelled, print_json, print_table, rounding_of, rounding_options
from trifold.cli.study import SEEDS, command_of, print_sortable, recipe_of, runs_of, storage_of, study_options
from trifold.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from trifold.data.dataset import Dataset
    from trifold.data.glimpse import Glimpse
    from trifold.search.reward import Limit, Target
    from trifold.search.space import Measure, Space
    from trifold.search.survey import Survey
    from trifold.study.searched import Searched
    from trifold.study.whole import Sitting
    from trifold.train.assemble import Progress
    from trifold.train.recipe import Recipe

SAMPLERS = ("random", "evolution", "policy", "tpe")
EVALUATORS = ("training", "supernet")

_SEARCH_OPTIONS = (
    click.option("--baseline", default="mobilenet_v2", show_default=True, help="The network to search around."),
    click.option("--space", "space_file", help="A TOML file of options for each stage  [MnasNet's]."),
    click.option(
        "--target", "targets", multiple=True, metavar="COST=VALUE[:W]", help="Weigh accuracy by (COST/VALUE)^W."
    ),
    click.option("--hard", is_flag=True, help="Targets in the hard form: 0 below VALUE, -1 above."),
    click.option("--limit", "limits", multiple=True, metavar="COST=MOST", help="Reject what costs more, untrained."),
    click.option("--measure", "measures", multiple=True, metavar="COST=MODULE:FUNCTION", help="A cost of your own."),
    click.option(
        "--sampler", type=click.Choice(SAMPLERS), default="evolution", show_default=True, help="Who proposes."
    ),
    click.option(
        "--evaluator", type=click.Choice(EVALUATORS), default="training", show_default=True, help="Who judges."
    ),
    click.option("--candidates", type=click.IntRange(1, 100_000), default=100, show_default=True, help="To evaluate."),
    click.option("--short-epochs", type=click.IntRange(1), default=2, show_default=True, help="Of a short training."),
    click.option("--search-seed", type=click.IntRange(0), default=0, show_default=True, help="Of sampler and weights."),
    click.option("--no-random", is_flag=True, help="No random search with the same compute beside it."),
    click.option("--no-full", is_flag=True, help="Train nothing in full afterwards."),
    click.option("--finalists", type=click.IntRange(1, 50), default=3, show_default=True, help="Trained in full."),
    click.option("--seeds", type=SEEDS, default=3, show_default=True, help="Of each finalist and baseline."),
    click.option(
        "--sample", type=click.IntRange(0, 1000), default=10, show_default=True, help="For the rank correlation."
    ),
)


def search_options(command: Command) -> Command:
    """Adds the options that say what is searched and how it is judged; `searched_for` reads them."""
    for option in reversed(_SEARCH_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("data")
@search_options
@rounding_options
@study_options
@click.option("--out", default="studies/search", show_default=True, help="Folder of the search.")
@json_option
def search(data: str, as_json: bool, **options: Any) -> None:
    """Find an architecture for DATA: a baseline's operators, kernels, widths and depths, under the paper's reward.

    Candidates are judged by short trainings (--short-epochs) or a weight-sharing supernet; then the best ones, random
    search's best and the baseline at the same cost are trained in full (--epochs), with seeds. COST is multiply-adds,
    parameters, activations or a --measure. The same command goes on where it was stopped; given again elsewhere with
    the same --storage, it shares the work.
    """
    done = searched_for(data, options, as_json=as_json)
    if done is not None:
        _tell(done, options["out"], as_json=as_json)


def searched_for(data: str, options: Mapping[str, Any], *, as_json: bool) -> Searched | None:
    """Plans the search, and runs or only collects it; None where only its plan was asked for."""
    from trifold.data.glimpse import glimpse

    seen = glimpse(data)
    recipe = recipe_of(options["baseline"], options)
    plan = None if seen is None else _plan(seen, recipe, options, as_json=as_json)
    if options["only_plan"] and plan is not None:
        return None
    from trifold.data.sources import open_data

    dataset = open_data(data, skip_bad=options["skip_bad"])
    classes, channels = len(dataset.classes), dataset.in_channels
    if plan is None or seen is None or (seen.classes, seen.channels) != (classes, channels):
        from trifold.data.glimpse import Glimpse

        plan = _plan(Glimpse(classes, channels, len(dataset.samples)), recipe, options, as_json=as_json)
    if options["only_plan"]:
        return None
    sitting = _sitting(plan, dataset, recipe, options)
    about = {"data": dataset.name, "command": command_of(sitting.storage)}
    return sitting.collect(about) if options["collect"] else sitting.go(about)


class _Plan(NamedTuple):
    """What a search asks, as far as it is known without torch; own: the user's measures."""

    space: Space
    targets: tuple[Target, ...]
    limits: tuple[Limit, ...]
    own: Mapping[str, Measure]


def _plan(seen: Glimpse, recipe: Recipe, options: Mapping[str, Any], *, as_json: bool) -> _Plan:
    """The space and the reward, printed with what they leave and about how long the search takes."""
    from trifold.baselines import load
    from trifold.search.space import around, read, size
    from trifold.search.survey import measures_of, survey

    baseline, family = load(options["baseline"])
    rounding = rounding_of(options, family)
    named = options["space_file"]
    space = around(baseline, rounding=rounding) if named is None else read(named, baseline, rounding)
    targets = tuple(_target(text, hard=options["hard"]) for text in options["targets"])
    limits = tuple(_limit(text) for text in options["limits"])
    own = dict(_own_measure(text) for text in options["measures"])
    looked = survey(space, targets, limits, measures_of(seen.classes, seen.channels, own))
    if as_json and options["only_plan"]:
        print_json(
            {
                "choices": size(space).choices,
                "networks": size(space).networks,
                "spans": looked.spans,
                "share": looked.share,
            }
        )
    elif not as_json:
        _print_plan(space, looked, seen, recipe, options)
    return _Plan(space, targets, limits, own)


def _print_plan(space: Space, looked: Survey, seen: Glimpse, recipe: Recipe, options: Mapping[str, Any]) -> None:
    from trifold.cost import cost
    from trifold.search.space import size
    from trifold.study.hours import about, training_seconds

    counted = size(space)
    title = f"{space.baseline.name}: {counted.choices:,} choices, {counted.networks:,} different networks"
    rows = [(name, low, high) for name, (low, high) in looked.spans.items()]
    print_table(labelled(title, ("cost", "least", "most"), rows, digits=0))
    if options["limits"]:
        click.echo(f"{looked.share:.1%} of random choices are within the limits; the others are never trained")
    count = options["candidates"]

    def hours(multiply_adds: float, epochs: int) -> float:
        return training_seconds(multiply_adds, images=seen.images, epochs=epochs)

    searches = 1 if options["no_random"] else 2
    each = hours(looked.mean, options["short_epochs"])
    line = f"{count} candidates of {options['short_epochs']} epochs"
    if options["evaluator"] == "supernet":
        line, searches = f"{count} candidates of one shared network of {options['short_epochs']} epochs", 1
        least, most = looked.spans["multiply_adds"]
        each = hours(most + least + 2 * looked.mean, options["short_epochs"]) / count  # four networks a step
    line += f": about {about(count * each * searches)} of one thread"
    line += ", random search with the same compute included" if searches == 2 else ""
    click.echo(line)
    if not options["no_full"]:
        own = cost(space.baseline, num_classes=seen.classes, in_channels=seen.channels).multiply_adds
        trainings = (searches + 1) * options["finalists"] * options["seeds"] + options["sample"]
        full = trainings * hours(min(looked.mean, own) if options["targets"] else looked.mean, recipe.epochs)
        click.echo(
            f"then at most {trainings} full trainings of {recipe.epochs} epochs: about {about(full)} of one thread"
        )


def _target(text: str, *, hard: bool) -> Target:
    from trifold.search import reward

    name, value, weight = _parts("target", text)
    if hard and weight is not None:
        raise InvalidInput(f"--target {text}: must have no weight with --hard, which has 0 and -1, got {weight:g}")
    if hard:
        return reward.hard(name, value)
    own = reward.WEIGHT if weight is None else weight
    return reward.Target(measure=name, value=value, below=own, above=own)


def _limit(text: str) -> Limit:
    from trifold.search.reward import Limit

    name, value, weight = _parts("limit", text)
    if weight is not None:
        raise InvalidInput(f"--limit must have the form COST=MOST, got {text!r}")
    return Limit(measure=name, most=value)


UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}


def _parts(option: str, text: str) -> tuple[str, float, float | None]:
    """COST=VALUE[:W], the value perhaps with k, M or G."""
    name, sign, rest = text.partition("=")
    number, colon, weight = rest.partition(":")
    try:
        if not (name.strip() and sign):
            raise ValueError
        scale = UNITS.get(number.strip()[-1:], 1.0)
        value = float(number.strip().rstrip("kMG") if scale != 1 else number) * scale
        return name.strip().replace("-", "_"), value, float(weight) if colon else None
    except ValueError:
        form = "COST=VALUE[:W]" if option == "target" else "COST=MOST"
        raise InvalidInput(f"--{option} must have the form {form}, as multiply-adds=400M, got {text!r}") from None


def _own_measure(text: str) -> tuple[str, Measure]:
    """COST=MODULE:FUNCTION, imported from here or anywhere Python finds modules."""
    import importlib
    import sys
    from pathlib import Path

    name, sign, path = text.partition("=")
    module, colon, function = path.partition(":")
    if not (name.strip() and sign and module and colon and function):
        raise InvalidInput(f"--measure must have the form COST=MODULE:FUNCTION, got {text!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InvalidInput(f"--measure {text}: cannot be had: {error}") from None
    if not callable(found):
        raise InvalidInput(f"--measure {text}: must be a function of an Architecture, got {found!r:.60}")
    return name.strip().replace("-", "_"), found


def _sitting(plan: _Plan, dataset: Dataset, recipe: Recipe, options: Mapping[str, Any]) -> Sitting:
    """What this worker does of the search."""
    from dataclasses import replace
    from pathlib import Path

    from trifold.claimed import Common
    from trifold.search.question import Search
    from trifold.search.survey import measures_of
    from trifold.study.contest import Rules
    from trifold.study.searched import Extent
    from trifold.study.whole import Sitting
    from trifold.train.machine import Machine

    epochs = options["short_epochs"]
    short = replace(recipe, epochs=epochs, warmup_epochs=min(recipe.warmup_epochs, epochs / 2))
    common = Common(
        recipe=short,
        split_seed=options["split_seed"],
        data=dataset.fingerprint,
        classes=len(dataset.classes),
        channels=dataset.in_channels,
    )
    rules = Rules(finalists=options["finalists"], seeds=options["seeds"], sample=options["sample"])
    return Sitting(
        search=Search(
            space=plan.space,
            targets=plan.targets,
            limits=plan.limits,
            sampler=options["sampler"],
            evaluator=options["evaluator"],
            common=common,
            seed=options["search_seed"],
        ),
        extent=Extent(
            candidates=options["candidates"],
            beside=not options["no_random"],
            rules=None if options["no_full"] else rules,
            recipe=recipe,
        ),
        dataset=dataset,
        storage=storage_of(options),
        folder=Path(options["out"]),
        runs=runs_of(options),
        measures=measures_of(common.classes, common.channels, plan.own),
        machine=Machine(threads=options["threads"], inexact=options["inexact"]),
        say=_say,
    )


def _say(line: str) -> AbstractContextManager[Progress | None]:
    from trifold.train.progress import progress_bar

    click.echo(line, err=True)
    return progress_bar()


def _tell(done: Searched, out: str, *, as_json: bool) -> None:
    """The answer, with the networks trained in full and the front."""
    from trifold.study.architecture_page import answered, architecture_notes, contested, differences, front_table

    click.echo(f"report: {out}/report.html; the network found: {out}/found.toml", err=True)
    reached = done.outcome
    if as_json:
        from dataclasses import asdict

        from trifold.architecture import to_dict

        chosen = done.chosen
        print_json(
            {
                "answer": answered(done),
                "found": None if chosen is None else to_dict(chosen),
                "candidates": [
                    {"candidate": number, "accuracy": None, "reward": None, "failed": one.failed, **one.facts}
                    if one.failed
                    else {"candidate": number, "reward": one.score, **one.facts}
                    for (number, _), one in done.found.items()
                ],
                "full": None if reached is None else asdict(reached),
            }
        )
        return
    print_sortable("the front", front_table(done))
    if done.contest is not None and reached is not None and reached.measured:
        print_sortable("trained in full", contested(done, done.contest, reached))
        if reached.differences:
            print_sortable("differences on test, in points", differences(reached))
    for line in (answered(done), *architecture_notes(done)):
        click.echo(line)
