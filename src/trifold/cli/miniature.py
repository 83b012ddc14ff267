"""The command that runs the paper in miniature: search, coefficients, family and transfer, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trifold.cli.directions import grid_options
from trifold.cli.options import json_option, print_json
from trifold.cli.search import search_options, searched_for
from trifold.cli.study import coefficients_for, command_of, compared_for, storage_of, study_options
from trifold.cli.transfer import carry_over

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trifold.scaling import Coefficients, Rounding
    from trifold.study.miniature import Family, Miniature
    from trifold.study.searched import Searched


@click.command()
@click.argument("data")
@click.argument("other")
@search_options
@grid_options
@click.option("--factors", default="2,4", show_default=True, help="Sizes of the family, times the network found.")
@click.option("--kinds", default="compound", show_default=True, help="Rules beside the family's own, as in `ablate`.")
@click.option("--transfer-recipe", default="finetune", show_default=True, help="How to fine-tune on OTHER.")
@click.option("--transfer-set", multiple=True, metavar="FIELD=VALUE", help="Change a field of that recipe.")
@click.option("--transfer-epochs", type=int, help="Short for --transfer-set epochs=N.")
@study_options
@click.option("--out", default="studies/miniature", show_default=True, help="Folder of the four studies and the page.")
@json_option
def miniature(data: str, other: str, as_json: bool, **options: Any) -> None:
    """The paper in miniature: find a network on DATA, and its coefficients, scale it to a family, carry that to OTHER.

    The four studies of `trifold search`, `coefficients`, `ablate` and `transfer`, one after another, with one page over
    all. The same command goes on where it was stopped; given again elsewhere with the same --storage, it shares the
    work.
    """
    if options["only_plan"]:
        _print_plans(data, other, options)
        return
    from pathlib import Path

    from trifold.study.miniature import SEARCH, kept_miniature
    from trifold.study.miniature_page import miniature_notes, told
    from trifold.study.page import draw

    _begin(data, other, options)
    click.echo("1 of 4: search", err=True)
    searched = searched_for(data, _part(options, SEARCH), as_json=True)
    if searched is not None and not searched.to_come and searched.chosen is not None:
        _scale_and_carry(searched, data, other, options)
    draw(options["out"])
    done, about = kept_miniature(Path(options["out"])), {"data": data, "other": other}
    click.echo(f"report: {Path(options['out']) / 'report.html'}", err=True)
    if as_json:
        print_json(_plain(done, told(done, about)))
        return
    for line in (told(done, about), *miniature_notes(done)):
        click.echo(line)


def _part(options: Mapping[str, Any], name: str, **more: Any) -> dict[str, Any]:
    """A step's own options: its folder, its study in the storage, and the runs that all share."""
    from pathlib import Path

    out = Path(options["out"])
    runs = str(out / "runs") if options["runs"] is None else options["runs"]
    return {**options, "out": str(out / name), "runs": runs, "name": f"{options['name']}-{name}", **more}


def _begin(data: str, other: str, options: Mapping[str, Any]) -> None:
    """Refuses what would only be refused hours later, and makes the folder."""
    from pathlib import Path

    from trifold.data.glimpse import glimpse
    from trifold.study.folder import write_study

    glimpse(other)
    about = {"data": data, "other": other, "command": command_of(storage_of(options))}
    write_study(Path(options["out"]), {"kind": "miniature"}, about, renewed=True)


def _scale_and_carry(searched: Searched, data: str, other: str, options: Mapping[str, Any]) -> None:
    """The steps after the search, as far as each is finished; with --collect one may not be."""
    from pathlib import Path

    from trifold.study.miniature import FAMILY, MAPS, SEARCH, TRANSFER, Family, Grid, draw_maps
    from trifold.study.page import draw
    from trifold.study.whole import CHOSEN
    from trifold.trials import NoStudy

    out = Path(options["out"])
    rounded = _rounding(searched.search.space.rounding)
    net = str(out / SEARCH / CHOSEN)
    draw(out)
    try:
        click.echo("2 of 4: coefficients", err=True)
        grid = coefficients_for(net, data, _grid(options, **rounded), as_json=True)
        if grid is None or grid[0].to_come(grid[1]):
            return
        draw(out)
        click.echo("3 of 4: family", err=True)
        coefficients = Grid(*grid).coefficients
        assert coefficients is not None
        compared = compared_for(net, data, _family(options, rounded, coefficients), as_json=True)
        if compared is None or compared[0].to_come(compared[1]):
            return
        family = Family(*compared)
        if not options["collect"]:
            from trifold.data.sources import open_data

            dataset = open_data(data, skip_bad=options["skip_bad"])
            draw_maps(family, dataset, folder=out / FAMILY, path=out / MAPS)
        draw(out)
        click.echo("4 of 4: transfer", err=True)
        _carry(family, other, _part(options, TRANSFER), out / FAMILY)
    except NoStudy:
        return


def _grid(options: Mapping[str, Any], **rounded: Any) -> dict[str, Any]:
    """The options of the search for coefficients."""
    from trifold.study.miniature import COEFFICIENTS

    return _part(options, COEFFICIENTS, **rounded, keep_weak=False, finish_stopped=False)


def _family(options: Mapping[str, Any], rounded: Mapping[str, Any], found: Coefficients | None) -> dict[str, Any]:
    """The options of the comparison that the family is part of."""
    from trifold.study.miniature import FAMILY

    own = None if found is None else f"{found.alpha},{found.beta},{found.gamma}"
    return _part(options, FAMILY, **rounded, found=own, widths=None)


def _carry(family: Family, other: str, options: Mapping[str, Any], folder: Path) -> None:
    """The last step. folder: the comparison's, which run folders are found from."""
    own = {
        "recipe": options["transfer_recipe"],
        "changes": options["transfer_set"],
        "epochs": options["transfer_epochs"],
        "no_scratch": False,
    }
    carry_over(other, family.runs(folder), {**options, **own}, as_json=True)


def _rounding(rounding: Rounding) -> dict[str, Any]:
    """The search's rounding as options: the network found is a file, which has no family to take it from."""
    return {
        "divisor": rounding.divisor,
        "keep_ratio": rounding.keep_ratio,
        "depth_rounding": rounding.depth,
        "resolution_step": rounding.resolution_step,
        "fixed_ends": rounding.fixed_ends,
    }


def _print_plans(data: str, other: str, options: Mapping[str, Any]) -> None:
    """What each step would train; the later ones as for the baseline, as the network found is not known."""
    from trifold.study.miniature import SEARCH

    click.echo("1 of 4: search")
    searched_for(data, _part(options, SEARCH), as_json=False)
    click.echo("\n2 of 4: coefficients, for the baseline in place of the network found")
    coefficients_for(options["baseline"], data, _grid(options), as_json=False)
    click.echo("\n3 of 4: family, without its own rule, which step 2 finds")
    compared_for(options["baseline"], data, _family(options, {}, None), as_json=False)
    sizes = 1 + len(options["factors"].split(","))
    count = 2 * sizes * options["seeds"]
    click.echo(f"\n4 of 4: transfer to {other}: {sizes} networks, {count} trainings, half of them from random weights")


def _plain(done: Miniature, answer: str) -> dict[str, Any]:
    """What was found, for JSON."""
    from dataclasses import asdict

    from trifold.architecture import to_dict
    from trifold.study.ablation import findings
    from trifold.study.transfer import carried

    searched, grid, family, carriage = done.searched, done.grid, done.family, done.carriage
    outcome = None if searched is None else searched.outcome
    chosen = None if searched is None else searched.chosen
    coefficients = None if grid is None else grid.coefficients
    return {
        "answer": answer,
        "found": None if chosen is None else to_dict(chosen),
        "search": None if outcome is None else asdict(outcome),
        "coefficients": None if coefficients is None else asdict(coefficients),
        "sizes": None if family is None else family.sizes,
        "family": None if family is None else asdict(findings(*family)),
        "transfer": None if carriage is None else asdict(carried(*carriage)),
    }
