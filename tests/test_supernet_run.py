"""A supernet trained in a folder: gone on with to the same bits, read, refused; its candidates judged."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.sittings import Disturb, kill_at, resumed_at, steps_of
from tests.tiny import QUICK, digits
from trifold.architecture import Architecture, Head, Stage, Stem
from trifold.data.dataset import Dataset
from trifold.data.digits import open_digits
from trifold.data.images import normalise
from trifold.errors import InvalidData, InvalidInput, Stopped
from trifold.search import supernet_evaluate, supernet_file
from trifold.search.space import Space, around
from trifold.search.supernet import Supernet
from trifold.search.supernet_evaluate import AtResolution, calibrate, calibration_batches, candidate, evaluate_candidate
from trifold.search.supernet_run import RECORD, TrainedSupernet, train_supernet
from trifold.search.supernet_sandwich import Sandwich, drawn, outermost
from trifold.train.folder import OtherRun
from trifold.train.log import read_log
from trifold.train.loop import Diverged, Training
from trifold.train.machine import Machine
from trifold.train.record import Plan
from trifold.train.run import train

__all__ = ["digits"]  # the fixture

BASE = Architecture(
    name="base",
    resolution=8,
    stem=Stem(channels=8, stride=1),
    stages=(
        Stage(operator="mbconv", channels=8, expand_ratio=2, se_ratio=0.25),
        Stage(operator="mbconv", channels=16, layers=2, stride=2, expand_ratio=2),
    ),
    head=Head(channels=32),
)
SPACE = around(BASE, {"kernel_size": (3, 5), "expand_ratio": (1, 2), "width": (0.5, 1), "layers": (-1, 0)})
RECIPE = replace(QUICK, batch_size=64, lr=0.01, ema_decay=0.9, drop_rate=0.1)
SEEN = ("log.jsonl", RECORD, "tensorboard", "weights.safetensors")
MACHINE = Machine(threads=1, device="cpu", in_memory="yes", checkpoint_seconds=0.0)


def trained(dataset: Dataset, folder: Path, *, space: Space = SPACE, **changes: object) -> TrainedSupernet:
    return train_supernet(dataset, space, replace(RECIPE, **changes), folder=folder, machine=MACHINE)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainedSupernet]:
    folder = tmp_path_factory.mktemp("supernets") / "finished"
    return folder, trained(digits, folder)


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---- training in a folder ----


def test_the_folder_holds_log_weights_and_what_was_asked(
    digits: Dataset, finished: tuple[Path, TrainedSupernet]
) -> None:
    folder, (supernet, task) = finished
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == sorted(SEEN)
    entries = read_log(folder / "log.jsonl")
    assert [entry["type"] for entry in entries] == ["start", *["step"] * 3, "epoch", *["step"] * 3, "epoch"]
    record = json.loads((folder / RECORD).read_text())
    assert record["id"] == entries[0]["id"]
    assert record["asked"] == entries[0]["asked"]
    assert record["asked"]["data"] == digits.fingerprint
    assert record["asked"]["sandwich"] == {"num_random": 2, "label_share": 0.5, "batches": 20}
    assert record["result"]["largest_minival_accuracy"] == entries[-1]["minival_accuracy"]
    # The log's accuracy is the largest candidate's, calibrated, with the weights (the average's) that were kept.
    assert evaluate_candidate(supernet, supernet.largest, task) == entries[-1]["minival_accuracy"]
    assert supernet.training


def test_a_finished_one_is_read(
    digits: Dataset, finished: tuple[Path, TrainedSupernet], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (supernet, task) = finished
    monkeypatch.setattr("trifold.search.supernet_run.run_epochs", None)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = trained(digits, folder)
    assert_equal(again.supernet, supernet)
    assert again.task.preprocessing == task.preprocessing
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_another_question_is_refused(digits: Dataset, finished: tuple[Path, TrainedSupernet], tmp_path: Path) -> None:
    folder, _ = finished
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "log.jsonl").write_text((folder / "log.jsonl").read_text().splitlines()[0] + "\n")
    narrow = around(BASE, {"kernel_size": (3, 5)})
    for place in (folder, begun):
        asks: list[Callable[[], TrainedSupernet]] = [
            partial(trained, digits, place, epochs=3),
            partial(trained, digits, place, space=narrow),
            partial(train_supernet, digits, SPACE, RECIPE, folder=place, machine=MACHINE, seed=1),
            partial(train_supernet, digits, SPACE, RECIPE, folder=place, machine=MACHINE, sandwich=Sandwich(batches=1)),
        ]
        for ask in asks:
            with pytest.raises(OtherRun, match=r"holds another training .* differ") as caught:
                ask()
            assert "\n" not in str(caught.value)


def test_what_is_no_supernets_folder_is_refused(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear")
    with pytest.raises(InvalidData, match=r"it holds 'letter.txt'; give a new one"):
        trained(digits, tmp_path / "letters")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidData, match="is a file"):
        trained(digits, tmp_path / "file")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / RECORD).write_text("[1]")
    with pytest.raises(InvalidData, match="not a supernet's record"):
        trained(digits, tmp_path / "odd")


def test_a_plain_runs_folder_and_a_supernets_are_not_mistaken(
    digits: Dataset, finished: tuple[Path, TrainedSupernet], tmp_path: Path
) -> None:
    plan = Plan(architecture=BASE, recipe=replace(QUICK, epochs=1))
    train(digits, plan, run_folder=tmp_path / "run")
    with pytest.raises(OtherRun, match="holds another training"):
        trained(digits, tmp_path / "run")
    with pytest.raises(InvalidData):
        train(digits, plan, run_folder=finished[0])


def test_lost_weights_are_trained_anew_and_damaged_ones_refused(
    digits: Dataset, finished: tuple[Path, TrainedSupernet], tmp_path: Path
) -> None:
    folder, (supernet, _) = finished
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("log.jsonl", RECORD):
        (copy / name).write_bytes((folder / name).read_bytes())
    assert_equal(trained(digits, copy).supernet, supernet)
    (copy / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:-9])
    with pytest.raises(InvalidData, match=r"weights.safetensors: cannot be read") as caught:
        trained(digits, copy)
    assert "\n" not in str(caught.value)


def test_weights_of_another_supernet_are_refused(finished: tuple[Path, TrainedSupernet], tmp_path: Path) -> None:
    other = Supernet(around(BASE, {"kernel_size": (3, 5)}), num_classes=10, in_channels=1)
    with pytest.raises(InvalidData, match="not the weights of this supernet: space must be") as caught:
        supernet_file.load(finished[0] / "weights.safetensors", other)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    with pytest.raises(InvalidData, match="no such file"):
        supernet_file.load(tmp_path / "absent", other)
    with pytest.raises(OSError, match="No such file"):
        supernet_file.save(tmp_path / "absent" / "weights", other)


def test_several_processes_and_other_threads_are_refused(
    digits: Dataset, finished: tuple[Path, TrainedSupernet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = (finished[0] / "log.jsonl").read_text().splitlines()[0]
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "log.jsonl").write_text(line + "\n")
    with pytest.raises(InvalidData, match="was begun with threads 1, and now it is 2"):
        train_supernet(digits, SPACE, RECIPE, folder=tmp_path / "begun", machine=replace(MACHINE, threads=2))
    with pytest.raises(InvalidInput, match="compile must be false for a supernet"):
        trained(digits, tmp_path / "new", compile=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidInput, match="a supernet is trained by one process, got 2"):
        trained(digits, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# ---- killed, stopped, gone on with ----


def _sit(folder: str, disturb: Disturb | None) -> None:
    torch.set_num_threads(1)
    if disturb is not None:
        disturb()
    whole = open_digits()
    trained(replace(whole, samples=whole.samples[::6]), Path(folder))


def sit(folder: Path, disturb: Disturb | None = None) -> int | None:
    """Lets a process of its own train the supernet; its exit status."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.sittings", "tests.test_supernet_run"])
    process = context.Process(target=_sit, args=(str(folder), disturb))
    process.start()
    process.join(120)
    return process.exitcode


OPTIMISER, RENAME = "torch.optim:AdamW.step", "pathlib:Path.replace"


def test_kills_change_no_bit(digits: Dataset, finished: tuple[Path, TrainedSupernet], tmp_path: Path) -> None:
    folder, (supernet, _) = finished
    copy = tmp_path / "killed"
    kills: tuple[Callable[[], None], ...] = (
        partial(kill_at, OPTIMISER, 3),  # in epoch 1, after its second step
        partial(kill_at, "trifold.train.evaluate:probabilities", 1),  # in the first epoch's evaluation
        partial(kill_at, OPTIMISER, 2, after=True),  # in epoch 2
        partial(kill_at, "trifold.search.supernet_file:save", 1, after=True),  # before the record
    )
    for kill in kills:
        assert sit(copy, kill) == -signal.SIGKILL
        assert not (copy / RECORD).exists()
    again = trained(digits, copy)
    assert_equal(again.supernet, supernet)
    assert steps_of(copy) == steps_of(folder) == [(epoch, step) for epoch in (1, 2) for step in (1, 2, 3)]
    assert resumed_at(copy) == [(1, 2), (1, 3), (2, 1), (3, 0)]
    losses = [
        [entry["loss"] for entry in read_log(run / "log.jsonl") if entry["type"] == "step"] for run in (copy, folder)
    ]
    assert losses[0] == losses[1]
    assert sorted(path.name for path in copy.iterdir() if path.name != ".lock") == sorted(SEEN)


def test_a_signal_saves_and_stops(
    digits: Dataset, finished: tuple[Path, TrainedSupernet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, count = torch.optim.AdamW.step, 0

    def step(self: torch.optim.AdamW, *given: object) -> object:
        nonlocal count
        count += 1
        if count == 2:
            signal.raise_signal(signal.SIGTERM)
        return original(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(Stopped, match="stopped by SIGTERM: epoch 1 step 2 is saved"):
            trained(digits, tmp_path / "stopped")
    assert_equal(trained(digits, tmp_path / "stopped").supernet, finished[1].supernet)
    assert resumed_at(tmp_path / "stopped") == [(1, 2)]


# ---- evaluation ----


def in_float64(network: nn.Module, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What comes into each batch norm by one batch: each channel's mean and unbiased variance."""
    twin = network.double().train()
    for module in twin.modules():
        if isinstance(module, nn.Dropout) or type(module).__name__ == "DropPath":
            module.eval()
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def noting(name: str, module: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        values = given[0].detach().transpose(0, 1).flatten(1)
        found[name] = (values.mean(1), values.var(1, unbiased=True))

    hooks = [
        module.register_forward_hook(partial(noting, name))
        for name, module in twin.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        twin(images.double())
    for hook in hooks:
        hook.remove()
    return found


def test_statistics_are_the_mean_of_those_of_the_batches(finished: tuple[Path, TrainedSupernet]) -> None:
    supernet, task = finished[1]
    architecture = SPACE.architecture(tuple(i % 2 for i in range(len(SPACE.sizes))))
    network = candidate(supernet, architecture, task, batches=2)
    batches = calibration_batches(task, 2)
    assert [len(indices) for indices in batches] == [64, 64]
    assert len(set(torch.cat(batches).tolist())) == 128
    seen = []
    for pixels in task.train.batches(batches):
        twin = AtResolution(supernet.extract(architecture))
        seen.append(in_float64(twin, normalise(pixels, task.preprocessing)))
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms.keys() == seen[0].keys()
    assert len(norms) > 5
    for name, norm in norms.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = (torch.stack([one[name][i] for one in seen]).mean(0) for i in (0, 1))
        assert torch.allclose(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5), name
        assert torch.allclose(norm.running_var.double(), variance, rtol=1e-4, atol=1e-6), name
        assert norm.momentum == RECIPE.bn_momentum
        assert not norm.training


def test_fewer_images_than_a_batch_calibrate_all_the_same(finished: tuple[Path, TrainedSupernet]) -> None:
    task = finished[1].task
    assert [len(some) for some in calibration_batches(task, 99)] == [64, 64, 64]
    whole = replace(task, recipe=replace(task.recipe, batch_size=4096))
    assert [len(some) for some in calibration_batches(whole, 3)] == [len(task.train)]


def test_an_accuracy_is_a_function_of_weights_and_task(finished: tuple[Path, TrainedSupernet]) -> None:
    supernet, task = finished[1]
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    architecture, generator = SPACE.architecture((0,) * len(SPACE.sizes)), torch.get_rng_state()
    found = [evaluate_candidate(supernet, architecture, task, batches=2) for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
    network = supernet.extract(architecture)
    calibrate(network, task, batches=2)
    (pixels,) = task.minival.batches([torch.arange(len(task.minival))])
    with torch.no_grad():
        right = network(normalise(pixels, task.preprocessing)).argmax(1) == task.minival.labels
    assert found[0] == pytest.approx(float(right.double().mean()), abs=1e-12)


def test_outputs_that_are_no_numbers_are_an_error_of_one_line(finished: tuple[Path, TrainedSupernet]) -> None:
    supernet, task = finished[1]
    broken = Supernet(SPACE, num_classes=10, in_channels=1)
    broken.load_state_dict(supernet.state_dict())
    with torch.no_grad():
        broken.classifier.weight[0, 0] = float("nan")
    with pytest.raises(Diverged, match="candidate base: its outputs on minival are not finite numbers"):
        evaluate_candidate(broken, broken.largest, task)


def test_bad_input_to_an_evaluation_is_refused(finished: tuple[Path, TrainedSupernet]) -> None:
    supernet, task = finished[1]
    with pytest.raises(InvalidInput, match="batches must be a whole number of at least 1, got 0"):
        evaluate_candidate(supernet, supernet.largest, task, batches=0)
    with pytest.raises(InvalidInput, match="stages, got 1"):
        evaluate_candidate(supernet, replace(BASE, stages=BASE.stages[:1]), task)


def test_a_few_epochs_teach_candidates_of_every_size_and_resolution(tmp_path: Path) -> None:
    """Half of the digits; chance is a tenth. One seed: a smoke test."""
    whole = open_digits()
    space = around(BASE, {"kernel_size": (3, 5), "expand_ratio": (1, 2), "width": (0.5, 1)}, resolutions=(6, 8))
    supernet, task = train_supernet(
        replace(whole, samples=whole.samples[::2]),
        space,
        replace(RECIPE, epochs=4, batch_size=32),
        folder=tmp_path / "run",
        machine=MACHINE,
    )
    torch.manual_seed(0)
    some = [outermost(space, drawn(space), largest=end) for end in (True, False)] + [drawn(space) for _ in range(3)]
    found = [evaluate_candidate(supernet, space.architecture(tokens), task) for tokens in some]
    assert task.preprocessing.resolution == 8
    assert {space.architecture(tokens).resolution for tokens in some} == {6, 8}
    assert min(found) > 0.2, found


def test_a_training_takes_the_objective_it_is_given(finished: tuple[Path, TrainedSupernet]) -> None:
    supernet, task = finished[1]
    sandwich = Sandwich(batches=1)
    training = Training(supernet, task, sandwich)
    assert training.objective is sandwich
    assert isinstance(training.evaluated, Supernet)  # the average's copy
    assert supernet_evaluate.BATCHES == 20
