"""Recipes, weights and decisions from the shell's side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.test_cli import Run, run
from tests.test_cli_training import folder
from trifold.train import run as training
from trifold.train.record import read_record

__all__ = ["folder", "run"]  # fixtures

NET = """
name = "tiny"
resolution = 16
stem = { channels = 8, stride = 2 }
stages = [{ operator = "mbconv", channels = 8, stride = 2, expand_ratio = 2, se_ratio = 0.25 }]
head = { channels = 16 }
"""
QUICK = ("--epochs", "1", "--set", "batch_size=8", "--threads", "1")


@pytest.fixture
def net(folder: Path) -> Path:
    """A network's description beside the images."""
    path = folder.parent / "tiny.toml"
    path.write_text(NET, encoding="utf-8")
    return path


def start_of(run_folder: str) -> dict[str, Any]:
    """The first entry of a run's log."""
    entry: dict[str, Any] = json.loads(Path(run_folder, "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    return entry


def test_the_recipe_is_said_as_what_it_changes_and_its_file_is_taken_back(run: Run, net: Path) -> None:
    status, _, err = run("train", "images", "--net", "tiny.toml", *QUICK, "--set", "lr=0.01", "--out", "one")
    assert status == 0
    assert err.splitlines()[0] == "recipe small with epochs 1 (not 25), batch_size 8 (not 64), lr 0.01 (not 0.003)"
    again = run(
        "train", "images", "--net", "tiny.toml", "--recipe", "one/recipe.toml", "--threads", "1", "--out", "two"
    )
    assert again[0] == 0
    one, two = read_record(Path("one/record.json")), read_record(Path("two/record.json"))
    assert one.id == two.id
    assert one.result.test == two.result.test


def test_a_run_begins_with_the_weights_of_another(run: Run, net: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run("train", "images", "--net", "tiny.toml", *QUICK, "--out", "first")[0] == 0
    tune = ("--recipe", "finetune", "--set", "head_epochs=1", "--set", "crop_area=1.0", "--weights", "first")
    status, out, _ = run("train", "images", "--net", "tiny.toml", *QUICK, *tune, "--out", "second")
    assert status == 0
    first, second = read_record(Path("first/record.json")), read_record(Path("second/record.json"))
    assert second.asked["weights"] != ""
    assert first.id != second.id
    assert second.result.loaded["initial"] == []
    assert "tensors pretrained" in out
    assert "--set padding=symmetric" in caplog.text  # finetune assumes TensorFlow's numerics; these weights had others


def test_training_the_head_alone_without_weights_is_warned_of(
    run: Run, net: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run("train", "images", "--net", "tiny.toml", *QUICK, "--recipe", "finetune", "--out", "cold")
    assert "trains the classifier alone for 3 epochs, on a network of random weights" in caplog.text


def test_a_rate_is_found_once_and_kept(run: Run, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("train", "images", "--net", "tiny.toml", *QUICK, "--find-lr", "--out", "found")

    def stopped(*args: object) -> None:
        raise InterruptedError("before the first step")

    with monkeypatch.context() as patched:
        patched.setattr(training, "run_epochs", stopped)
        assert run(*command)[0] == 1
    rate = start_of("found")["decided"]["lr"]
    assert 1e-6 < rate < 10
    with monkeypatch.context() as patched:
        patched.setattr(training, "range_test", stopped)  # it is not asked again
        assert run(*command)[0] == 0
    assert read_record(Path("found/record.json")).result.computed["lr"] == rate


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--recipe", "slow"), "recipe must be small or paper or modern or finetune, or a .toml file, got 'slow'"),
        (("--recipe", "gone.toml"), "gone.toml: cannot be read: No such file or directory"),
        (("--time", "soon"), "--time must be a length such as 20m, 1h30m or 90s, got 'soon'"),
        (("--time", "5m", "--epochs", "3"), "--time plans the epochs; give --epochs or --time, not both"),
        (("--weights", "gone.pth"), "gone.pth: no such file"),
        (("--device", "tpu"), "device must be auto or cpu or cuda, got 'tpu'"),
        (("--threads", "-1"), "threads must be a whole number from 0 to 1024, got -1"),
        (("--set", "sync_bn=true"), "recipe: sync_bn must be false on a CPU: torch has it for GPUs only, got True"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Run, net: Path, options: tuple[str, ...], said: str) -> None:
    status, _, err = run("train", "images", "--net", "tiny.toml", *options, "--out", "never")
    assert status == 2
    assert [line for line in err.splitlines() if not line.startswith("recipe ")] == [f"trifold: {said}"]
    assert not Path("never").exists()
