"""Recipes, schedule, loop and evaluation, on trainings of seconds."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch

from tests.tiny import QUICK, TINY, digits
from trifold import layers
from trifold.data.dataset import Dataset
from trifold.data.digits import open_digits
from trifold.data.images import load
from trifold.data.preprocessing import plain
from trifold.data.split import split
from trifold.errors import InvalidInput
from trifold.network import Network, Numerics, build
from trifold.train import recipe
from trifold.train.evaluate import evaluation, nearest_neighbours, probabilities, wilson
from trifold.train.loop import Task, epoch_batches, epoch_draws, num_steps, run_epochs
from trifold.train.randomness import stream_seed
from trifold.train.recipe import Recipe, find_recipe, from_dict
from trifold.train.schedule import warmup_cosine

__all__ = ["digits"]  # the fixture


def task_of(dataset: Dataset, recipe: Recipe, seed: int = 0) -> Task:
    (images,) = load(dataset, plain(8, "L"))
    parts = split(dataset)
    return Task(
        train=images[parts.train],
        minival=images[parts.minival],
        preprocessing=plain(8, "L"),
        recipe=recipe,
        seed=seed,
        flip=False,
    )


def tiny_network(seed: int = 0) -> Network:
    numerics = Numerics(bn_momentum=0.1, padding="symmetric")
    return build(TINY, num_classes=10, in_channels=1, numerics=numerics, drop_rate=0.1, seed=seed)


def losses_of(dataset: Dataset, recipe: Recipe, seed: int = 0) -> list[float]:
    return [epoch.train_loss for epoch in run_epochs(tiny_network(seed), task_of(dataset, recipe, seed))]


# ---- recipe and schedule ----


def test_a_recipe_survives_its_round_trip_through_json() -> None:
    recipe = find_recipe("small", {"epochs": 3})
    assert from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert recipe.epochs == 3


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("epochs", 0, "a whole number from 1 to 100000"),
        ("batch_size", 1, "a whole number from 2 to 65536"),
        ("padding", "none", "same or same_static or symmetric"),
        ("lr", 0.0, "a number from 1e-08 to 100"),
        ("lr", float("nan"), "a number from"),
        ("drop_rate", 1.0, "a number from 0 to 0.95"),
        ("optimizer", "adam", "adamw or sgd"),
        ("shift", 0.6, "a number from 0 to 0.5"),
    ],
)
def test_a_recipe_out_of_range_is_refused(field: str, value: object, allowed: str) -> None:
    with pytest.raises(InvalidInput, match=f"^recipe: {field} must be {re.escape(allowed)}.*, got {value!r}$"):
        find_recipe("small", {field: value})


def test_a_recipes_paddings_are_the_networks() -> None:
    assert recipe.PADDINGS == layers.PADDINGS


def test_unknown_recipes_and_fields_are_refused() -> None:
    with pytest.raises(InvalidInput, match="recipe must be small, got 'large'"):
        find_recipe("large")
    with pytest.raises(InvalidInput, match="recipe has no field 'epoch'; its fields are name, epochs,"):
        find_recipe("small", {"epoch": 3})
    with pytest.raises(InvalidInput, match="recipe: fields do not fit"):
        from_dict({"name": "x"})


def test_the_rate_rises_in_a_line_then_falls_along_half_a_cosine() -> None:
    assert [warmup_cosine(p, 0.2) for p in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert warmup_cosine(0.0, 0.0) == 1
    assert warmup_cosine(0.999, 1.0) == pytest.approx(0.999)
    assert warmup_cosine(1.0, 1.0) == 1


# ---- randomness and loop ----


def test_streams_differ_by_seed_purpose_and_position() -> None:
    seeds = {stream_seed(s, p, e) for s in range(5) for p in ("order", "augment") for e in range(5)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream_seed(0, "order", 0) == stream_seed(0, "order", 0)


@pytest.mark.parametrize(("images", "sizes"), [(100, {33, 34}), (5, {5}), (33, {33}), (50, {25}), (2, {2})])
def test_an_epoch_deals_every_image_once_into_even_batches(images: int, sizes: set[int]) -> None:
    batches = epoch_batches(images, QUICK, seed=0, epoch=1)
    assert torch.cat(batches).sort().values.tolist() == list(range(images))
    assert {len(batch) for batch in batches} == sizes


def test_no_step_has_a_single_image() -> None:
    for images in range(2, 40):
        sizes = [len(batch) for batch in epoch_batches(images, replace(QUICK, batch_size=2), seed=0, epoch=0)]
        assert min(sizes) >= 2
        assert sum(sizes) == images
    assert num_steps(100, 3) == 33


def test_a_single_training_image_is_refused_before_training(digits: Dataset) -> None:
    task = task_of(digits, QUICK)
    with pytest.raises(InvalidInput, match="train must hold at least 2 images, which batch norm needs, got 1"):
        next(run_epochs(tiny_network(), replace(task, train=task.train[[0]])))


def test_order_and_draws_change_with_the_epoch() -> None:
    first, second = (torch.cat(epoch_batches(50, QUICK, 0, epoch)) for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(epoch_draws(50, 0, 0), epoch_draws(50, 0, 1))
    assert torch.equal(epoch_draws(50, 0, 1), epoch_draws(50, 0, 1))


def test_the_same_seed_and_threads_give_the_same_losses_to_the_last_bit(digits: Dataset) -> None:
    first = losses_of(digits, QUICK)
    torch.manual_seed(999)  # the global generator plays no part
    assert losses_of(digits, QUICK) == first
    assert losses_of(digits, QUICK, seed=1) != first


def test_training_leaves_the_global_generator_alone(digits: Dataset) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    losses_of(digits, replace(QUICK, epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_seeds_no_device_that_the_network_is_not_on(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*call: object) -> None:
        raise AssertionError("a device was seeded")

    for name in ("manual_seed", "manual_seed_all"):  # torch.manual_seed calls the second
        monkeypatch.setattr(torch.cuda, name, forbidden)
    assert len(losses_of(digits, replace(QUICK, epochs=1))) == 1


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 0.02), ("sgd", 0.2)])
def test_the_loss_falls_and_the_rate_follows_the_schedule(digits: Dataset, optimizer: str, lr: float) -> None:
    recipe = replace(QUICK, epochs=16, optimizer=optimizer, lr=lr, warmup_epochs=4.0)
    network = tiny_network()
    epochs = list(run_epochs(network, task_of(digits, recipe)))
    assert epochs[-1].train_loss < 0.85 * epochs[0].train_loss
    assert epochs[-1].minival_accuracy > 0.3
    steps = 7  # 211 training images in batches of 32, to the nearest whole number
    expected = [lr * warmup_cosine((steps * (e + 1) - 0.5) / (16 * steps), 0.25) for e in range(16)]
    assert [epoch.lr for epoch in epochs] == pytest.approx(expected)


def test_a_loss_that_is_no_number_stops_with_the_rate_named(digits: Dataset) -> None:
    network = tiny_network()
    torch.nn.init.constant_(network.get_classifier().weight, float("nan"))  # type: ignore[arg-type]  # a Linear
    with pytest.raises(InvalidInput, match=r"lr 0\.003 is too high: the loss is nan at epoch 1 step 1"):
        next(run_epochs(network, task_of(digits, QUICK)))


# ---- evaluation ----


def test_counts_are_those_worked_by_hand() -> None:
    found = evaluation(("a", "b", "c"), torch.tensor([0, 1, 1, 2, 0]), torch.tensor([0, 1, 0, 1, 0]))
    assert found.confusion == ((2, 1, 0), (0, 1, 1), (0, 0, 0))
    assert (found.correct, found.total, found.accuracy) == (3, 5, 0.6)
    assert found.per_class == {"a": 2 / 3, "b": 0.5, "c": None}


def test_the_interval_is_wilsons() -> None:
    # Agresti and Coull 1998: 0 of 10 gives (0, 0.278), 5 of 10 (0.237, 0.763).
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)


def test_nearest_neighbours_find_equal_images_and_match_scikit_learns_known_figure(digits: Dataset) -> None:
    whole = open_digits()
    (images,) = load(whole, plain(8, "L"))
    parts = split(whole, seed=0)
    train_images, test_images = images[parts.train], images[parts.test]
    found = nearest_neighbours(train_images, test_images, whole.classes)
    distances = torch.cdist(test_images.pixels.flatten(1).double(), train_images.pixels.flatten(1).double())
    votes = train_images.labels[distances.topk(3, largest=False).indices]
    assert found.correct == pytest.approx(int((votes.mode(1).values == test_images.labels).sum()), abs=1)
    assert nearest_neighbours(test_images, test_images, whole.classes, neighbours=1).accuracy == 1


def test_probabilities_do_not_depend_on_how_images_are_batched(digits: Dataset) -> None:
    network = tiny_network()
    (images,) = load(digits, plain(8, "L"))
    together = probabilities(network, images.pixels, plain(8, "L"))
    alone = probabilities(network, images.pixels[7:8], plain(8, "L"))
    assert torch.allclose(together[7:8], alone, atol=1e-6)
    assert together.sum(1).tolist() == pytest.approx([1.0] * len(images), abs=1e-5)
