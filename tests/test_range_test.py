"""The range test finds where the loss diverges, is the same for a seed, and leaves no trace."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.tasks import Watching, state_of, task_of, tiny_network
from tests.tiny import QUICK
from trifold.data.digits import open_digits
from trifold.errors import InvalidInput
from trifold.train.loop import Training, run_steps
from trifold.train.range_test import BELOW, DIVERGED, SMOOTHING, range_test
from trifold.train.task import Task


@pytest.fixture(scope="module")
def task() -> Task:
    """211 training images in 7 steps."""
    whole = open_digits()
    return task_of(replace(whole, samples=whole.samples[::6]), QUICK)


def test_rates_rise_by_one_factor_and_end_where_the_smoothed_loss_diverges(task: Task) -> None:
    found = range_test(tiny_network(), task, steps=30)
    factors = [later / earlier for earlier, later in zip(found.rates, found.rates[1:], strict=False)]
    assert factors == pytest.approx([10 ** (7 / 29)] * len(factors))
    assert found.rates[0] == 1e-6
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 30
    *before, last = found.smoothed
    assert last > DIVERGED * min(found.smoothed)
    assert all(value <= DIVERGED * min(before[: i + 1]) for i, value in enumerate(before))
    assert found.diverged_at == found.rates[-2]
    assert 0.3 < found.diverged_at < 10
    assert found.suggested == found.diverged_at / BELOW


def test_the_smoothed_loss_is_a_mean_whose_weights_fall_by_one_factor_a_step(task: Task) -> None:
    found = range_test(tiny_network(), task, steps=10, highest=1e-3)
    for last in range(10):
        weights = [SMOOTHING ** (last - i) for i in range(last + 1)]
        mean = sum(w * x for w, x in zip(weights, found.losses, strict=False)) / sum(weights)
        assert found.smoothed[last] == pytest.approx(mean)


def test_rates_under_that_of_divergence_are_all_taken(task: Task) -> None:
    found = range_test(tiny_network(), task, steps=10, highest=1e-3)
    assert len(found.losses) == 10
    assert found.diverged_at is None
    assert found.rates[-1] == pytest.approx(1e-3)
    assert found.suggested == 1e-3 / BELOW


def test_losses_are_those_of_a_training_at_these_rates(task: Task) -> None:
    found = range_test(tiny_network(), task, steps=10, highest=1e-2)
    training, watching = Training(tiny_network(), task), Watching()
    for epoch in (0, 1):
        training.epoch, training.step = epoch, 0
        run_steps(training, task, watching, rates=lambda number: found.rates[min(number, 9)])
    assert [step.loss for step in watching.steps[:10]] == list(found.losses)
    assert [step.lr for step in watching.steps[:10]] == list(found.rates)


def test_what_the_recipe_freezes_at_first_is_trained_here(task: Task) -> None:
    head_first = replace(task, recipe=replace(task.recipe, head_epochs=2, ema_decay=0.99))
    found = range_test(tiny_network(), head_first, steps=10, highest=1e-2)
    assert found == range_test(tiny_network(), task, steps=10, highest=1e-2)


def test_the_network_and_torchs_global_generator_stay_as_they_are(task: Task) -> None:
    network = tiny_network()
    network.eval()
    before, generator = state_of(network), torch.get_rng_state()
    range_test(network, task, steps=12)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(network).items())
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_result_is_a_function_of_the_seed(task: Task) -> None:
    first = range_test(tiny_network(), task, steps=12)
    torch.rand(3)
    assert range_test(tiny_network(), task, steps=12) == first
    assert range_test(tiny_network(), replace(task, seed=1), steps=12) != first


def test_a_loss_that_is_no_number_counts_as_diverged(task: Task) -> None:
    wild = replace(task, recipe=replace(task.recipe, optimizer="sgd"))
    found = range_test(tiny_network(), wild, steps=10, highest=1e30)
    assert found.diverged_at is not None
    assert found.diverged_at in found.rates
    assert all(map(math.isfinite, found.losses))


@pytest.mark.parametrize(
    ("steps", "lowest", "highest", "complaint"),
    [
        (9, 1e-6, 10.0, "steps must be a whole number from 10, got 9"),
        (10, 0.0, 10.0, "lowest and highest must rise from above 0, got 0.0 and 10.0"),
        (10, 1.0, 1.0, "lowest and highest must rise from above 0, got 1.0 and 1.0"),
        (10, 1.0, float("inf"), "lowest and highest must rise from above 0, got 1.0 and inf"),
    ],
)
def test_other_steps_and_rates_are_refused(
    task: Task, steps: int, lowest: float, highest: float, complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^{complaint}$"):
        range_test(tiny_network(), task, steps=steps, lowest=lowest, highest=highest)
