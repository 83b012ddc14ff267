"""Batches from memory and from files: the same pixels, whatever the number of workers, from wherever they begin."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from tests.tasks import Watching
from tests.tiny import QUICK, TINY
from trifold import weights
from trifold.data.dataset import Dataset
from trifold.data.folder import open_folder
from trifold.data.images import load
from trifold.data.loader import Crops, Files, Held
from trifold.errors import Failed, InvalidData
from trifold.network import Network, build
from trifold.preprocessing import Preprocessing, plain
from trifold.train.loop import Step, Training, run_epochs
from trifold.train.machine import Machine
from trifold.train.record import Plan
from trifold.train.run import train
from trifold.train.task import Task

SHAPE = plain(8, "RGB")
CLASSES, PER_CLASS = ("dark", "grey", "light"), 11


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """33 PNG files of noise, of several sizes, in three classes told apart by brightness."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for i in range(PER_CLASS):
            pixels = rng.integers(0, 100, (9 + i, 19 - i, 3)) + 75 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i:02d}.png")
    return open_folder(root)


def files(dataset: Dataset, workers: int = 0) -> Files:
    return Files(samples=dataset.samples, preprocessing=SHAPE, workers=workers)


def dealt(count: int = 33) -> list[Tensor]:
    """Seven batches of uneven size, shuffled, some images twice."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    return list(torch.cat([order, order[:5]]).tensor_split(7))


def equal(one: Iterator[Tensor], other: Iterator[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_memory_and_files_give_the_same_pixels_and_labels(dataset: Dataset) -> None:
    (images,) = load(dataset, SHAPE)
    held, decoded = Held(images=images), files(dataset)
    assert len(held) == len(decoded) == 33
    assert torch.equal(held.labels, decoded.labels)
    assert decoded.labels.tolist() == [label for label in range(3) for _ in range(PER_CLASS)]
    assert equal(held.batches(dealt()), decoded.batches(dealt()))
    (first,) = held.batches([torch.tensor([7])])
    assert first.shape == (1, 3, 8, 8)
    assert len(torch.cat(list(held.batches(dealt()))).flatten(1).unique(dim=0)) == 33


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches_in_the_same_order(dataset: Dataset, workers: int) -> None:
    assert equal(files(dataset, workers).batches(dealt()), files(dataset).batches(dealt()))


def test_crops_are_a_function_of_their_draws_whatever_the_workers(dataset: Dataset) -> None:
    draws = [torch.rand(len(batch), 4, generator=torch.Generator().manual_seed(len(batch))) for batch in dealt()]
    crops = Crops(0.2, draws)
    alone = list(files(dataset).batches(dealt(), crops))
    assert equal(iter(alone), files(dataset, 2).batches(dealt(), crops))
    assert not equal(iter(alone), files(dataset).batches(dealt()))
    last = Crops(0.2, draws[3:])
    assert equal(iter(alone[3:]), files(dataset).batches(dealt()[3:], last))


@pytest.mark.parametrize("workers", [0, 2])
def test_no_global_generator_is_drawn_from(dataset: Dataset, workers: int) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert len(list(files(dataset, workers).batches(dealt()))) == 7
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("content", "says"),
    [(b"no picture", "not an image that Pillow can read"), (None, "cannot be read: No such file or directory")],
)
def test_a_file_that_goes_bad_is_named_in_one_line(
    dataset: Dataset, tmp_path: Path, workers: int, content: bytes | None, says: str
) -> None:
    bad = tmp_path / "bad.png"
    if content is not None:
        bad.write_bytes(content)
    samples = (*dataset.samples[:20], replace(dataset.samples[20], content=bad), *dataset.samples[21:])
    source = replace(files(dataset, workers), samples=samples)
    batches = source.batches(list(torch.arange(33).split(8)))
    assert len(next(batches)) == len(next(batches)) == 8  # what comes before it is not lost
    with pytest.raises(InvalidData, match=f"^{re.escape(str(bad))}: {says}$"):
        list(batches)


def test_a_connection_that_breaks_before_its_workers_death_is_heard_of_names_the_death(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    def broken(*_: object) -> Iterator[Tensor]:
        signal.setitimer(signal.ITIMER_REAL, 0.2)  # as torch tells it: by a signal that comes at any time
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(DataLoader, "__iter__", broken)
    before = signal.signal(signal.SIGALRM, tell)
    try:
        with pytest.raises(Failed, match=r"worker that decodes images was lost: .*pid 7.*; the same command goes on"):
            list(files(dataset).batches([torch.arange(2)]))
    finally:
        signal.signal(signal.SIGALRM, before)


def test_no_batches_are_no_work(dataset: Dataset) -> None:
    assert list(files(dataset).batches([])) == []


# ---- within a training ----


def network() -> Network:
    return build(TINY, num_classes=3, in_channels=3, seed=0)


def task_from(train: Held | Files, preprocessing: Preprocessing = SHAPE) -> Task:
    recipe = replace(QUICK, epochs=1, batch_size=8)
    return Task(
        train=train, minival=train, preprocessing=preprocessing, recipe=recipe, seed=0, flip=True, num_classes=3
    )


class _Interrupted(Exception):
    pass


class _Stopping(Watching):
    """Stops after two of the epoch's four steps."""

    def after_step(self, training: Training, step: Step, *, stop: bool) -> None:
        super().after_step(training, step, stop=stop)
        if step.step == 2:
            raise _Interrupted


def losses(task: Task) -> list[float]:
    seen = Watching()
    run_epochs(Training(network(), task), task, seen)
    return [step.loss for step in seen.steps]


def test_training_is_the_same_from_memory_and_from_files(dataset: Dataset) -> None:
    (images,) = load(dataset, SHAPE)
    held = losses(task_from(Held(images=images)))
    assert len(held) == 4
    assert losses(task_from(files(dataset))) == held
    assert losses(task_from(files(dataset, 2))) == held


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_gone_on_with_begins_at_its_next_batch(dataset: Dataset, workers: int) -> None:
    task = task_from(files(dataset, workers))
    whole = losses(task)
    first, seen = Training(network(), task), _Stopping()
    with pytest.raises(_Interrupted):
        run_epochs(first, task, seen)
    again, rest = Training(network(), task), Watching()
    again.load_state_dict(first.state_dict())
    run_epochs(again, task, rest)
    assert [step.step for step in rest.steps] == [3, 4]
    assert [step.loss for step in seen.steps + rest.steps] == whole


def test_a_run_from_files_is_the_run_from_memory(dataset: Dataset, tmp_path: Path) -> None:
    """Normalisation is given: measured on all images in memory, on a sample from files."""
    recipe = replace(QUICK, epochs=1, batch_size=8, normalisation="half")
    records = [
        train(
            dataset,
            Plan(architecture=TINY, recipe=recipe),
            run_folder=tmp_path / kept,
            machine=Machine(threads=1, in_memory=kept, workers=2),
        )
        for kept in ("yes", "no")
    ]
    assert records[0].id == records[1].id
    assert records[0].result.test == records[1].result.test
    assert records[0].result.computed["held"] is True
    assert records[1].result.computed["held"] is False
    one, two = (weights.load(tmp_path / kept / "weights.safetensors")[0].state_dict() for kept in ("yes", "no"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
