"""What may go wrong around a training: each is one clear line, and the same command then ends as if it never had."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.sittings import (
    arguments,
    begin,
    do_at,
    fail_at,
    fill,
    kill_at,
    kill_worker,
    make_inputs,
    no_longer,
    overwrite,
    resumed_at,
    signal_at,
    sit,
    steps_of,
)
from tests.test_resume import OPTIMISER, assert_same, files, held, inputs

__all__ = ["files", "held", "inputs"]  # the fixtures


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def begun(inputs: Path, run: Path, steps: int = 2) -> list[str]:
    """The command of a run that was killed after so many steps."""
    command = arguments(inputs, run)
    assert sit(command, partial(kill_at, OPTIMISER, steps + 1)).status == -signal.SIGKILL
    return command


# ---- disks ----


@pytest.mark.parametrize(
    ("where", "call", "file", "begins"),
    [
        ("trifold.train.run:write_atomic", 1, "", []),  # the log's first line
        ("trifold.train.checkpoint:save", 3, "/checkpoint.pt", [(1, 2)]),
        ("trifold.train.run:save_weights", 1, "", [(3, 0)]),
        ("trifold.train.run:write_record", 1, "", [(3, 0)]),
    ],
)
def test_a_full_disk_is_one_line_and_with_room_the_run_ends_the_same(
    where: str, call: int, file: str, begins: list[tuple[int, int]], inputs: Path, held: Path, small_disk: Path
) -> None:
    run = small_disk / "run"
    fault = partial(do_at, where, call, partial(fill, small_disk))
    failed = sit(arguments(inputs, run), fault, err=small_disk.parent / "stderr")
    assert failed.status == 1
    assert failed.line.startswith(f"trifold: {run}{file}: cannot be written")
    assert "No space left on device" in failed.line
    assert failed.line.endswith("make room and give the same command again")
    (small_disk / "ballast").unlink()
    assert sit(arguments(inputs, run)).status == 0
    assert resumed_at(run) == begins
    assert_same(held, run)


def test_a_log_that_takes_half_a_line_is_one_line_and_loses_nothing(inputs: Path, held: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    limit = partial(no_longer, run / "log.jsonl", 20)
    command = arguments(inputs, run, "--checkpoint-every", "1000")
    failed = sit(command, partial(do_at, "trifold.train.log:LogWriter.write", 3, limit))
    assert (failed.status, failed.line) == (1, f"trifold: {run}/log.jsonl: cannot be written: File too large")
    assert not (run / "log.jsonl").read_bytes().endswith(b"\n")
    assert sit(command).status == 0
    assert_same(held, run)


def test_a_read_only_folder_is_one_line(inputs: Path, small_disk: Path) -> None:
    begun(inputs, small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for name in ("run", "new"):
        command = arguments(inputs, small_disk / name)
        refused = sit(command, err=small_disk.parent / "stderr")
        assert refused.status == 2
        assert re.fullmatch(rf"trifold: {small_disk}/{name}: cannot be .*Read-only file system.*", refused.line)


# ---- run folders ----


def test_another_runs_folder_is_left_as_it_is(inputs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = begun(inputs, run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    refused = sit([*command, "--seed", "1"])
    assert refused.status == 2
    assert re.fullmatch(rf"trifold: {run}: holds run \w+, but asked is run \w+ .*--overwrite", refused.line)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_folder_of_other_files_is_left_as_it_is(inputs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.txt").write_text("years")
    refused = sit(arguments(inputs, run))
    assert (refused.status, refused.line) == (
        2, f"trifold: {run}: is not a run folder: it holds 'thesis.txt'; give a new one",
    )  # fmt: skip
    assert [path.name for path in run.iterdir()] == ["thesis.txt"]


def test_a_second_writer_is_refused_until_the_first_is_killed(inputs: Path, held: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = arguments(inputs, run)
    first = begin(command, tmp_path / "first", partial(signal_at, OPTIMISER, 3, signal.SIGSTOP))
    while not (run / "checkpoint.previous.pt").exists():
        first.join(0.01)
        assert first.is_alive()
    refused = sit(command)
    assert refused.status == 2
    assert refused.line.startswith(f"trifold: {run}: is being written to by process {first.pid} on ")
    first.kill()
    first.join()
    assert sit(command).status == 0
    assert_same(held, run)


# ---- damaged files ----


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [half, flip])
def test_a_damaged_checkpoint_falls_back_on_the_one_before(
    damage: Callable[[Path], None], inputs: Path, held: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = begun(inputs, run, steps=3)
    damage(run / "checkpoint.pt")
    went_on = sit(command)
    assert (went_on.status, went_on.line) == (
        0, f"{run}/checkpoint.pt: is damaged or was cut short; going on from the checkpoint before it, "
        f"{run}/checkpoint.previous.pt",
    )  # fmt: skip
    assert resumed_at(run) == [(1, 2)]
    assert_same(held, run)


def test_two_damaged_checkpoints_and_a_log_cut_short_are_one_line_each(inputs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = begun(inputs, run, steps=3)
    log = (run / "log.jsonl").read_bytes()
    (run / "log.jsonl").write_bytes(log[: log.index(b"\n") + 1])
    refused = sit(command)
    assert refused.status == 2
    assert re.fullmatch(
        rf"trifold: {run}/log.jsonl: has \d+ bytes, fewer than the \d+ of the checkpoint beside it; .*", refused.line
    )
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        half(run / name)
    refused = sit(command)
    assert refused.status == 2
    assert refused.line == (
        f"trifold: {run}/checkpoint.pt: is damaged or was cut short; no older checkpoint is whole: start anew with "
        "--overwrite"
    )


# ---- the training itself ----


def test_a_killed_worker_is_one_line_and_loses_nothing(inputs: Path, files: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = arguments(inputs, run, held=False)
    failed = sit(command, partial(do_at, OPTIMISER, 3, kill_worker))
    assert (failed.status, failed.line) == (
        1, "trifold: a worker that decodes images was lost (killed, or out of memory); the same command goes on from "
        "the last checkpoint",
    )  # fmt: skip
    assert sit(command).status == 0
    assert resumed_at(run)[0][0] == 1  # in the first epoch; at which step is the signal's to say
    assert_same(files, run)


def test_a_loss_that_is_no_number_names_rate_epoch_and_step_each_time(inputs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    changes = ("optimizer=sgd", "lr=100", "warmup_epochs=0", "clip_norm=0", "weight_decay=1", "decay=all_but_norm")
    more = [part for change in (*changes, "ema_decay=0", "epochs=60") for part in ("--set", change)]
    failed = sit(arguments(inputs, run, *more))
    assert failed.status == 2
    loss = "(nan|inf|no number on minival)"
    pattern = rf"trifold: lr 100 is too high: the loss is {loss} at epoch \d+ step \d+; try a tenth of it, .*"
    assert re.fullmatch(pattern, failed.line)
    done = steps_of(run)
    again = sit(arguments(inputs, run, *more))
    assert (again.status, again.line) == (2, failed.line)
    assert steps_of(run) == done


def test_no_memory_is_one_line_and_loses_nothing(inputs: Path, held: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory")
    failed = sit(arguments(inputs, run), partial(fail_at, "trifold.train.loop:_backward", 6, error))
    assert (failed.status, failed.line) == (
        1, "trifold: out of memory; a smaller batch_size, resolution or network needs less",
    )  # fmt: skip
    assert sit(arguments(inputs, run)).status == 0
    assert resumed_at(run) == [(1, 2)]
    assert_same(held, run)


def test_an_image_that_goes_bad_meanwhile_is_named_and_once_mended_the_run_ends_the_same(
    files: Path, tmp_path: Path
) -> None:
    inputs, run = make_inputs(tmp_path), tmp_path / "run"
    bad = sorted((inputs / "data").rglob("*.png"))
    good = [file.read_bytes() for file in bad]
    command = arguments(inputs, run, held=False)
    failed = sit(command, *(partial(do_at, OPTIMISER, 5, partial(overwrite, file, b"no picture")) for file in bad))
    assert failed.status == 2
    assert re.fullmatch(rf"trifold: {inputs}/data/\w+/\d\d\.png: .*", failed.line)
    for file, content in zip(bad, good, strict=True):
        file.write_bytes(content)
    assert sit(command).status == 0
    assert resumed_at(run) != []
    assert_same(files, run)
