"""The first look at images: it knows what a plan needs without opening them all, and without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from trifold.architecture import to_toml
from trifold.baselines import find
from trifold.cli.study import ablate
from trifold.data.glimpse import Glimpse, glimpse
from trifold.data.sources import open_data
from trifold.errors import InvalidData
from trifold.study.hours import about, training_seconds


def folder(root: Path, *, modes: str = "LL", splits: tuple[str, ...] = ()) -> Path:
    """Two classes of as many images as there are modes, L or R for RGB, in each split."""
    random = np.random.default_rng(0)
    for split in splits or (".",):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number, mode in enumerate(modes):
                shape = (8, 8) if mode == "L" else (8, 8, 3)
                image = Image.fromarray(random.integers(0, 255, shape).astype(np.uint8))
                image.save(root / split / name / f"{number:03d}.png")
    return root


@pytest.mark.parametrize(
    ("modes", "splits", "seen"),
    [
        ("LLL", (), Glimpse(2, 1, 6)),
        ("RRR", (), Glimpse(2, 3, 6)),
        ("LRL", ("train", "test"), Glimpse(2, 3, 6)),
        ("LL", ("train", "val", "test"), Glimpse(2, 1, 8)),
    ],
)
def test_a_folder_is_counted_without_the_test_images(
    tmp_path: Path, modes: str, splits: tuple[str, ...], seen: Glimpse
) -> None:
    root = folder(tmp_path / "data", modes=modes, splits=splits)
    assert glimpse(str(root)) == seen
    dataset = open_data(str(root))
    assert (len(dataset.classes), dataset.in_channels) == seen[:2]


def test_a_table_and_the_known_sets_are_counted_too(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    table = tmp_path / "table.csv"
    lines = [f"data/{name}/00{number}.png,{name}" for name in "ab" for number in range(2)]
    table.write_text("path,label\n" + "\n".join(lines) + "\n")
    assert glimpse(str(table)) == glimpse(str(root)) == Glimpse(2, 1, 4)
    digits = open_data("digits")
    assert glimpse("digits") == (len(digits.classes), digits.in_channels, len(digits.samples))
    assert glimpse("cifar10:/nowhere") == Glimpse(10, 3, 50_000)
    assert glimpse("other:/nowhere") is None


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="there is no such folder"):
        glimpse(str(tmp_path / "none"))
    with pytest.raises(InvalidData, match="cannot be read"):
        glimpse(str(tmp_path / "none.csv"))


def test_a_plan_loads_no_torch_and_opens_no_image(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    (root / "a" / "000.png").write_bytes(b"no image")
    for command in ("coefficients", "ablate"):
        code = (
            "import sys; from trifold.cli import trifold; "
            f"trifold.main([{command!r}, 'b0', {str(root)!r}, '--plan'], standalone_mode=False); "
            "assert not {'torch', 'numpy', 'matplotlib', 'optuna'} & set(sys.modules), sys.modules.keys()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        assert "trainings of 25 epochs" in done.stdout
        assert "of one thread" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_a_glimpse_that_was_wrong_is_put_right_before_anything_is_trained(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", modes="L" * 30 + "R" + "L" * 9)  # no header that is looked at is the grey one's
    assert glimpse(str(root)) == Glimpse(2, 1, 80)
    assert open_data(str(root)).in_channels == 3
    (tmp_path / "net.toml").write_text(to_toml(find("efficientnet_mini")))
    words = [
        str(tmp_path / "net.toml"),
        str(root),
        "--factors",
        "2",
        "--kinds",
        "depth",
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(
        ablate, [*words, "--kinds", "depth", "--epochs", "1", "--seeds", "1", "--set", "batch_size=16"]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.count("multiply-adds; equal cost is within 3%") == 2  # planned anew, with three channels


def test_hours_grow_with_what_is_trained() -> None:
    one = training_seconds(1e6, images=1000, epochs=10)
    assert training_seconds(2e6, images=1000, epochs=10) > one
    assert training_seconds(1e6, images=2000, epochs=10) == pytest.approx(2 * one)
    assert training_seconds(1e6, images=1000, epochs=20) > one
    assert [about(seconds) for seconds in (40, 600, 7200)] == ["40 s", "10 minutes", "2.0 hours"]
