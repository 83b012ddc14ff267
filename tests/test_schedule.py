"""Learning rates and averages against the paper's published code, worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trifold.baselines import find
from trifold.train.recipe import Recipe
from trifold.train.recipes import find_recipe
from trifold.train.schedule import ema_decay, learning_rate, warmup_cosine, warmup_exponential

IMAGENET_STEPS = 1_281_167 / 4096
"""Steps an epoch in the paper's code, a fraction; 5 epochs are 1,563 of them."""

PAPER = find_recipe("paper", find("b0"))


def rate(recipe: Recipe, step: int, steps_per_epoch: float = IMAGENET_STEPS) -> float:
    return learning_rate(recipe, step, steps_per_epoch=steps_per_epoch)


def test_the_papers_rate_at_4096_images_a_step_is_that_of_its_code() -> None:
    assert PAPER.highest_lr == pytest.approx(0.256)
    assert rate(PAPER, 0) == 0
    assert rate(PAPER, 1562) == pytest.approx(0.256 * 1562 / 1563, rel=1e-12)
    assert rate(PAPER, 1562) == pytest.approx(0.25584, abs=5e-6)
    assert rate(PAPER, 1563) == pytest.approx(0.24087, abs=5e-6)  # two decays fell into the warm-up
    assert rate(PAPER, math.ceil(350 * IMAGENET_STEPS)) == pytest.approx(0.003091, abs=5e-7)


def test_the_exponential_schedule_is_a_stair_whose_steps_are_decay_epochs_apart() -> None:
    recipe = replace(PAPER, warmup_epochs=0.0, decay_epochs=2.4, decay_rate=0.97)
    rates = [rate(recipe, step, 10.0) for step in range(100)]
    assert rates == pytest.approx([0.256 * 0.97 ** (step // 24) for step in range(100)])
    assert [i for i in range(1, 100) if rates[i] != rates[i - 1]] == [24, 48, 72, 96]


@pytest.mark.parametrize("name", ["paper", "modern"])
@pytest.mark.parametrize("factor", [0.25, 0.5, 2])
def test_the_rate_is_in_proportion_to_the_batch(name: str, factor: float) -> None:
    recipe = find_recipe(name, find("b0"))
    other = replace(recipe, batch_size=int(recipe.batch_size * factor))
    assert other.highest_lr == pytest.approx(recipe.highest_lr * factor)
    for step in (1, 100, 30_000):
        assert rate(other, step) == pytest.approx(rate(recipe, step) * factor)


def test_without_a_reference_batch_the_rate_stands_as_it_is() -> None:
    assert replace(PAPER, lr_batch=0, batch_size=2).highest_lr == replace(PAPER, lr_batch=0).highest_lr == 0.016


def test_a_cosine_rises_in_a_line_and_ends_half_a_step_before_nothing() -> None:
    recipe = Recipe(name="r", epochs=10, batch_size=8, optimizer="sgd", lr=0.5, warmup_epochs=2.0)
    rates = [rate(recipe, step, 10.0) for step in range(100)]
    assert rates[:20] == pytest.approx([0.5 * (step + 0.5) / 20 for step in range(20)])
    assert rates[20] == pytest.approx(0.25 * (1 + math.cos(math.pi * 0.5 / 80)))
    assert rates[60] == pytest.approx(0.25 * (1 + math.cos(math.pi * 40.5 / 80)))
    assert rates[99] == pytest.approx(0.25 * (1 + math.cos(math.pi * 79.5 / 80)))
    assert 0 < rates[99] < 0.5 * 1e-3
    assert max(rates) <= 0.5
    assert all(later < earlier for earlier, later in pairwise(rates[20:]))


def test_the_rate_rises_in_a_line_then_falls_along_half_a_cosine() -> None:
    assert [warmup_cosine(p, 0.2) for p in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert warmup_cosine(0.0, 0.0) == 1
    assert warmup_cosine(0.999, 1.0) == pytest.approx(0.999)
    assert warmup_cosine(1.0, 1.0) == 1


def test_a_constant_rate_stays_after_its_warm_up() -> None:
    recipe = Recipe(name="r", epochs=4, batch_size=8, optimizer="sgd", lr=0.5, warmup_epochs=1.0, schedule="constant")
    assert [rate(recipe, step, 5.0) for step in range(20)] == pytest.approx(
        [0.5 * (step + 0.5) / 5 for step in range(5)] + [0.5] * 15
    )
    assert rate(replace(recipe, warmup_epochs=0.0), 0, 5.0) == 0.5


def test_a_warm_up_longer_than_the_run_never_reaches_the_highest_rate() -> None:
    for schedule in ("cosine", "exponential", "constant"):
        recipe = replace(PAPER, epochs=2, warmup_epochs=8.0, schedule=schedule)
        rates = [rate(recipe, step, 10.0) for step in range(20)]
        assert rates == sorted(rates)
        assert rates[-1] <= recipe.highest_lr


@given(
    schedule=st.sampled_from(("cosine", "exponential", "constant")),
    epochs=st.integers(1, 400),
    steps=st.integers(1, 50),
    warmup=st.floats(0, 20),
    data=st.data(),
)
def test_every_rate_lies_between_nothing_and_the_highest(
    schedule: str, epochs: int, steps: int, warmup: float, data: st.DataObject
) -> None:
    recipe = replace(PAPER, schedule=schedule, epochs=epochs, warmup_epochs=warmup, lr=0.1, lr_batch=0)
    step = data.draw(st.integers(0, epochs * steps - 1))
    found = rate(recipe, step, float(steps))
    assert 0 <= found <= 0.1
    if schedule != "exponential":
        assert found > 0


@given(epochs=st.integers(1, 300), times=st.integers(2, 5), step=st.integers(0, 1000))
def test_a_cosine_is_a_function_of_progress_alone(epochs: int, times: int, step: int) -> None:
    recipe = replace(PAPER, schedule="cosine", epochs=epochs, warmup_epochs=epochs / 10)
    longer = replace(recipe, epochs=epochs * times, warmup_epochs=epochs * times / 10)
    step = min(step, epochs * 7 - 1)
    # The middle of a step lies at the same progress as the middle of `times` steps.
    assert rate(recipe, step, 7.0) == pytest.approx(rate(longer, step, 7.0 / times), rel=1e-9)


def test_a_stair_begins_where_the_warm_up_ends() -> None:
    assert [warmup_exponential(step, 4, 2.0, 0.5) for step in range(8)] == [
        0,
        0.25,
        0.5,
        0.75,
        0.25,
        0.25,
        0.125,
        0.125,
    ]
    assert warmup_exponential(0, 0, 2.0, 0.5) == 1


def test_the_averages_decay_rises_as_tensorflows_does() -> None:
    assert [ema_decay(0.9999, step) for step in (0, 1, 8, 90)] == [0.1, 2 / 11, 0.5, 0.91]
    for step in (0, 10, 1000, 89_980, 89_990, 10**6):
        assert ema_decay(0.9999, step) == min(0.9999, (1 + step) / (10 + step))
    assert ema_decay(0.9999, 89_979) < 0.9999
    assert ema_decay(0.9999, 89_990) == 0.9999
