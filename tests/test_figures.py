"""Figure data as values, and the pictures drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from trifold.report.figures import (
    BudgetPoint,
    Confusion,
    Curves,
    FamilyRow,
    draw_budgets,
    draw_confusion,
    draw_curves,
    draw_family,
    percent,
    short_number,
)
from trifold.train.loop import Epoch
from trifold.train.summary import curves

ROWS = [
    FamilyRow(f"phi {phi}", phi, 4 * 10**8 * 2**phi, 5 * 10**6 * 2**phi, 7 * 10**6, 224 + 32 * phi) for phi in range(3)
]
POINTS = [BudgetPoint("1M", 10**6, 0.98, 0.96, 0.99), BudgetPoint("4M", 4 * 10**6, 0.99, 0.975, 0.997)]
COURSE = Curves((1, 2), (1.0, 0.5), (0.9, 0.6), (0.5, 0.75), 2)


def test_figure_data_of_a_run_are_its_epochs() -> None:
    epochs = [
        Epoch(epoch=1, lr=0.1, train_loss=1.0, minival_loss=0.9, minival_accuracy=0.5, seconds=1.0),
        Epoch(epoch=2, lr=0.0, train_loss=0.5, minival_loss=0.6, minival_accuracy=0.75, seconds=1.0),
    ]
    assert curves(epochs, chosen=2) == COURSE


@pytest.mark.parametrize(
    ("value", "text"),
    [(386_000_000, "386M"), (5_288_548, "5.29M"), (1200, "1.2K"), (999_999, "1M"), (37e9, "37G"), (224, "224")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short_number(value) == text


def test_shares_have_one_decimal() -> None:
    assert percent(0.98607) == "98.6 %"


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda path: draw_curves(COURSE, path), id="curves"),
        pytest.param(lambda path: draw_curves(Curves((1,), (1.0,), (1.0,), (0.5,), 1), path), id="one epoch"),
        pytest.param(lambda path: draw_confusion(Confusion(("a", "b"), ((3, 1), (0, 0))), path), id="confusion"),
        pytest.param(lambda path: draw_confusion(identity(100), path), id="a hundred classes"),
        pytest.param(lambda path: draw_budgets(POINTS, path, nearest=0.97, title="t"), id="budgets"),
        pytest.param(lambda path: draw_budgets(POINTS[:1], path), id="one budget"),
        pytest.param(lambda path: draw_family(ROWS, path, title="t"), id="family"),
        pytest.param(lambda path: draw_family(ROWS[:1], path), id="family of one"),
    ],
)
def test_pictures_are_pngs_of_readable_size_with_something_on_them(
    tmp_path: Path, draw: Callable[[Path], None]
) -> None:
    draw(tmp_path / "picture.png")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    with Image.open(tmp_path / "picture.png") as image:
        assert image.format == "PNG"
        assert min(image.size) >= 400
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50


def identity(num: int) -> Confusion:
    counts = tuple(tuple(int(i == j) for j in range(num)) for i in range(num))
    return Confusion(tuple(f"class {i}" for i in range(num)), counts)
