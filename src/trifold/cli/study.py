"""Commands of the studies: the search for coefficients, the comparison of dimensions, and their pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from trifold.cli.directions import grid_options, grid_plan, print_plan
from trifold.cli.options import (
    Command,
    json_option,
    labelled,
    print_json,
    print_table,
    recipe_changes,
    rounding_of,
    rounding_options,
)
from trifold.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from trifold.architecture import Architecture
    from trifold.claimed import Common
    from trifold.data.dataset import Dataset
    from trifold.report.study_contents import Table
    from trifold.scaling import Coefficients
    from trifold.study.ablation import Ablation
    from trifold.study.coefficients import Search
    from trifold.study.comparison import Comparison
    from trifold.study.directions import Plan
    from trifold.study.run import Study
    from trifold.train.assemble import Progress
    from trifold.train.recipe import Recipe
    from trifold.trials import Job, Storage, Trained

Planned = TypeVar("Planned")
Asked = TypeVar("Asked", bound="Study")

SEEDS = click.IntRange(1, 100)

STUDY_OPTIONS = (
    click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field of the recipe."),
    click.option("--epochs", type=int, help="Short for --set epochs=N."),
    click.option("--split-seed", default=0, show_default=True, help="Of the split that all trainings share."),
    click.option("--skip-bad", is_flag=True, help="Leave bad images out, named and counted, instead of stopping."),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of torch, in each training."),
    click.option("--inexact", is_flag=True, help="Go on with trainings begun with other threads or versions."),
    click.option("--storage", help="Optuna's storage, which several workers may share  [sqlite in --out]."),
    click.option("--name", default="study", show_default=True, help="Of the study in the storage."),
    click.option("--runs", type=click.Path(file_okay=False), help="Of run folders; studies may share it  [in --out]."),
    click.option("--plan", "only_plan", is_flag=True, help="Print what would be trained, with the hours, and stop."),
    click.option("--collect", is_flag=True, help="Train nothing: collect what is finished, and report."),
)  # fmt: skip


def study_options(command: Command, *, recipe: str = "small") -> Command:
    """Adds the options that all studies share. recipe: the one that is taken where none is named."""
    how = click.option("--recipe", default=recipe, show_default=True, help="How to train: as for `trifold train`.")
    for option in reversed((how, *STUDY_OPTIONS)):
        command = option(command)
    return command


@click.command()
@click.argument("net")
@click.argument("data")
@grid_options
@click.option(
    "--seeds", type=SEEDS, default=3, show_default=True, help="Of the candidates that go on to the second round."
)
@click.option("--keep-weak", is_flag=True, help="Stop no training early.")
@click.option("--finish-stopped", is_flag=True, help="Finish at last what was stopped early, and say what it changes.")
@study_options
@click.option("--out", default="studies/coefficients", show_default=True, help="Folder of the study.")
@json_option
def coefficients(net: str, data: str, as_json: bool, **options: Any) -> None:
    """Find alpha, beta and gamma for NET on DATA: the paper's small grid search, at equal real cost, with seeds.

    Every candidate is trained once, then the best quarter with the other seeds; a weak first training is stopped early.
    The same command goes on where it was stopped; given again elsewhere with the same --storage, it shares the work.
    """
    done = coefficients_for(net, data, options, as_json=as_json)
    if done is None:
        return
    from dataclasses import asdict

    from trifold.study.coefficients import answer
    from trifold.study.directions import plan_to_dict

    study, found = done
    reached = answer(study, found)
    if as_json:
        print_json({**plan_to_dict(study.directions), "answer": asdict(reached)})
        return
    from trifold.study.search_page import search_notes, sentence, standings

    if reached.choice is not None:
        title = f"{reached.trained} trainings; the full grid has {reached.full}"
        print_sortable(title, standings(study, reached))
    for line in (sentence(study, reached), *search_notes(study, reached)):
        click.echo(line)


def coefficients_for(
    net: str, data: str, options: Mapping[str, Any], *, as_json: bool
) -> tuple[Search, Mapping[Job, Trained]] | None:
    """Plans and runs the search for alpha, beta, gamma; None where only its plan was asked for."""
    from trifold.study.directions import most_trainings, plan_to_dict

    recipe = recipe_of(net, options)

    def planned(classes: int, channels: int, images: int | None) -> tuple[Architecture, Plan]:
        architecture, plan = grid_plan(net, classes, channels, options)
        if not as_json:
            print_plan(architecture, plan, options["factor"])
            count = len(plan.candidates)
            most = most_trainings(count, options["seeds"])
            mean = sum(one.cost.multiply_adds for one in plan.candidates) / count
            print_hours(most, most * mean, recipe, images, f"the full grid has {count * options['seeds']}")
        elif options["only_plan"]:
            print_json(plan_to_dict(plan))
        return architecture, plan

    def make(plan: tuple[Architecture, Plan], common: Common, _: Dataset) -> Search:
        from trifold.study.coefficients import Search

        return Search(
            baseline=plan[0],
            directions=plan[1],
            common=common,
            seeds=options["seeds"],
            stops=not options["keep_weak"],
            finish=options["finish_stopped"],
        )

    return go(planned, make, data, recipe, options)


@click.command()
@click.argument("net")
@click.argument("data")
@click.option("--factors", default="2,4,8", show_default=True, help="Of NET's multiply-adds, to compare at.")
@click.option("--kinds", default="depth,width,resolution,compound,fast", show_default=True, help="Rules to compare.")
@click.option("--found", help="Your own alpha,beta,gamma, to compare as well.")
@click.option("--widths", help="Also these widths under four depths and resolutions (Figure 4), as 1,1.4,2.")
@click.option("--sweep-depth", default=2.0, show_default=True, help="Depth of the sweep of --widths.")
@click.option("--sweep-resolution", default=1.3, show_default=True, help="Resolution of the sweep of --widths.")
@rounding_options
@click.option("--seeds", type=SEEDS, default=3, show_default=True, help="Of every network.")
@study_options
@click.option("--out", default="studies/ablation", show_default=True, help="Folder of the study.")
@json_option
def ablate(net: str, data: str, as_json: bool, **options: Any) -> None:
    """Compare depth, width, resolution and compound scaling of NET on DATA at equal real cost, with seeds.

    The same command goes on where it was stopped; given again elsewhere with the same --storage, it shares the work.
    """
    done = compared_for(net, data, options, as_json=as_json)
    if done is None:
        return
    from trifold.study.ablation import findings

    study, found = done
    reached = findings(study, found)
    if as_json:
        from dataclasses import asdict

        from trifold.study.comparison import comparison_to_dict

        print_json({**comparison_to_dict(study.comparison), "numbers": study.numbers, "findings": asdict(reached)})
        return
    from trifold.study.ablation_page import ablation_notes, compared, differences, said

    print_sortable(f"{reached.trained} of {reached.full} trainings", compared(study, reached))
    if reached.differences:
        print_sortable("differences on test, in points", differences(reached))
    for line in (said(reached), *ablation_notes(study, reached, found)):
        click.echo(line)


def compared_for(
    net: str, data: str, options: Mapping[str, Any], *, as_json: bool
) -> tuple[Ablation, Mapping[Job, Trained]] | None:
    """Plans and runs the comparison; None where only its plan was asked for."""
    from trifold.study.comparison import comparison_to_dict, different

    recipe = recipe_of(net, options)

    def planned(classes: int, channels: int, images: int | None) -> Comparison:
        comparison = _comparison(net, classes, channels, options)
        if not as_json:
            from trifold.cost import cost

            _print_comparison(comparison)
            networks, seeds = different(comparison), options["seeds"]
            spent = sum(cost(one, num_classes=classes, in_channels=channels).multiply_adds for one in networks)
            print_hours(seeds * len(networks), seeds * spent, recipe, images, f"{len(networks)} networks")
        elif options["only_plan"]:
            print_json(comparison_to_dict(comparison))
        return comparison

    def make(comparison: Comparison, common: Common, _: Dataset) -> Ablation:
        from trifold.study.ablation import Ablation

        return Ablation(comparison=comparison, common=common, seeds=options["seeds"])

    return go(planned, make, data, recipe, options)


@click.command()
@click.argument("folder", type=click.Path())
def report(folder: str) -> None:
    """Make the page of the study in FOLDER anew, from its study.json and records.jsonl alone."""
    from trifold.study.page import draw

    click.echo(f"report: {draw(folder)}")


def recipe_of(net: str, options: Mapping[str, Any]) -> Recipe:
    """The recipe that --recipe names, with what --set and --epochs change."""
    from trifold.baselines import load
    from trifold.train.recipes import find_recipe

    return find_recipe(options["recipe"], load(net)[0], recipe_changes(options))


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InvalidInput(f"--{option} must be numbers with commas between them, got {text!r}") from None


def _kinds(options: Mapping[str, Any]) -> dict[str, Coefficients]:
    from trifold.scaling import RULES, Coefficients
    from trifold.study.comparison import FOUND

    kinds = {}
    for name in filter(None, (part.strip() for part in options["kinds"].split(","))):
        if name not in RULES or name in kinds:
            known = ", ".join(RULES)
            raise InvalidInput(f"--kinds must be some of {known}, each once, with commas between them, got {name!r}")
        kinds[name] = RULES[name]
    if options["found"] is not None:
        values = _numbers("found", options["found"])
        if len(values) != 3:
            raise InvalidInput(f"--found must be alpha,beta,gamma, got {options['found']!r}")
        kinds[FOUND] = Coefficients(alpha=values[0], beta=values[1], gamma=values[2])
    return kinds


def _comparison(net: str, classes: int, channels: int, options: Mapping[str, Any]) -> Comparison:
    from dataclasses import replace

    from trifold.baselines import load
    from trifold.study.comparison import compare, width_sweep

    architecture, family = load(net)
    rounding = rounding_of(options, family)
    comparison = compare(
        architecture, _numbers("factors", options["factors"]), _kinds(options), rounding=rounding, num_classes=classes,
        in_channels=channels,
    )  # fmt: skip
    if options["widths"] is None:
        return comparison
    swept = width_sweep(
        architecture, _numbers("widths", options["widths"]), depth=options["sweep_depth"],
        resolution=options["sweep_resolution"], rounding=rounding, num_classes=classes, in_channels=channels,
    )  # fmt: skip
    return replace(comparison, points=(*comparison.points, *swept))


def _print_comparison(comparison: Comparison) -> None:
    from trifold.study.directions import EQUAL

    rows = []
    for one in comparison.points:
        net, cost = one.candidate.architecture, one.candidate.cost
        adjusted = one.candidate.width_adjustment
        off = "-" if one.sweep else f"{100 * one.candidate.off:+.1f}"
        sizes = (net.num_blocks, net.stem.channels, net.resolution, cost.parameters, cost.multiply_adds)
        rows.append((one.kind, one.factor, *sizes, off, None if adjusted == 1 else adjusted))
    base = comparison.baseline
    title = f"{base.architecture.name}: {base.cost.multiply_adds:,} multiply-adds; equal cost is within {EQUAL:.0%}"
    columns = (
        "scaled", "times", "layers", "stem", "resolution", "parameters", "multiply_adds", "off_%", "width_x"
    )  # fmt: skip
    print_table(labelled(title, columns, rows))
    for kind, factor, nearest in comparison.unreachable:
        click.echo(f"no network of that cost, even with its width adjusted: {kind} at {factor:g} ({nearest:+.1%})")


def print_hours(trainings: int, multiply_adds: float, recipe: Recipe, images: int | None, beside: str) -> None:
    """How many trainings there are, and about how long they take where the number of images is known.

    multiply_adds: of one image of each training, summed.
    """
    from trifold.study.hours import about, training_seconds

    line = f"{trainings} trainings of {recipe.epochs} epochs ({beside})"
    if images is not None:
        mean = training_seconds(multiply_adds / trainings, images=images, epochs=recipe.epochs)
        line += f": about {about(trainings * mean)} of one thread"
    click.echo(line)


def print_sortable(title: str, table: Table) -> None:
    """A page's table on the terminal."""
    columns = tuple(name.replace(", ", "_") for name in table.columns)
    print_table(labelled(title, columns, [tuple(cell.shown for cell in row) for row in table.rows]))


def go(
    planned: Callable[[int, int, int | None], Planned],
    make: Callable[[Planned, Common, Dataset], Asked],
    data: str,
    recipe: Recipe,
    options: Mapping[str, Any],
    *,
    weights: Mapping[str, Path] | None = None,
) -> tuple[Asked, Mapping[Job, Trained]] | None:
    """Plans the study, and runs or only collects it; None where only its plan was asked for.

    planned: given classes, channels and about how many images train, says what is to be trained; called before torch is
    loaded where a first look at the data is enough, and again where that look was wrong. weights: as for `run_study`.
    """
    from pathlib import Path

    from trifold.data.glimpse import glimpse

    seen = glimpse(data)
    plan = None if seen is None else planned(seen.classes, seen.channels, seen.images)
    if options["only_plan"] and plan is not None:
        return None
    from trifold.claimed import Common
    from trifold.data.sources import open_data
    from trifold.study.folder import open_in, write_study
    from trifold.study.run import run_study
    from trifold.train.machine import Machine
    from trifold.trials import finished, load_study

    storage = storage_of(options)
    dataset = open_data(data, skip_bad=options["skip_bad"])
    common = Common(
        recipe=recipe,
        split_seed=options["split_seed"],
        data=dataset.fingerprint,
        classes=len(dataset.classes),
        channels=dataset.in_channels,
    )
    if plan is None or seen is None or (seen.classes, seen.channels) != (common.classes, common.channels):
        plan = planned(common.classes, common.channels, None if seen is None else seen.images)
    if options["only_plan"]:
        return None
    study = make(plan, common, dataset)
    folder = Path(options["out"])
    about = {"data": dataset.name, "command": command_of(storage)}
    if options["collect"]:
        trials = load_study(storage, study.question)
        write_study(folder, study.question, about)
        found: Mapping[Job, Trained] = finished(trials)
    else:
        trials = open_in(folder, storage, study.question, pruner=study.pruner)
        write_study(folder, study.question, about)
        machine = Machine(threads=options["threads"], inexact=options["inexact"])
        found = run_study(
            study,
            dataset,
            trials,
            folder=folder,
            runs=runs_of(options),
            weights=weights,
            machine=machine,
            shown=_shown(study, folder),
        )
    click.echo(f"report: {_report(folder, found)}", err=True)
    return study, found


def storage_of(options: Mapping[str, Any]) -> Storage:
    """The storage that the options name; a file in --out where they name none."""
    from pathlib import Path

    from trifold.study.folder import TRIALS
    from trifold.trials import Storage

    name, url = options["name"], options["storage"]
    if not (name.isprintable() and 1 <= len(name) <= 100):
        raise InvalidInput(f"--name must be 1 to 100 printable characters, got {name!r:.120}")
    if url is None:
        if set(options["out"]) & set("?#%"):
            raise InvalidInput(f"--out must not have ?, # or % in its name, got {options['out']!r}")
        url = f"sqlite:///{(Path(options['out']) / TRIALS).resolve()}"
    return Storage(url=url, name=name)


def runs_of(options: Mapping[str, Any]) -> Path | None:
    """Where the run folders lie, if the options name a place."""
    from pathlib import Path

    return None if options["runs"] is None else Path(options["runs"])


def command_of(storage: Storage) -> str:
    """The command that this process was given, as it trains, and without a password."""
    import shlex
    import sys

    from trifold.trials import shown

    words = [word for word in sys.argv[1:] if word not in ("--collect", "--json")]
    return shlex.join(["trifold", *words]).replace(storage.url, shown(storage))


def _report(folder: Path, found: Mapping[Job, Trained]) -> Path:
    """Writes a study's records and its page."""
    from trifold.study.folder import write_records
    from trifold.study.page import draw

    write_records(folder, found)
    return draw(folder)


def _shown(
    study: Study, folder: Path
) -> Callable[[Job, Mapping[Job, Trained]], AbstractContextManager[Progress | None]]:
    """Reports what is finished, says on stderr which training begins and how long all may take, shows its progress."""

    def begin(job: Job, found: Mapping[Job, Trained]) -> AbstractContextManager[Progress | None]:
        from trifold.report.markup import duration
        from trifold.train.progress import progress_bar

        _report(folder, found)
        took, left = [one.facts["seconds"] for one in found.values()], study.to_come(found)
        click.echo(
            f"training {len(found) + 1} of {len(found) + left}: {study.names[job[0]]}, seed {job[1]}"
            + (f"; {duration(left * sum(took) / len(took))} left on one worker" if took else ""),
            err=True,
        )
        return progress_bar()

    return begin
