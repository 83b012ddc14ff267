"""A training that was killed or stopped goes on to the same bits: weights, losses, epochs, counts on test."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from scripts.random_kills import differences
from tests.sittings import (
    STEPS,
    Disturb,
    Sat,
    arguments,
    jumping,
    kill_at,
    kill_in_average,
    large_scale,
    make_inputs,
    resumed_at,
    signal_at,
    sit,
    steps_of,
    ticking,
    without_kernels,
)
from trifold.kernels import instruction_set
from trifold.train.log import read_log

ALL_STEPS = [(epoch, step) for epoch in (1, 2) for step in range(1, STEPS + 1)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def held(inputs: Path) -> Path:
    """An uninterrupted run on images held in memory."""
    assert sit(arguments(inputs, inputs / "held")) == Sat(status=0, err=(inputs / "held.stderr").read_text())
    assert steps_of(inputs / "held") == ALL_STEPS
    return inputs / "held"


@pytest.fixture(scope="module")
def files(inputs: Path) -> Path:
    """An uninterrupted run on files that two workers decode."""
    assert sit(arguments(inputs, inputs / "files", held=False)).status == 0
    return inputs / "files"


def assert_same(reference: Path, run: Path) -> None:
    assert differences(reference, run) == ()
    assert steps_of(run) == steps_of(reference)  # each step stands once
    assert not [path.name for path in run.iterdir() if path.name.endswith(".tmp") or "checkpoint" in path.name]


OPTIMISER, RENAME = "torch.optim:AdamW.step", "pathlib:Path.replace"
MOMENTS: dict[str, tuple[Disturb, tuple[int, int]]] = {
    # A moment, and (epoch, steps of it) from which the next sitting must go on.
    "before both renames": (partial(kill_at, RENAME, 2, named="checkpoint.pt"), (1, 2)),
    "between the renames": (partial(kill_at, RENAME, 2, named="checkpoint.pt", after=True), (1, 2)),
    "after both renames": (partial(kill_at, RENAME, 3, named=".checkpoint.pt.tmp", after=True), (1, 3)),
    "after backward, before the optimiser": (partial(kill_at, OPTIMISER, 7), (2, 2)),
    # One call a group of parameters: those that decay, and the others.
    "in the middle of the optimiser": (partial(kill_at, "torch:_fused_adamw_", 5, after=True), (1, 2)),
    "in evaluation": (partial(kill_at, "trifold.train.evaluate:probabilities", 2), (2, 4)),
    "in the test": (partial(kill_at, "trifold.train.evaluate:probabilities", 3, after=True), (3, 0)),
    "in the middle of the average": (partial(kill_in_average, 6), (2, 1)),
    "between the weights and the record": (partial(kill_at, "trifold.train.run:write_record", 1), (3, 0)),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_changes_no_bit(moment: str, inputs: Path, held: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    kill, begins = MOMENTS[moment]
    assert sit(arguments(inputs, run), kill).status == -signal.SIGKILL
    assert (run / "checkpoint.pt").exists() == (moment != "between the renames")
    assert sit(arguments(inputs, run)).status == 0
    assert resumed_at(run) == [begins]
    assert_same(held, run)


def test_a_kill_before_the_first_step_changes_no_bit(inputs: Path, held: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for kill in (
        partial(kill_at, RENAME, 1),  # of the log's first line
        partial(kill_at, RENAME, 1, after=True),
        partial(kill_at, OPTIMISER, 1),
    ):
        assert sit(arguments(inputs, run), kill).status == -signal.SIGKILL
    assert sit(arguments(inputs, run)).status == 0
    assert resumed_at(run) == []
    assert_same(held, run)


@pytest.mark.parametrize(("call", "begins"), [(2, []), (4, [(2, 0)])])
def test_a_kill_when_workers_have_just_begun_changes_no_bit(
    call: int, begins: list[tuple[int, int]], inputs: Path, files: Path, tmp_path: Path
) -> None:
    # The first loader measures mean and deviation; then come those of the epochs and of their evaluations, in turn.
    run = tmp_path / "run"
    kill = partial(kill_at, "trifold.data.loader:DataLoader.__iter__", call, after=True)
    command = arguments(inputs, run, held=False)
    assert sit(command, kill).status == -signal.SIGKILL
    assert sit(command).status == 0  # at once, while the killed one's workers may still live
    assert resumed_at(run) == begins
    assert_same(files, run)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_number_of_workers_changes_no_bit(workers: int, inputs: Path, files: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert sit(arguments(inputs, run, "--workers", str(workers), held=False)).status == 0
    assert_same(files, run)


STOPS = [
    (signal.SIGTERM, OPTIMISER, 143, "stopped by SIGTERM: epoch 1 step 2 is saved"),
    (signal.SIGINT, OPTIMISER, 130, "stopped by Ctrl-C: epoch 1 step 2 is saved"),
    (signal.SIGTERM, "trifold.train.loop:predictions", 143, "stopped by SIGTERM: epoch 2 step 4 is saved"),
]


@pytest.mark.parametrize(("number", "where", "status", "text"), STOPS)
def test_a_signal_is_one_line_and_a_status_of_its_own(
    number: int, where: str, status: int, text: str, inputs: Path, tmp_path: Path
) -> None:
    stopped = sit(arguments(inputs, tmp_path / "run"), partial(signal_at, where, 2, number))
    assert (stopped.status, stopped.line) == (status, f"trifold: {text}; the same command goes on from there")


@pytest.mark.parametrize(("number", "where"), [stop[:2] for stop in STOPS])
def test_a_signal_saves_and_the_same_command_goes_on(
    number: signal.Signals, where: str, inputs: Path, held: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = arguments(inputs, run, "--checkpoint-every", "1000")  # only the signal, and an epoch's end, save
    assert sit(command, partial(signal_at, where, 2, number)).status == (143 if number == signal.SIGTERM else 130)
    assert not (run / "record.json").exists()
    assert sit(command).status == 0
    assert resumed_at(run) == [(1, 2) if where == OPTIMISER else (2, 4)]
    assert_same(held, run)


def test_a_real_command_told_to_stop_from_outside_goes_on(inputs: Path, held: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "trifold", *arguments(inputs, run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while process.poll() is None and not (run / "checkpoint.pt").exists():
        pass
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert not (run / "record.json").exists()
    assert sit(arguments(inputs, run)).status == 0
    assert_same(held, run)


def test_other_threads_are_refused_in_one_line_unless_bits_may_differ(inputs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert sit(arguments(inputs, run), partial(kill_at, OPTIMISER, 3)).status == -signal.SIGKILL
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    refused = sit(arguments(inputs, run, "--threads", "2"))
    assert refused.status == 2
    assert refused.line == (
        f"trifold: {run}: this run was begun with threads 1, and now it is 2: its bits would differ; go on as it was "
        "begun, or give --inexact"
    )
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert sit(arguments(inputs, run, "--threads", "2", "--inexact")).status == 0
    assert steps_of(run) == ALL_STEPS


def test_without_kernels_a_kill_changes_no_bit_either(inputs: Path, held: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert sit(arguments(inputs, whole), without_kernels).status == 0
    assert sit(arguments(inputs, run), without_kernels, partial(kill_at, OPTIMISER, 7)).status == -signal.SIGKILL
    assert sit(arguments(inputs, run), without_kernels).status == 0
    assert_same(whole, run)
    if instruction_set() != "off":
        assert differences(held, run) != ()  # the kernels had been used


@pytest.mark.skipif(instruction_set() == "off", reason="the kernels were not compiled: no C compiler with OpenMP")
def test_going_on_with_other_kernels_is_refused(inputs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert sit(arguments(inputs, run), partial(kill_at, OPTIMISER, 3)).status == -signal.SIGKILL
    refused = sit(arguments(inputs, run), without_kernels)
    assert refused.status == 2
    assert f"this run was begun with kernels {instruction_set()}, and now it is off" in refused.line


def test_the_time_is_planned_once_and_a_quicker_clock_later_changes_nothing(inputs: Path, tmp_path: Path) -> None:
    # Each look at the clock costs 0.1 s, or a fifth of it: the same --time would then fit more epochs.
    slow, quick = partial(ticking, 0.1), partial(ticking, 0.02)
    kill = partial(kill_at, OPTIMISER, 2 * STEPS + 4)  # STEPS of these are the plan's trial
    whole, run, other = (tmp_path / name for name in ("whole", "run", "other"))
    command = {path: [*arguments(inputs, path), "--time", "15s"] for path in (whole, run, other)}
    assert sit(command[whole], slow).status == 0
    assert sit(command[run], slow, kill).status == -signal.SIGKILL
    assert sit(command[run], quick).status == 0
    assert sit(command[other], quick, kill).status == -signal.SIGKILL
    epochs = [read_log(path / "log.jsonl")[0]["decided"]["epochs"] for path in (whole, run, other)]
    assert 2 <= epochs[0] == epochs[1] < epochs[2]
    assert steps_of(run)[-1] == (epochs[0], STEPS)
    assert_same(whole, run)


def test_a_clock_that_jumps_changes_no_bit(inputs: Path, held: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert sit(arguments(inputs, run), jumping, partial(kill_at, OPTIMISER, 7)).status == -signal.SIGKILL
    assert sit(arguments(inputs, run), jumping).status == 0
    assert_same(held, run)
    assert abs(json.loads((run / "record.json").read_text())["result"]["seconds"]) > 1e5  # the clock did jump


def test_the_loss_scale_of_float16_survives_a_kill(inputs: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    more = ("--set", "precision=float16", "--set", "epochs=10")
    assert sit(arguments(inputs, whole, *more), large_scale).status == 0
    skipped = [entry.get("skipped", False) for entry in read_log(whole / "log.jsonl") if entry["type"] == "step"]
    # The scale falls from 2^40 by half a step; begun anew at the kill, more steps would be skipped.
    assert skipped[0]
    assert not any(skipped[-3:])
    kill = partial(kill_at, "trifold.train.loop:_update", 38)
    assert sit(arguments(inputs, run, *more), large_scale, kill).status == -signal.SIGKILL
    assert sit(arguments(inputs, run, *more), large_scale).status == 0
    assert resumed_at(run) == [(10, 1)]
    assert_same(whole, run)
