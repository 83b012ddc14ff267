"""Run folders, and finished runs put to use, on trainings of seconds."""

from __future__ import annotations

import json
import platform
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import QUICK, TINY, digits, finished, plan
from trifold import weights
from trifold.architecture import read
from trifold.budget import Budget
from trifold.cost import cost
from trifold.data.dataset import Dataset
from trifold.data.folder import open_folder
from trifold.data.images import load
from trifold.data.sources import open_data
from trifold.data.split import split
from trifold.errors import InvalidData, InvalidInput
from trifold.network import build
from trifold.preprocessing import plain
from trifold.train.evaluate import evaluation, probabilities
from trifold.train.fit import default_network, scale_to_budget, train_scaled
from trifold.train.folder import CHECKPOINTS, EVENTS, FILES, LOCK, OtherRun
from trifold.train.log import read_epochs, read_log
from trifold.train.machine import Machine, default_threads
from trifold.train.processes import ALONE
from trifold.train.progress import progress_bar
from trifold.train.record import Plan, Record, asked, read_record, run_id
from trifold.train.run import train
from trifold.train.use import evaluate, load_run, predict, trained_on

__all__ = ["digits", "finished", "plan"]  # the fixtures


# ---- run folder ----


def test_a_run_folder_holds_all_that_is_promised(finished: tuple[Path, Record], digits: Dataset) -> None:
    folder, record = finished
    assert {path.name for path in folder.iterdir()} == {*FILES, EVENTS, LOCK} - {*CHECKPOINTS}
    assert read(folder / "architecture.toml") == TINY
    assert read_record(folder / "record.json") == record
    network, metadata = weights.load(folder / "weights.safetensors")
    assert network.architecture == TINY
    assert json.loads(metadata["classes"]) == list("0123456789")
    assert json.loads(metadata["recipe"]) == QUICK.to_dict()
    assert json.loads(metadata["accuracy"])["test"] == record.accuracy
    with Image.open(folder / "curves.png") as curves, Image.open(folder / "confusion.png") as confusion:
        assert min(curves.size + confusion.size) > 300
    assert record.result.images == {"train": 211, "minival": 29, "test": 60}
    assert record.result.cost["multiply_adds"] == cost(TINY, num_classes=10, in_channels=1).multiply_adds
    assert (record.result.computed["threads"], record.result.computed["processes"]) == (1, 1)
    assert record.result.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert record.result.versions["python"] == platform.python_version()


def test_the_record_says_what_was_asked_and_its_id_follows_from_it(
    finished: tuple[Path, Record], digits: Dataset, plan: Plan
) -> None:
    _, record = finished
    assert record.asked == asked(plan, digits.fingerprint)
    assert record.id == run_id(record.asked)
    other_seed = asked(replace(plan, seed=1), digits.fingerprint)
    other_data = asked(plan, replace(digits, samples=digits.samples[1:]).fingerprint)
    assert len({record.id, run_id(other_seed), run_id(other_data)}) == 3


def test_the_log_is_typed_lines_that_its_reader_gives_back(finished: tuple[Path, Record]) -> None:
    folder, record = finished
    entries = read_log(folder / "log.jsonl")
    assert [entry["type"] for entry in entries] == ["start", *["step"] * 7, "epoch", *["step"] * 7, "epoch", "test"]
    assert entries[0]["id"] == record.id
    epochs = read_epochs(folder / "log.jsonl")
    kept = min(epochs, key=lambda epoch: epoch.minival_loss)
    assert (kept.epoch, kept.minival_accuracy) == (record.result.epoch, record.result.minival_accuracy)


def test_a_damaged_log_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"type": "start"}\n{"type": "ep')
    with pytest.raises(InvalidData, match=r"log.jsonl: line 2 must be a JSON object with a type"):
        read_log(tmp_path / "log.jsonl")


def test_asking_again_gives_the_finished_run_without_training(
    finished: tuple[Path, Record], digits: Dataset, plan: Plan
) -> None:
    folder, record = finished

    def forbidden(*call: object) -> None:
        raise AssertionError("trained again")

    before = (folder / "record.json").stat().st_mtime_ns
    assert train(digits, plan, run_folder=folder, progress=forbidden) == record
    assert (folder / "record.json").stat().st_mtime_ns == before


def test_another_run_is_refused_and_overwrites_only_when_asked(digits: Dataset, plan: Plan, tmp_path: Path) -> None:
    quick = replace(plan, recipe=replace(QUICK, epochs=1))
    first = train(digits, quick, run_folder=tmp_path)
    other = replace(quick, seed=1)
    with pytest.raises(OtherRun, match=f"holds run {first.id}, but asked is run .* --overwrite"):
        train(digits, other, run_folder=tmp_path)
    assert read_record(tmp_path / "record.json") == first
    assert train(digits, other, run_folder=tmp_path, overwrite=True).id != first.id


def test_an_interrupted_run_goes_on_to_the_same_end(
    finished: tuple[Path, Record], digits: Dataset, plan: Plan, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int, what: str) -> None:
        if what == "training" and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(digits, plan, run_folder=tmp_path, progress=interrupt)
    assert "record.json" not in {path.name for path in tmp_path.iterdir()}
    folder, record = finished
    again = train(digits, plan, run_folder=tmp_path)
    assert again.result.test == record.result.test
    one, two = (weights.load(path / "weights.safetensors")[0].state_dict() for path in (folder, tmp_path))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_folder_of_other_things_is_left_alone(digits: Dataset, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidData, match=r"is not a run folder: it holds 'thesis.txt'"):
        train(digits, plan, run_folder=tmp_path)
    with pytest.raises(InvalidData, match=r"thesis.txt: is a file; a run needs a folder"):
        train(digits, plan, run_folder=tmp_path / "thesis.txt")


@pytest.mark.parametrize(
    "files",
    [
        {"record.json": '{"title": "my songs"}', "thesis.txt": "years"},
        {"record.json": '{"id": "x"', "log.jsonl": '{"type": "song"}'},
        {"log.jsonl": "", "weights.safetensors": "mine"},
        {"architecture.toml": "mine"},
        {"thesis.txt": "years"},
    ],
)
def test_what_is_not_proven_a_run_folder_is_never_overwritten(
    digits: Dataset, plan: Plan, tmp_path: Path, files: dict[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidData, match="is not a run folder: it holds"):
        train(digits, plan, run_folder=tmp_path, overwrite=True)
    with pytest.raises(InvalidData):
        train(digits, plan, run_folder=tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_refused_leaves_the_old_run_whole_and_no_new_folder(
    finished: tuple[Path, Record], digits: Dataset, plan: Plan, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished[0], tmp_path / "old"))
    before = contents(folder)
    few = replace(digits, samples=tuple({s.label: s for s in digits.samples}.values()))
    huge = replace(plan, architecture=replace(TINY, resolution=8192))
    unreadable = replace(digits, samples=(replace(digits.samples[0], content=b"no picture"), *digits.samples[1:]))
    for dataset, asked_for in ((few, plan), (digits, huge)):
        for target in (folder, tmp_path / "new"):
            with pytest.raises(InvalidData, match=r"its split into train|GiB in memory"):
                train(dataset, asked_for, run_folder=target, overwrite=True, machine=Machine(in_memory="yes"))
    with pytest.raises(InvalidData, match="not an image"):
        train(unreadable, plan, run_folder=folder, overwrite=True)
    assert contents(folder) == before
    assert not (tmp_path / "new").exists()


def test_a_run_cut_short_within_its_log_can_be_begun_anew_or_overwritten(
    digits: Dataset, plan: Plan, tmp_path: Path
) -> None:
    quick = replace(plan, recipe=replace(QUICK, epochs=1))

    def interrupt(done: int, total: int, what: str) -> None:
        if what == "training":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(digits, quick, run_folder=tmp_path, progress=interrupt)
    assert not (tmp_path / "checkpoint.pt").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"type": "ep')
    train(digits, quick, run_folder=tmp_path)
    assert len(read_log(tmp_path / "log.jsonl")) == 1 + 7 + 1 + 1
    (tmp_path / "record.json").write_text("{")
    train(digits, replace(quick, seed=1), run_folder=tmp_path, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "notes.txt", EVENTS, LOCK} - {*CHECKPOINTS}


def test_the_demo_replaces_another_run_and_nothing_else(digits: Dataset, tmp_path: Path) -> None:
    demo = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "demo.py"))
    calls, found = [], SimpleNamespace(architecture=TINY)

    def fake(*given: object, overwrite: bool = False, **named: object) -> str:
        calls.append(overwrite)
        if not overwrite or "not a run folder" in str(error):  # which overwriting refuses as well
            raise error
        return "trained"

    demo["trained"].__globals__["train_scaled"] = fake
    error: InvalidData = OtherRun("holds another")
    assert demo["trained"](digits, found, tmp_path, None) == "trained"
    error = InvalidData("is not a run folder")
    with pytest.raises(InvalidData, match="is not a run folder"):
        demo["trained"](digits, found, tmp_path, None)
    assert calls == [False, True, False, True]


def test_threads_are_put_back_and_bad_numbers_refused(digits: Dataset, plan: Plan, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with pytest.raises(InvalidInput, match="threads must be a whole number from 0 to 1024, got -1"):
        train(digits, plan, run_folder=tmp_path, machine=Machine(threads=-1))
    assert torch.get_num_threads() == before
    train(digits, replace(plan, recipe=replace(QUICK, epochs=1)), run_folder=tmp_path, machine=Machine(threads=2))
    assert torch.get_num_threads() == before
    assert default_threads(9_999_999, ALONE) == 1
    assert default_threads(10_000_000, ALONE) == before


def test_seeds_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidData, match="split_seed must be a whole number from 0 to"):
        Plan(architecture=TINY, recipe=QUICK, split_seed=-1)


# ---- use ----


def test_predicting_a_file_agrees_with_the_evaluation_pipeline(
    finished: tuple[Path, Record], digits: Dataset, tmp_path: Path
) -> None:
    folder, _ = finished
    trained = load_run(folder)
    (images,) = load(digits, trained.preprocessing)
    chances = probabilities(trained.network, images.pixels, trained.preprocessing)
    for number in (0, 11, 42):
        file = tmp_path / f"{number}.png"
        digits.samples[number].open().save(file)
        (found,) = predict(folder, [file], top=10)
        assert found.path == str(file)
        assert [value for _, value in found.ranked] == sorted((value for _, value in found.ranked), reverse=True)
        expected = {name: float(chances[number, i]) for i, name in enumerate(digits.classes)}
        assert dict(found.ranked) == pytest.approx(expected, abs=1e-6)


def test_evaluating_the_same_data_repeats_the_test_split(finished: tuple[Path, Record], digits: Dataset) -> None:
    folder, record = finished
    assert evaluate(folder, digits) == record.result.test
    assert trained_on(folder) == trained_on(folder / "weights.safetensors") == "digits"


def test_other_data_are_evaluated_by_class_name_without_the_trained_images(
    finished: tuple[Path, Record], digits: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = finished
    trained = load_run(folder)
    parts = split(digits)
    used = {digits.samples[i].digest for i in (*parts.train, *parts.minival)}
    known = tuple(s for s in digits.samples if s.label in (0, 1))
    kept = tuple(s for s in known if s.digest not in used)
    reordered = replace(digits, classes=("1", "0"), samples=tuple(replace(s, label=1 - s.label) for s in known))
    found = evaluate(folder, reordered)
    (images,) = load(replace(digits, samples=kept), trained.preprocessing)
    predicted = probabilities(trained.network, images.pixels, trained.preprocessing).argmax(1)
    assert found == evaluation(digits.classes, predicted, images.labels)
    assert found.total == len(kept) == 12  # 60 test images are spread evenly over ten classes
    assert f"left out {len(known) - len(kept)} of {len(known)} images, which trained this network" in caplog.text
    trained_samples = tuple(digits.samples[i] for i in parts.train)
    with pytest.raises(InvalidData, match="all 211 images trained this network or chose its weights"):
        evaluate(folder, replace(digits, samples=trained_samples))
    with pytest.raises(InvalidData, match="class 'zebra' is not known to this network; its classes are 0, 1"):
        evaluate(folder, replace(reordered, classes=("1", "zebra")))


def coloured_folder(root: Path, images: int = 10) -> Path:
    """Two classes of noise, told apart by brightness."""
    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        (root / name).mkdir(parents=True)
        for i in range(images):
            pixels = rng.integers(0, 100, (9, 9, 3)) + (150 if name == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def test_a_file_added_to_the_folder_brings_no_trained_image_into_the_evaluation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = coloured_folder(tmp_path / "data")
    dataset = open_folder(data)
    parts = split(dataset)
    record = train(dataset, Plan(architecture=TINY, recipe=replace(QUICK, batch_size=4)), run_folder=tmp_path / "run")
    assert record.used == tuple(sorted(dataset.samples[i].digest for i in (*parts.train, *parts.minival)))
    for copied, name in ((parts.train[0], "copy of a trained one"), (parts.test[0], "copy of a held-out one")):
        content = dataset.samples[copied].content
        assert isinstance(content, Path)
        shutil.copy(content, content.with_name(f"{name}.png"))
    assert evaluate(tmp_path / "run", open_folder(data)).total == len(parts.test) + 1
    assert f"left out {len(record.used) + 1} of 22 images" in caplog.text
    caplog.clear()
    alone = shutil.copy(tmp_path / "run" / "weights.safetensors", tmp_path / "alone.safetensors")
    assert evaluate(alone, open_folder(data)).total == 22
    assert "no record beside the weights says which images trained them" in caplog.text


def test_the_data_of_a_run_are_found_again_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    coloured_folder(Path("digits"))
    dataset = open_data("./digits")
    assert dataset.name == "./digits"
    plan = Plan(architecture=TINY, recipe=replace(QUICK, batch_size=4, epochs=1))
    record = train(dataset, plan, run_folder="run")
    assert record.result.data == "./digits"
    assert str(tmp_path) not in json.dumps(record.to_dict())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = open_data(trained_on("../run"))
    assert again.fingerprint == dataset.fingerprint
    assert evaluate("../run", again) == record.result.test
    (tmp_path / "digits").rename(tmp_path / "gone")
    with pytest.raises(
        InvalidData, match=r"\.\./run: was trained on the folder .*digits, which is gone; name the data"
    ):
        trained_on("../run")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": "zero, one"}, "its metadata's classes is not JSON: 'zero, one'"),
        ({"classes": '["0", "1"]'}, "must name 10 different classes, one an output of its network, got 2"),
        ({"classes": "7"}, "classes must be a list of names"),
        ({"preprocessing": json.dumps(plain(8, "RGB").to_dict())}, "mode RGB has 3 channels, but its network takes 1"),
        ({"preprocessing": "[]"}, "metadata's preprocessing must be a JSON object"),
        (
            {"preprocessing": json.dumps({**plain(8, "L").to_dict(), "mean": [float("inf")]})},
            "mean must hold finite numbers",
        ),
        ({"data": "[]"}, "data must hold a fingerprint and a split_seed"),
    ],
)
def test_a_weights_file_whose_metadata_do_not_fit_is_refused_by_name(
    finished: tuple[Path, Record], tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    network, metadata = weights.load(finished[0] / "weights.safetensors")
    weights.save(tmp_path / "odd.safetensors", network, {**metadata, **changes})
    with pytest.raises(InvalidData, match=f"odd.safetensors: was not written by a run: .*{re.escape(says)}"):
        load_run(tmp_path / "odd.safetensors")


def test_bad_files_and_runs_are_refused_by_name(finished: tuple[Path, Record], tmp_path: Path) -> None:
    folder, _ = finished
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(InvalidData, match=r"a.png: not an image"):
        predict(folder, [tmp_path / "a.png"])
    with pytest.raises(InvalidData, match=r"none.png: cannot be read: No such file"):
        predict(folder, [tmp_path / "none.png"])
    with pytest.raises(InvalidInput, match="top must be a whole number from 1, got 0"):
        predict(folder, [], top=0)
    with pytest.raises(InvalidData, match=r"has no weights.safetensors; a finished run is needed"):
        load_run(tmp_path)
    weights.save(tmp_path / "bare.safetensors", build(TINY, seed=0))
    with pytest.raises(InvalidData, match="was not written by a run: its metadata has no 'classes'"):
        load_run(tmp_path / "bare.safetensors")


def test_skipped_images_are_counted_in_the_record_and_named_in_the_log(tmp_path: Path) -> None:
    coloured_folder(tmp_path / "data", images=8)
    bad = tmp_path / "data" / "dark" / "bad.jpg"
    bad.write_text("no picture")
    dataset = open_folder(tmp_path / "data", skip_bad=True)
    recipe = replace(QUICK, epochs=8, batch_size=4)
    record = train(dataset, Plan(architecture=TINY, recipe=recipe), run_folder=tmp_path / "run")
    assert record.to_dict()["result"]["num_skipped"] == 1
    assert str(bad) in record.result.skipped[0]
    assert read_log(tmp_path / "run" / "log.jsonl")[1]["path"] == str(bad)
    assert record.result.nearest.accuracy == 1
    assert record.accuracy == 1


# ---- fit ----


def test_the_baseline_follows_the_images_size(digits: Dataset) -> None:
    assert default_network(digits) == "efficientnet_mini"
    large = tuple(replace(sample, width=300, height=200) for sample in digits.samples)
    assert default_network(replace(digits, samples=large)) == "efficientnet_b0"


def test_a_budget_is_met_and_its_scaling_recorded(digits: Dataset, tmp_path: Path) -> None:
    found = scale_to_budget(digits, Budget(multiply_adds=1.2e6))
    assert found.cost.multiply_adds <= 1.2e6
    assert found.cost == cost(found.architecture, num_classes=10, in_channels=1)
    few = replace(digits, samples=tuple(sample for sample in digits.samples if sample.label < 2))
    few = replace(few, classes=("0", "1"))
    record = train_scaled(few, found, replace(QUICK, epochs=1), run_folder=tmp_path, seeds={"seed": 3})
    assert record.asked["seed"] == 3
    assert record.result.scaling["phi"] == found.phi
    assert read_record(tmp_path / "record.json") == record


def test_the_progress_bar_is_silent_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("x") as progress:
        assert progress is None
    assert capsys.readouterr().err == ""
