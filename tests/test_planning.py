"""How many epochs fit into a time: the arithmetic, and that the trial leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tasks import state_of, task_of, tiny_network
from tests.tiny import QUICK, TINY, digits
from trifold.cli.training import _seconds
from trifold.data.dataset import Dataset
from trifold.data.digits import open_digits
from trifold.errors import InvalidInput
from trifold.train import planning
from trifold.train.log import read_log
from trifold.train.machine import Machine
from trifold.train.planning import MARGIN, planned_epochs, step_seconds
from trifold.train.record import Plan
from trifold.train.run import train
from trifold.train.task import Task

__all__ = ["digits"]  # the fixture


@pytest.fixture(scope="module")
def task() -> Task:
    """211 training images in 7 steps, 29 of minival."""
    whole = open_digits()
    return task_of(replace(whole, samples=whole.samples[::6]), QUICK)


def test_epochs_are_what_time_is_left_over_what_one_takes(task: Task) -> None:
    # An epoch of steps of 1 s: 7 s, and 29 of 32 images at a third of a step.
    epoch = 7 + 29 / 32 / 3
    assert planned_epochs(100.0, 0.0, 1.0, task) == int(97 // epoch) == 13
    assert planned_epochs(100.0, 50.0, 1.0, task) == int(47 // epoch) == 6
    assert planned_epochs(100.0, 0.0, 0.1, task) == int(97 // (epoch / 10)) == 132


@given(seconds=st.floats(1, 10**6), spent=st.floats(0, 1000), step=st.floats(1e-4, 10))
def test_planned_epochs_fit_and_one_more_would_not(task: Task, seconds: float, spent: float, step: float) -> None:
    epoch = (7 + 29 / 32 / 3) * step
    left = seconds * MARGIN - spent
    if left < epoch * (1 - 1e-9):
        with pytest.raises(InvalidInput, match=r"^time must allow one epoch"):
            planned_epochs(seconds, spent, step, task)
    elif left > epoch * (1 + 1e-9):
        found = planned_epochs(seconds, spent, step, task)
        assert 1 <= found <= 100_000
        assert found * epoch <= left * (1 + 1e-9)
        assert found == 100_000 or (found + 1) * epoch >= left * (1 - 1e-9)


def test_a_time_too_short_for_one_epoch_is_refused_in_one_line(task: Task) -> None:
    expected = r"^time must allow one epoch, about 73 s here after 5 s of preparation, got 60 s; a smaller network, .*$"
    with pytest.raises(InvalidInput, match=expected):
        planned_epochs(60.0, 5.0, 10.0, task)


def test_the_trial_leaves_the_network_and_the_global_generator_as_they_were(task: Task) -> None:
    network = tiny_network()
    before = state_of(network)
    torch.manual_seed(7)
    drawn = torch.get_rng_state()
    assert 0 < step_seconds(network, task) < 60
    assert torch.equal(torch.get_rng_state(), drawn)
    assert network.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_trial_takes_a_step_that_a_third_are_quicker_than(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(spans: list[float]) -> None:
        times = iter([0.0, *(sum(spans[: i + 1]) for i in range(len(spans)))])

        def run(training: object, dearest: Task, trial: planning._Trial) -> None:
            assert dearest.recipe.head_epochs == 0  # epochs of the head alone are cheaper
            trial.times = list(times)

        monkeypatch.setattr(planning, "run_steps", run)

    slow = replace(task, recipe=replace(QUICK, head_epochs=1))
    steps([50.0, 40.0, 30.0, 1.0, 2.0, 3.0, 9.0])
    assert step_seconds(tiny_network(), slow) == pytest.approx(5 / 3)
    steps([5.0, 1.0, 3.0])  # an epoch with fewer steps than the trial warms up with
    assert step_seconds(tiny_network(), slow) == pytest.approx(5 / 3)


def test_a_plan_in_time_trains_so_many_epochs_and_says_so(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(architecture=TINY, recipe=replace(QUICK, epochs=1000), seconds=20.0)
    with monkeypatch.context() as patched:
        patched.setattr("trifold.train.run.planned_epochs", lambda *_: 2)
        record = train(digits, plan, run_folder=tmp_path, machine=Machine(threads=1))
    assert record.result.epochs == record.result.computed["epochs"] == 2
    (start,) = [entry for entry in read_log(tmp_path / "log.jsonl") if entry["type"] == "start"]
    assert start["decided"]["epochs"] == 2
    assert record.asked["seconds"] == 20.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("90", 90),
        ("90s", 90),
        ("1.5s", 1.5),
        ("20m", 1200),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1H30M", 5400),
        (" 2m30s ", 150),
        ("0.5h", 1800),
        ("1h15", 3615),
    ],
)
def test_a_length_of_time_is_read_in_hours_minutes_and_seconds(text: str | None, seconds: float) -> None:
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "soon", "-5m", "5d", "m", "30m1h", "1h 30m", "1e3", "nan", "inf"])
def test_what_is_no_length_of_time_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^--time must be a length such as 20m, 1h30m or 90s, got '.*'$"):
        _seconds(text)
