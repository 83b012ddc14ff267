"""The whole job on real handwritten digits: two budgets, two scaled and trained networks, one picture."""

from __future__ import annotations

import time
from pathlib import Path

from trifold.budget import Budget, Fit
from trifold.data.dataset import Dataset
from trifold.data.sources import open_data
from trifold.errors import InvalidData
from trifold.report.figures import BudgetPoint, draw_budgets, percent
from trifold.table import Column, Table, lines
from trifold.train.assemble import Progress
from trifold.train.fit import scale_to_budget, train_scaled
from trifold.train.progress import progress_bar
from trifold.train.recipes import find_recipe
from trifold.train.record import Record

BUDGETS = (1e6, 3e6)
"""Multiply-adds for one image."""

FOLDER = Path("runs/demo")

COLUMNS = ("budget", "phi", "layers", "widths", "pixels", "parameters", "multiply-adds", "test accuracy (95 %)",
           "3-NN", "seconds")  # fmt: skip


def main() -> None:
    """Fits and trains both networks, prints a table and leaves a picture."""
    started = time.perf_counter()
    dataset = open_data("digits")
    print(f"digits: {len(dataset.samples):,} {dataset.note}")
    rows = []
    for limit in BUDGETS:
        found = scale_to_budget(dataset, Budget(multiply_adds=limit))
        name = f"{limit / 1e6:g}M"
        print(f"budget {name} multiply-adds: {found.architecture.name} at phi {found.phi:g}", flush=True)
        with progress_bar(f"budget {name}") as progress:
            record = trained(dataset, found, FOLDER / name, progress)
        rows.append((name, found, record))
    picture = FOLDER / "budgets.png"
    draw(rows, picture)
    print_table(rows)
    print("3-NN: three nearest neighbours by pixel distance on the same split.")
    print(f"Picture: {picture}; each run's weights, log, curves and confusion matrix: {FOLDER}/<budget>/.")
    print(f"Took {time.perf_counter() - started:.0f} s. Use one with: trifold predict {FOLDER}/{rows[-1][0]} IMAGE…")


def trained(dataset: Dataset, found: Fit, folder: Path, progress: Progress | None) -> Record:
    """The run in the folder; what an older version of the demo left there is replaced."""
    recipe = find_recipe("small", found.architecture)
    try:
        return train_scaled(dataset, found, recipe, run_folder=folder, progress=progress)
    except InvalidData:
        return train_scaled(dataset, found, recipe, run_folder=folder, overwrite=True, progress=progress)


def draw(rows: list[tuple[str, Fit, Record]], path: Path) -> None:
    """Both runs on one picture, with the yardstick."""
    points = []
    for name, found, record in rows:
        low, high = record.result.test.interval
        label = f"budget {name}, phi {found.phi:g}"
        points.append(BudgetPoint(label, record.result.cost["multiply_adds"], record.accuracy, low, high))
    nearest = rows[0][2].result.nearest.accuracy
    draw_budgets(points, path, nearest=nearest, title="Handwritten digits: accuracy on held-out images by budget")


def print_table(rows: list[tuple[str, Fit, Record]]) -> None:
    """One row a budget."""
    table = Table(
        number="",
        title="Trained within a budget; accuracy on the held-out test split, one seed: a smoke test",
        source="",
        columns=tuple(Column(name=name, kind="label") for name in COLUMNS),
        rows=tuple((name, *cells(found, record)) for name, found, record in rows),
    )
    print("\n".join((table.title, *lines(table))))


def cells(found: Fit, record: Record) -> tuple[str, ...]:
    """A run's row, without its budget."""
    stages = found.architecture.stages
    result = record.result
    low, high = result.test.interval
    return (
        f"{found.phi:g}",
        "-".join(str(stage.layers) for stage in stages),
        "-".join(str(stage.channels) for stage in stages),
        str(found.architecture.resolution),
        f"{result.cost['parameters']:,}",
        f"{result.cost['multiply_adds']:,}",
        f"{percent(record.accuracy)} ({percent(low)} to {percent(high)})",
        percent(result.nearest.accuracy),
        f"{result.seconds:.0f}",
    )


if __name__ == "__main__":
    main()
