"""The training commands from the shell's side: what they print, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_cli import Run, run
from tests.test_data import BAD_IMAGES, make_folder, picture
from trifold.train.record import read_record
from trifold.weights import load

__all__ = ["run"]  # the fixture

SMALL = ("--budget", "multiply-adds=1M,resolution=..20", "--epochs", "1", "--set", "batch_size=16")


def refusals(err: str) -> list[str]:
    """The lines on stderr but the one that says which recipe it is."""
    return [line for line in err.splitlines() if not line.startswith("recipe ")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes told apart by brightness."""
    root = make_folder(tmp_path / "images", {"bright": 0, "dark": 0, "grey": 0})
    for level, name in ((230, "bright"), (20, "dark"), (120, "grey")):
        for i in range(12):
            picture(i, size=(24, 20)).point([(level + v // 12) % 256 for v in range(256)] * 3).save(
                root / name / f"{i}.png"
            )
    return root


def test_fit_leaves_a_run_that_evaluate_and_predict_use(run: Run, folder: Path) -> None:
    status, out, _ = run("fit", "images", *SMALL, "--out", "made", "--json", "--set", "horizontal_flip=false")
    answer = json.loads(out)
    assert status == 0
    assert answer["run"] == "made"
    assert answer["result"]["scaling"]["budget"] == {"multiply_adds": 1e6}
    assert answer["result"]["cost"]["multiply_adds"] <= 1e6
    assert answer["asked"]["recipe"]["epochs"] == 1
    assert answer["asked"]["recipe"]["horizontal_flip"] is False
    assert read_record(Path("made/record.json")).id == answer["id"]

    evaluated = json.loads(run("evaluate", "made", "--json")[1])
    assert evaluated["accuracy"] == answer["result"]["test"]["accuracy"]
    assert evaluated["confusion"] == answer["result"]["test"]["confusion"]
    assert "accuracy" in run("evaluate", "made")[1].splitlines()[0]

    (predicted,) = json.loads(run("predict", "made", "images/dark/0.png", "--json")[1])
    assert {name for name, _ in predicted["ranked"]} == {"bright", "dark", "grey"}
    assert sum(chance for _, chance in predicted["ranked"]) == pytest.approx(1, abs=1e-5)
    line = run("predict", "made", "images/dark/0.png", "--top", "1")[1]
    assert line.startswith(f"images/dark/0.png: {predicted['ranked'][0][0]} ")


def test_train_takes_the_network_as_it_is(run: Run, folder: Path) -> None:
    arguments = ("train", "images", "--net", "mini", "--resolution", "16", "--epochs", "1", "--out", "made")
    status, out, _ = run(*arguments)
    assert status == 0
    assert "test accuracy " in out
    assert "one seed: a smoke test" in out
    network, metadata = load(Path("made/weights.safetensors"))
    assert network.architecture.stages[-1].layers == 3
    assert network.architecture.resolution == 16
    assert json.loads(metadata["classes"]) == ["bright", "dark", "grey"]


def test_asking_again_trains_nothing_and_another_run_is_refused(run: Run, folder: Path) -> None:
    arguments = ("fit", "images", *SMALL, "--out", "made")
    assert run(*arguments)[0] == 0
    before = Path("made/weights.safetensors").stat().st_mtime_ns
    assert run(*arguments)[0] == 0
    assert Path("made/weights.safetensors").stat().st_mtime_ns == before
    status, _, err = run(*arguments, "--seed", "1")
    assert status == 2
    assert len(refusals(err)) == 1
    assert "made: holds run" in err
    assert "--overwrite" in err
    assert run(*arguments, "--seed", "1", "--overwrite")[0] == 0


def test_the_run_folder_is_named_by_data_network_and_id(run: Run, folder: Path) -> None:
    answer = json.loads(run("fit", "images", *SMALL, "--json")[1])
    assert answer["run"] == f"runs/images-efficientnet_mini-scaled-{answer['id'][:8]}"
    assert Path(answer["run"], "curves.png").is_file()


def test_a_budget_too_small_for_b0_starts_from_the_small_baseline_and_says_so(run: Run, tmp_path: Path) -> None:
    make_folder(tmp_path / "large", {"one": 0, "two": 0})
    for i in range(8):
        picture(i, size=(80, 80)).save(tmp_path / "large" / ("one", "two")[i % 2] / f"{i}.png")
    status, out, err = run("fit", "large", *SMALL, "--out", "made", "--json")
    assert status == 0
    assert json.loads(out)["asked"]["architecture"]["name"] == "efficientnet_mini-scaled"
    assert "trying efficientnet_mini" in err
    status, _, err = run("fit", "large", *SMALL, "--net", "b0", "--out", "other")
    assert status == 2
    assert "the smallest network has" in err


def test_a_run_that_lost_its_weights_is_trained_anew(run: Run, folder: Path) -> None:
    arguments = ("fit", "images", *SMALL, "--out", "made")
    assert run(*arguments)[0] == 0
    Path("made/weights.safetensors").unlink()
    assert run(*arguments)[0] == 0
    assert Path("made/weights.safetensors").is_file()


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_one_line_and_status_2_unless_it_is_to_be_skipped(run: Run, folder: Path, kind: str) -> None:
    name, content, _ = BAD_IMAGES[kind]
    (folder / "dark" / f"bad {name}").write_bytes(content)
    status, out, err = run("fit", "images", *SMALL, "--out", "made")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert f"images/dark/bad {name}: " in err
    assert not Path("made").exists()


def test_skipped_images_are_named_and_counted(run: Run, folder: Path) -> None:
    for i, kind in enumerate(("text named jpg", "palette png")):
        name, content, _ = BAD_IMAGES[kind]
        (folder / "dark" / f"bad{i}{name}").write_bytes(content)
    status, out, err = run("fit", "images", *SMALL, "--out", "made", "--skip-bad", "--json")
    assert status == 0
    assert json.loads(out)["result"]["num_skipped"] == 2
    assert "2 bad images left out" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("fit", "nowhere", *SMALL), "nowhere: there is no such folder"),
        (("fit", "images"), "Missing option '--budget'"),
        (("fit", "images", "--budget", "multiply-adds=10"), "multiply_adds at most 10 (the smallest network has"),
        (("fit", "images", *SMALL, "--net", "b99"), "network 'b99' is not known"),
        (
            ("fit", "images", *SMALL, "--recipe", "huge"),
            "or finetune, or a .toml file, got 'huge'",
        ),
        (("fit", "images", *SMALL, "--set", "lr"), "--set must have the form FIELD=VALUE, got 'lr'"),
        (("fit", "images", *SMALL, "--set", "speed=3"), "recipe has no field 'speed'"),
        (("fit", "images", *SMALL, "--set", "lr=1000.0"), "lr must be a number from 1e-08 to 100, got 1000.0"),
        (("fit", "images", "--budget", "params=1M", "--epochs", "0"), "epochs must be a whole number from 1"),
        (("fit", "images", *SMALL, "--seed", "-1"), "seed must be a whole number from 0"),
        (("fit", "images", *SMALL, "--out", "images"), "is not a run folder"),
        (("train", "images", "--net", "mini", "--resolution", "3"), "resolution must be a whole number from 4"),
        (("train", "images", "--net", "b0", "--resolution", "32", "--set", "batch_size=1"), "from 2 to 65536, got 1"),
        (("fit", "images", *SMALL, "--set", "padding=none"), "padding must be same or same_static or symmetric"),
        (("evaluate", "images"), "images/record.json: cannot be read: No such file"),
        (("predict", "nowhere", "images/dark/0.png"), "nowhere: has no weights.safetensors"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(
    run: Run, folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert says in err
    assert len(refusals(err)) == 1
    assert not Path("runs").exists()
