"""The command that draws where networks look: class activation maps side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trifold.cli.options import json_option, labelled, print_json, print_table
from trifold.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trifold.study.activation import ClassMap, Looker
    from trifold.table import Table


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="RUN... IMAGE...")
@click.option("--class", "name", help="Map this class in all panels  [the one each run finds most probable].")
@click.option("--out", default="cam.png", show_default=True, help="Where the picture goes, a .png file.")
@json_option
def cam(paths: tuple[str, ...], name: str | None, out: str, as_json: bool) -> None:
    """Draw what each place of an IMAGE adds to a class's logit, for each RUN (a folder), side by side."""
    from pathlib import Path

    from trifold.data.decode import printable

    for path in paths:
        if not Path(path).exists():
            raise InvalidInput(f"{printable(path)}: there is no such file or folder")
    picture = _picture_file(Path(out))
    from trifold.report.activation import draw_activation_maps
    from trifold.study.activation import figure_data, look, open_pictures, open_runs

    folders = [path for path in paths if Path(path).is_dir()]
    runs = open_runs(folders)
    images = open_pictures([path for path in paths if path not in folders])
    maps = look(runs, images, name=name)
    draw_activation_maps(figure_data(runs, images, maps), picture)
    found = [one for row in maps for one in row]
    if as_json:
        plain = {"runs": [_facts(run) for run in runs], "maps": [one.to_dict() for one in found]}
        print_json({"picture": str(picture), **plain})
        return
    print_table(_table(found))
    if len({run.trained.classes for run in runs}) > 1:
        click.echo("the runs have different classes: each map and probability is of a class of its own run")
    click.echo(f"maps: {picture}")


def _table(maps: Sequence[ClassMap]) -> Table:
    from trifold.data.decode import printable

    rows = [
        (
            printable(one.image),
            printable(one.run),
            printable(one.name),
            100 * one.probability,
            {True: "yes", False: "no", None: "not known"}[one.correct],
            None if one.concentration is None else 100 * one.concentration,
        )
        for one in maps
    ]
    columns = ("image", "run", "class", "probability %", "true class", "area of half the map %")
    return labelled("class activation maps", columns, rows, digits=1)


def _picture_file(path: Path) -> Path:
    """The path. Raises InvalidInput unless a .png file can be made there."""
    import os

    from trifold.data.decode import printable

    if path.suffix.lower() != ".png":
        raise InvalidInput(f"--out must end in .png, got {printable(path)!r}")
    if not path.parent.is_dir():
        raise InvalidInput(f"--out must lie in a folder that is there, got {printable(path)!r}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InvalidInput(f"--out must be a file that can be written, got {printable(path)!r}")
    return path


def _facts(run: Looker) -> dict[str, object]:
    """A run's network as plain values."""
    return {
        "run": run.path,
        "network": run.network.architecture.name,
        "multiply_adds": run.multiply_adds,
        "resolution": run.trained.preprocessing.resolution,
        "classes": list(run.trained.classes),
    }
