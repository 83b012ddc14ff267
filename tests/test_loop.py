"""The training loop against references worked by hand: parts of a step, weights, averages, freezing, patience."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn

from tests.tasks import Watching, state_of, steady_network, task_of, tiny_network, trained
from tests.tiny import QUICK, digits
from trifold.data.dataset import Dataset
from trifold.data.images import Images
from trifold.data.loader import Held
from trifold.preprocessing import plain
from trifold.train import loop
from trifold.train.evaluate import probabilities
from trifold.train.loop import (
    Step,
    Training,
    batch_loss,
    class_weights,
    epoch_order,
    num_images,
    num_steps,
    run_steps,
)
from trifold.train.processes import Processes
from trifold.train.recipe import Recipe
from trifold.train.schedule import ema_decay
from trifold.train.task import Part, Task

__all__ = ["digits"]  # the fixture

PLAIN = Recipe(
    name="plain",
    epochs=1,
    batch_size=211,
    optimizer="sgd",
    lr=0.1,
    momentum=0.0,
    schedule="constant",
    freeze_bn=True,
)
"""One step of all 211 training images, of which only the gradient counts: no batch statistics, no noise."""


def uneven(task: Task, *, keep: tuple[int, ...]) -> Task:
    """The task with only so many training images of each class."""
    assert isinstance(task.train, Held)
    labels = task.train.labels
    chosen = torch.cat([(labels == label).nonzero().flatten()[:count] for label, count in enumerate(keep)])
    return replace(task, train=Held(images=task.train.images[chosen]))


# ---- a step's parts ----


@pytest.mark.parametrize("balance", ["none", "weights"])
@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_a_step_in_parts_is_the_step_at_once(digits: Dataset, accumulate: int, balance: str) -> None:
    """211 images leave uneven parts; the weights may differ by what the order of sums does, 1e-6."""
    recipe = replace(PLAIN, balance=balance, label_smoothing=0.1)
    states, losses = [], []
    for parts in (1, accumulate):
        task = task_of(digits, replace(recipe, accumulate=parts))
        network = steady_network(task)
        start = state_of(network)
        _, seen = trained(network, task)
        states.append(seen.states[0])
        losses.append([step.loss for step in seen.steps])
    assert len(losses[0]) == len(losses[1]) == 1
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    moved = [float((states[0][name] - start[name]).abs().max()) for name in start if "weight" in name]
    assert max(moved) > 1e-3
    for name, tensor in states[0].items():
        assert torch.allclose(tensor, states[1][name], rtol=0, atol=1e-6), name


def test_a_step_follows_the_gradient_of_the_mean_loss_over_its_images(digits: Dataset) -> None:
    task = task_of(digits, replace(PLAIN, label_smoothing=0.1, accumulate=4))
    network = steady_network(task)
    reference = steady_network(task).double().eval()
    assert isinstance(task.train, Held)
    images = task.train.images.pixels.double() / 255
    mean, std = (torch.tensor(v).double().view(-1, 1, 1) for v in (task.preprocessing.mean, task.preprocessing.std))
    F.cross_entropy(reference((images - mean) / std), task.train.labels, label_smoothing=0.1).backward()
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if ".norm." not in name:  # freeze_bn
                assert parameter.grad is not None
                parameter.sub_(0.1 * parameter.grad)
    trained(network, task)
    for (name, mine), theirs in zip(network.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(mine.double(), theirs, rtol=0, atol=1e-6), name


@given(
    total=st.integers(2, 5000),
    batch=st.integers(2, 600),
    accumulate=st.integers(1, 6),
    count=st.integers(1, 6),
)
def test_steps_add_up_to_the_epoch_and_no_part_has_a_single_image(
    total: int, batch: int, accumulate: int, count: int
) -> None:
    recipe = replace(PLAIN, batch_size=max(batch, 2 * accumulate), accumulate=accumulate)
    steps = num_steps(total, recipe, Processes(count=count))
    sizes = [num_images(total, steps, step) for step in range(steps)]
    assert sum(sizes) == total
    assert sizes == [len(part) for part in torch.arange(total).tensor_split(steps)]
    assert max(sizes) - min(sizes) <= 1
    if total >= 2 * accumulate * count:
        parts = [len(part) for size in set(sizes) for part in torch.arange(size).tensor_split(accumulate * count)]
        assert min(parts) >= 2
    if 4 * accumulate * count <= recipe.batch_size <= total / 2:
        assert steps == round(total / recipe.batch_size)


@given(count=st.integers(1, 4), accumulate=st.integers(1, 4), steps=st.integers(1, 5), epoch=st.integers(0, 3))
def test_processes_and_parts_share_each_step_out_whole(count: int, accumulate: int, steps: int, epoch: int) -> None:
    total = steps * 2 * count * accumulate + 3
    recipe = replace(PLAIN, batch_size=max(2, 2 * accumulate), accumulate=accumulate)
    images = Images(pixels=torch.zeros(total, 1, 4, 4, dtype=torch.uint8), labels=torch.zeros(total, dtype=torch.long))
    source = Held(images=images)
    task = Task(
        train=source, minival=source, preprocessing=plain(4, "L"), recipe=recipe, seed=5, flip=False, num_classes=2
    )
    everyone = [
        loop._own_parts(replace(task, processes=Processes(rank=rank, count=count)), epoch, steps)
        for rank in range(count)
    ]
    order = epoch_order(source.labels, recipe, 5, epoch)
    seeds: set[int] = set()
    for step, indices in enumerate(order.tensor_split(steps)):
        parts: list[Part] = [part for own in everyone for part in own[step]]
        assert torch.equal(torch.cat([part.indices for part in parts]), indices)
        assert sum(part.share for part in parts) == pytest.approx(1, abs=1e-12)
        assert [part.share for part in parts] == [len(part.indices) / len(indices) for part in parts]
        seeds |= {part.seed for part in parts}
    assert len(seeds) == steps * count * accumulate  # no two parts draw the same dropout


def test_two_processes_run_through_the_parts_that_one_accumulates(digits: Dataset) -> None:
    task = task_of(digits, replace(QUICK, accumulate=2))
    alone = loop._own_parts(task, 1, 7)
    halves = [
        loop._own_parts(replace(task, recipe=QUICK, processes=Processes(rank=rank, count=2)), 1, 7) for rank in (0, 1)
    ]
    for step in range(7):
        for number in (0, 1):
            (mine,), other = halves[number][step], alone[step][number]
            assert torch.equal(mine.indices, other.indices)
            assert (mine.seed, mine.share) == (other.seed, other.share)


# ---- losses and classes of unequal size ----


def test_class_weights_are_inverse_to_the_classes_shares_with_a_mean_of_one_over_the_images(digits: Dataset) -> None:
    keep = (15, 10, 5, 2, 1, 15, 15, 15, 15, 2)
    task = uneven(task_of(digits, QUICK), keep=keep)
    weights = class_weights(task)
    assert weights.tolist() == pytest.approx([sum(keep) / (10 * count) for count in keep])
    assert float(weights[task.train.labels].mean()) == pytest.approx(1)


def test_a_class_without_training_images_weighs_nothing_on_the_others(digits: Dataset) -> None:
    task = uneven(task_of(digits, QUICK), keep=(15, 10, 0, 5))
    weights = class_weights(task)
    assert weights[[0, 1, 3]].tolist() == pytest.approx([30 / (3 * 15), 30 / (3 * 10), 30 / (3 * 5)])
    assert float(weights[task.train.labels].mean()) == pytest.approx(1)


def by_hand(outputs: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None) -> float:
    """The mean over images of their target's weight times the cross-entropy with smoothed probabilities."""
    total, num_classes = 0.0, outputs.shape[1]
    for row, target in zip(outputs.double(), targets, strict=True):
        share = target.double() if targets.is_floating_point() else torch.eye(num_classes).double()[target]
        weight = 1.0 if weights is None else float(share @ weights.double())
        smoothed = share * (1 - smoothing) + smoothing / num_classes
        total -= weight * float(smoothed @ (row - row.exp().sum().log()))
    return total / len(outputs)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_is_that_written_by_hand(weighted: bool, smoothing: float, mixed: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    outputs = torch.randn(12, 5, generator=draws)
    targets = torch.randint(5, (12,), generator=draws)
    weights = torch.tensor([0.5, 1.0, 2.0, 0.25, 4.0]) if weighted else None
    if mixed:  # as mixup makes them: two classes an image
        share = torch.rand(12, 1, generator=draws)
        classes = torch.eye(5)
        targets = share * classes[targets] + (1 - share) * classes[targets.flip(0)]
    found = float(batch_loss(outputs, targets, smoothing, weights))
    assert found == pytest.approx(by_hand(outputs, targets, smoothing, weights), rel=1e-5)


def test_targets_of_one_class_as_probabilities_give_the_loss_of_indices() -> None:
    outputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    targets, weights = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    for chosen in (None, weights):
        one, two = (batch_loss(outputs, t, 0.1, chosen) for t in (targets, torch.eye(4)[targets]))
        assert float(one) == pytest.approx(float(two), rel=1e-6)


def test_the_logged_loss_is_the_weighted_one(digits: Dataset) -> None:
    task = uneven(task_of(digits, replace(PLAIN, balance="weights")), keep=(15, 10, 5, 2, 2, 15, 15, 15, 15, 2))
    network = steady_network(task)
    assert isinstance(task.train, Held)
    chances = probabilities(network, task.train.images.pixels, task.preprocessing)
    expected = by_hand(chances.log(), task.train.labels, 0.0, class_weights(task))
    _, seen = trained(network, task)
    assert [step.loss for step in seen.steps] == pytest.approx([expected], rel=1e-5)


# ---- the sampler ----


def test_the_sampler_draws_each_class_about_equally_often_whatever_its_size() -> None:
    sizes = (400, 80, 20, 4)
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    recipe = replace(PLAIN, balance="sampler")
    order = torch.cat([epoch_order(labels, recipe, 3, epoch) for epoch in range(10)])
    drawn = torch.bincount(labels[order])
    assert len(order) == 10 * sum(sizes)
    assert chisquare(drawn.numpy()).pvalue > 0.01
    of_the_largest = torch.bincount(order[order < 400], minlength=400)
    assert chisquare(of_the_largest.numpy()).pvalue > 0.01  # within a class each image is as likely
    assert chisquare(torch.bincount(labels).numpy()).pvalue < 1e-6  # what the test would say without a sampler


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    labels = torch.arange(100) % 3
    for balance in ("none", "weights", "sampler"):
        recipe = replace(PLAIN, balance=balance)
        first = epoch_order(labels, recipe, 1, 2)
        torch.manual_seed(99)
        assert torch.equal(epoch_order(labels, recipe, 1, 2), first)
        assert not torch.equal(epoch_order(labels, recipe, 1, 3), first)
        assert not torch.equal(epoch_order(labels, recipe, 2, 2), first)


def test_an_image_drawn_twice_is_augmented_by_other_draws_each_time(digits: Dataset) -> None:
    task = task_of(digits, replace(QUICK, balance="sampler"))
    parts = [part for own in loop._own_parts(task, 0, 7) for part in own]
    indices, rows = torch.cat([part.indices for part in parts]), torch.cat([part.rows for part in parts])
    assert len(indices.unique()) < len(indices)
    assert rows.tolist() == list(range(len(rows)))


# ---- the average ----


class _Following(Watching):
    """Keeps a float64 average of its own, step by step."""

    def __init__(self, network: nn.Module, highest: float) -> None:
        super().__init__()
        self.highest = highest
        self.average = {name: tensor.double() for name, tensor in network.state_dict().items()}
        self.updates = 0

    def after_step(self, training: Training, step: Step, *, stop: bool) -> None:
        super().after_step(training, step, stop=stop)
        decay = ema_decay(self.highest, self.updates)
        self.updates += 1
        for name, tensor in training.network.state_dict().items():
            new = tensor.double()
            self.average[name] = decay * self.average[name] + (1 - decay) * new if tensor.is_floating_point() else new


def test_the_average_follows_weights_and_statistics_as_its_formula_says(digits: Dataset) -> None:
    """21 steps against float64: within 1e-6, running means and variances included."""
    task = task_of(digits, replace(QUICK, epochs=3, ema_decay=0.9, lr=0.02))
    network = tiny_network()
    training = Training(network, task)
    seen = _Following(network, 0.9)
    loop.run_epochs(training, task, seen)
    assert seen.updates == 21
    assert training.average is not None
    found, last = training.average.network.state_dict(), network.state_dict()
    assert any("running_var" in name for name in found)
    for name, tensor in found.items():
        assert torch.allclose(tensor.double(), seen.average[name], rtol=1e-6, atol=1e-6), name
    assert max(float((found[n] - last[n]).abs().max()) for n in found if "running" in n) > 1e-3


def test_evaluation_and_the_kept_weights_are_the_averages(digits: Dataset) -> None:
    task = task_of(digits, replace(QUICK, epochs=1, ema_decay=0.5, lr=0.02))
    network = steady_network(task)
    training, _ = trained(network, task)
    assert training.average is not None
    assert isinstance(task.minival, Held)
    assert training.evaluated is training.average.network
    losses = {
        name: float(F.nll_loss(probabilities(which, task.minival.images.pixels, task.preprocessing).log(), labels))
        for name, which, labels in (
            ("average", training.average.network, task.minival.labels),
            ("network", network, task.minival.labels),
        )
    }
    assert training.epochs[0].minival_loss == pytest.approx(losses["average"], rel=1e-6)
    assert losses["network"] != pytest.approx(losses["average"], rel=1e-3)
    average = training.average.network.state_dict()
    assert all(torch.equal(tensor, average[name]) for name, tensor in training.kept.items())
    without, _ = trained(steady_network(task), replace(task, recipe=replace(task.recipe, ema_decay=0.0)))
    assert without.evaluated is without.network
    assert without.epochs[0].train_loss == training.epochs[0].train_loss  # the average changes no step


# ---- clipping and patience ----


def test_a_clipped_gradient_has_the_norm_asked_for(digits: Dataset) -> None:
    moved = {}
    for clip in (0.0, 1e6, 0.01):
        task = task_of(digits, replace(PLAIN, lr=1.0, clip_norm=clip))
        network = steady_network(task)
        before = state_of(network)
        trained(network, task)
        changes = [parameter.detach() - before[name] for name, parameter in network.named_parameters()]
        moved[clip] = torch.cat([change.flatten() for change in changes]).double()
    assert float(moved[0.0].norm()) > 0.05
    assert torch.equal(moved[0.0], moved[1e6])
    assert float(moved[0.01].norm()) == pytest.approx(0.01, rel=1e-3)
    assert F.cosine_similarity(moved[0.0], moved[0.01], dim=0) == pytest.approx(1, abs=1e-5)


def test_patience_stops_so_many_epochs_after_the_best(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.0, 2.2, 1.0])

    def told(network: nn.Module, source: Held, task: Task, between: object) -> Tensor:
        """Probabilities whose loss is the next one of the list."""
        chance = float(torch.tensor(-next(losses)).exp())
        chances = torch.full((len(source), task.num_classes), (1 - chance) / (task.num_classes - 1))
        return chances.scatter(1, source.labels[:, None], chance)

    monkeypatch.setattr(loop, "predictions", told)
    training, seen = trained(tiny_network(), task_of(digits, replace(QUICK, epochs=50, batch_size=200, patience=3)))
    assert [round(epoch.minival_loss, 3) for epoch in training.epochs] == [3.0, 2.0, 2.5, 2.0, 2.2]
    assert training.best.epoch == 2  # the first of equals
    assert all(torch.equal(tensor, seen.states[1][name]) for name, tensor in training.kept.items())
    assert not all(torch.equal(tensor, seen.states[4][name]) for name, tensor in training.kept.items())


# ---- freezing in a real run ----


def test_head_epochs_leave_the_body_as_it_was_to_the_last_bit_and_then_train_it(digits: Dataset) -> None:
    recipe = replace(QUICK, epochs=2, head_epochs=1, ema_decay=0.9)
    network = tiny_network()
    before = state_of(network)
    _, seen = trained(network, task_of(digits, recipe))
    body = [name for name in before if not name.startswith("classifier")]
    assert [name for name in before if not torch.equal(seen.states[0][name], before[name])] == [
        "classifier.weight",
        "classifier.bias",
    ]
    unmoved = [name for name in body if torch.equal(seen.states[1][name], before[name])]
    assert unmoved == []
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_frozen_batch_norms_keep_statistics_scale_and_shift_through_evaluations(digits: Dataset) -> None:
    network = tiny_network()
    before = state_of(network)
    _, seen = trained(network, task_of(digits, replace(QUICK, epochs=2, freeze_bn=True, weight_decay=0.1)))
    norms = [name for name in before if ".norm." in name]
    assert len(norms) >= 20
    assert [name for name in norms if not torch.equal(seen.states[1][name], before[name])] == []
    assert [name for name in before if torch.equal(seen.states[1][name], before[name])] == norms


def test_nothing_frozen_thaws_when_a_later_epoch_goes_on_from_a_saved_state(digits: Dataset) -> None:
    task = task_of(digits, replace(QUICK, epochs=2, head_epochs=1, freeze_bn=True))
    whole, _ = trained(tiny_network(), task)
    first, seen = Training(tiny_network(), task), Watching()
    run_steps(first, task, seen)
    assert len(seen.steps) == 7
    again = Training(tiny_network(seed=1), task)
    again.load_state_dict(first.state_dict())
    loop.run_epochs(again, task, Watching())
    assert [epoch.train_loss for epoch in again.epochs] == [epoch.train_loss for epoch in whole.epochs]
    assert all(torch.equal(tensor, again.kept[name]) for name, tensor in whole.kept.items())
