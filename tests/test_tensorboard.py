"""Events are read back with TensorBoard's own reader."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trifold.errors import InvalidData
from trifold.train.tensorboard import PREFIX, Scalar, scalars, write_events


def step(number: int, *, epoch: int = 1, loss: float = 0.5, lr: float = 0.25) -> dict[str, Any]:
    return {"type": "step", "epoch": epoch, "step": number, "loss": loss, "lr": lr}


def epoch(number: int, **changes: float | None) -> dict[str, Any]:
    entry = {"train_loss": 1.5, "minival_loss": 0.75, "minival_accuracy": 0.5, "lr": 0.25, "seconds": 8.0}
    return {"type": "epoch", "epoch": number, **entry, "waiting": 0.125, **changes}


LOG = [
    {"type": "run", "id": "0123"},
    step(1, loss=4.0),
    step(2, loss=3.0),
    epoch(1),
    step(1, epoch=2, loss=2.0),
    {"type": "resumed", "step": 4},
    step(2, epoch=2, loss=1.0),
    epoch(2, minival_accuracy=0.625),
]


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


LOSSES = [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]


def test_the_log_reads_back_through_tensorboard(tmp_path: Path) -> None:
    write_events(LOG, tmp_path / "events")
    assert read(tmp_path / "events") == {
        "train/loss": LOSSES,
        "train/lr": [(1, 0.25), (2, 0.25), (3, 0.25), (4, 0.25)],
        "train/epoch_loss": [(2, 1.5), (4, 1.5)],
        "minival/loss": [(2, 0.75), (4, 0.75)],
        "minival/top1": [(2, 0.5), (4, 0.625)],
        "time/waiting_share": [(2, 0.125), (4, 0.125)],
    }


def test_writing_again_leaves_one_file_and_each_point_once(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    first = write_events(LOG[:4], folder)
    (folder / "events.out.tfevents.1700000000.host.17.0").write_bytes(first.read_bytes())
    (folder / "notes.txt").write_text("mine")
    second = write_events(LOG, folder)
    assert sorted(folder.iterdir()) == [second, folder / "notes.txt"]
    assert list(tmp_path.iterdir()) == [folder]
    assert read(folder)["train/loss"] == LOSSES


def test_a_kill_before_the_old_file_goes_doubles_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    first = write_events(LOG[:4], folder)
    old = first.read_bytes()
    write_events(LOG, folder)
    first.write_bytes(old)
    assert len(list(folder.iterdir())) == 2
    assert read(folder)["train/loss"] == LOSSES
    write_events(LOG, folder)
    assert len(list(folder.iterdir())) == 1


def test_a_kill_while_writing_leaves_the_old_events_and_is_cleared_up(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    write_events(LOG[:4], folder)
    shutil.copytree(folder, tmp_path / ".events.making")
    assert read(folder)["train/loss"] == LOSSES[:2]
    write_events(LOG, folder)
    assert list(tmp_path.iterdir()) == [folder]
    assert read(folder)["train/loss"] == LOSSES


def test_an_entry_that_a_resumed_log_has_twice_counts_as_written_last() -> None:
    points = scalars([step(1, loss=4.0), step(2, loss=9.0), step(2, loss=3.0), epoch(1, minival_loss=7.0), epoch(1)])
    assert [(point.step, point.value) for point in points if point.tag == "train/loss"] == [(1, 4.0), (2, 3.0)]
    assert [point.value for point in points if point.tag == "minival/loss"] == [0.75]


def test_time_goes_on_evenly_within_an_epoch(tmp_path: Path) -> None:
    seconds = {point.step: point.seconds for point in scalars([*LOG, step(1, epoch=3)])}
    assert seconds == {1: 4.0, 2: 8.0, 3: 12.0, 4: 16.0, 5: 16.0}
    path = write_events(LOG, tmp_path / "events", started=1000.0)
    reader = EventAccumulator(str(path))
    reader.Reload()
    assert [event.wall_time for event in reader.Scalars("train/loss")] == [1004.0, 1008.0, 1012.0, 1016.0]


def test_a_log_without_steps_has_its_epochs_by_number() -> None:
    assert scalars([epoch(1, waiting=None), {"type": "epoch", "epoch": 2, "minival_loss": 0.5}]) == (
        Scalar("train/epoch_loss", 1, 1.5, 8.0),
        Scalar("minival/loss", 1, 0.75, 8.0),
        Scalar("minival/top1", 1, 0.5, 8.0),
        Scalar("minival/loss", 2, 0.5, 8.0),
    )


def test_two_hundred_thousand_steps_are_thinned_and_each_epochs_last_is_kept(tmp_path: Path) -> None:
    log: list[dict[str, Any]] = []
    for number in range(1, 101):
        log += [step(s, epoch=number, loss=float(s)) for s in range(1, 2001)]
        log.append(epoch(number))
    start = time.process_time()
    write_events(log, tmp_path / "events")
    assert time.process_time() - start < 20  # a second or two; every step would take minutes
    shown = [at for at, _ in read(tmp_path / "events")["train/loss"]]
    assert 2000 <= len(shown) <= 2100
    assert shown[:2] == [1, 101]
    assert set(range(2000, 200_001, 2000)) <= set(shown)


def test_an_empty_log_gives_an_empty_file(tmp_path: Path) -> None:
    assert write_events([], tmp_path / "events").name == f"{PREFIX}000000001"
    assert read(tmp_path / "events") == {}


@pytest.mark.parametrize("wrong", ["high", True, [1]])
def test_what_is_no_number_is_named(wrong: object) -> None:
    with pytest.raises(InvalidData, match=r"^log: loss of step must be a number, got "):
        scalars([{**step(1), "loss": wrong}])


def test_tensorboard_waits_until_it_is_needed() -> None:
    code = "import sys, trifold.train.tensorboard; sys.exit('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0


def test_writing_events_loads_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trifold.train.tensorboard import write_events; "
        f"write_events([], Path({str(tmp_path)!r})); sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
