"""Random streams, loop and evaluation, on trainings of seconds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.tasks import task_of, tiny_network, trained
from tests.tiny import QUICK, digits
from trifold.data.dataset import Dataset
from trifold.data.digits import open_digits
from trifold.data.images import load
from trifold.data.loader import Held
from trifold.data.split import split
from trifold.errors import InvalidInput
from trifold.preprocessing import plain
from trifold.train.evaluate import evaluation, nearest_neighbours, probabilities, wilson
from trifold.train.loop import epoch_order, num_images, num_steps
from trifold.train.prepare import epoch_draws
from trifold.train.randomness import stream_seed
from trifold.train.recipe import Recipe
from trifold.train.schedule import warmup_cosine

__all__ = ["digits"]  # the fixture


def losses_of(dataset: Dataset, recipe: Recipe, seed: int = 0) -> list[float]:
    training, _ = trained(tiny_network(seed), task_of(dataset, recipe, seed))
    return [epoch.train_loss for epoch in training.epochs]


# ---- randomness and loop ----


def test_streams_differ_by_seed_purpose_and_position() -> None:
    seeds = {stream_seed(s, p, e) for s in range(5) for p in ("order", "augment") for e in range(5)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream_seed(0, "order", 0) == stream_seed(0, "order", 0)


def sizes_of(images: int, recipe: Recipe) -> list[int]:
    """Images of each step of an epoch."""
    steps = num_steps(images, recipe)
    return [num_images(images, steps, step) for step in range(steps)]


@pytest.mark.parametrize(("images", "sizes"), [(100, {33, 34}), (5, {5}), (33, {33}), (50, {25}), (2, {2})])
def test_an_epoch_deals_every_image_once_into_even_batches(images: int, sizes: set[int]) -> None:
    order = epoch_order(torch.zeros(images, dtype=torch.long), QUICK, 0, 1)
    assert order.sort().values.tolist() == list(range(images))
    assert set(sizes_of(images, QUICK)) == sizes
    assert sum(sizes_of(images, QUICK)) == images


def test_no_step_has_a_single_image() -> None:
    for images in range(2, 40):
        sizes = sizes_of(images, replace(QUICK, batch_size=2))
        assert min(sizes) >= 2
        assert sum(sizes) == images
    assert num_steps(100, replace(QUICK, batch_size=3)) == 33


def test_a_single_training_image_is_refused_before_training(digits: Dataset) -> None:
    task = task_of(digits, QUICK)
    assert isinstance(task.train, Held)
    task = replace(task, train=Held(images=task.train.images[[0]]))
    with pytest.raises(InvalidInput, match="train must hold at least 2 images, which batch norm needs, got 1"):
        trained(tiny_network(), task)


def test_order_and_draws_change_with_the_epoch() -> None:
    labels = torch.zeros(50, dtype=torch.long)
    assert not torch.equal(epoch_order(labels, QUICK, 0, 0), epoch_order(labels, QUICK, 0, 1))
    first, second, again = (epoch_draws(50, QUICK, 0, epoch) for epoch in (0, 1, 1))
    assert not torch.equal(first.geometry, second.geometry)
    assert torch.equal(second.geometry, again.geometry)


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
    epochs = trained(tiny_network(), task_of(digits, recipe))[0].epochs
    assert epochs[-1].train_loss < 0.85 * epochs[0].train_loss
    assert epochs[-1].minival_accuracy > 0.3
    steps = 7  # 211 training images in batches of 32, to the nearest whole number
    expected = [lr * warmup_cosine((steps * (e + 1) - 0.5) / (16 * steps), 0.25) for e in range(16)]
    assert [epoch.lr for epoch in epochs] == pytest.approx(expected)


def test_a_loss_that_is_no_number_stops_with_the_rate_named(digits: Dataset) -> None:
    network = tiny_network()
    torch.nn.init.constant_(network.get_classifier().weight, float("nan"))  # type: ignore[arg-type]  # a Linear
    with pytest.raises(InvalidInput, match=r"lr 0\.003 is too high: the loss is nan at epoch 1 step 1"):
        trained(network, task_of(digits, QUICK))


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
