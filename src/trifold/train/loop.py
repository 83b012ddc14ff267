"""The training loop: epochs of steps, each a function of (state, seed, epoch, step), so that it can go on anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trifold.data.loader import Crops, Files
from trifold.errors import InvalidInput
from trifold.train.average import Average
from trifold.train.evaluate import predictions
from trifold.train.parameters import make_optimizer, set_mode
from trifold.train.prepare import Batch, epoch_draws, prepare
from trifold.train.processes import ALONE, Processes, summed
from trifold.train.randomness import generator, stream_seed
from trifold.train.recipe import Recipe
from trifold.train.schedule import learning_rate
from trifold.train.task import Part, Task

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Diverged(InvalidInput):
    """The loss of a step is not a finite number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step's log entry: epoch and step from 1; loss: mean over its augmented images, with smoothed labels.

    skipped: whether float16 gradients overflowed, so that the weights stayed and the loss scale was halved.
    """

    epoch: int
    step: int
    lr: float
    loss: float
    skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch's log entry.

    epoch: from 1. lr: of its last step. train_loss: mean over the epoch's augmented images, smoothed labels.
    minival_loss: cross-entropy without smoothing. minival_accuracy: share in [0, 1]. seconds: its wall time.
    waiting: share of the steps' time, in [0, 1], in which images were fetched and augmented rather than learnt from.
    """

    epoch: int
    lr: float
    train_loss: float
    minival_loss: float
    minival_accuracy: float
    seconds: float
    waiting: float = 0.0


@runtime_checkable
class StepWatcher(Protocol):
    """What is told of each step when it is done; it may save the training, or raise to stop it."""

    def stop_asked(self) -> bool:
        """Whether this process was told to stop."""

    def after_step(self, training: Training, step: Step, *, stop: bool) -> None:
        """Called when the state is whole again; stop: whether any process was told to stop."""


@runtime_checkable
class Watcher(StepWatcher, Protocol):
    """What is told of epochs as well."""

    def while_evaluating(self, training: Training) -> None:
        """Called before each batch of an evaluation; the state is that after the epoch's last step."""

    def after_epoch(self, training: Training, epoch: Epoch) -> None:
        """Called when the epoch was evaluated and stands in `training.epochs`."""


@runtime_checkable
class Objective(Protocol):
    """What a training minimises and what of it is evaluated; it has no state that going on would need."""

    def loss(self, runner: nn.Module, batch: Batch, task: Task, weights: Tensor | None) -> Tensor:
        """The loss of a batch, a float32 number; torch's global generators stand where this part of the step has them.

        runner: the network as it is to be called. weights: one a class, or None.
        """

    def to_evaluate(self, network: nn.Module, task: Task) -> nn.Module:
        """What is shown minival: a module from images to logits. network: the training's, or its average."""


class Classification:
    """The objective of a network that gives the logits of its images: their cross-entropy."""

    def loss(self, runner: nn.Module, batch: Batch, task: Task, weights: Tensor | None) -> Tensor:
        """As `batch_loss`, of the outputs at the recipe's precision."""
        with autocast(task):
            outputs = runner(batch.images)
        return batch_loss(outputs.float(), batch.targets, task.recipe.label_smoothing, weights)

    def to_evaluate(self, network: nn.Module, task: Task) -> nn.Module:  # noqa: ARG002  an objective's signature
        """The network as it is."""
        return network


CLASSIFICATION = Classification()


class Training:
    """A training as it stands: network, optimiser, average, loss scale, position and what was seen so far.

    epoch, step: how many epochs, and steps of the next one, are done. loss_sum, seconds, waited: of that epoch so far.
    kept: the tensors of the epoch with the least minival loss.
    """

    def __init__(self, network: nn.Module, task: Task, objective: Objective = CLASSIFICATION) -> None:
        recipe = task.recipe
        self.network, self.objective = network, objective
        self.optimizer = make_optimizer(network, recipe)
        self.average = Average(network, recipe.ema_decay) if recipe.ema_decay else None
        self.scaler = torch.amp.GradScaler(task.device.type, enabled=recipe.precision == "float16")
        self.epoch, self.step = 0, 0
        self.loss_sum, self.seconds, self.waited = 0.0, 0.0, 0.0
        self.epochs: list[Epoch] = []
        self.kept: dict[str, Tensor] = {}

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the average where there is one."""
        return self.network if self.average is None else self.average.network

    @property
    def best(self) -> Epoch:
        """The first epoch with the least minival loss, which on a small minival is steadier than its accuracy."""
        return min(self.epochs, key=lambda entry: entry.minival_loss)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.network.state_dict(),
            "scaler": self.scaler.state_dict(),
            "position": [self.epoch, self.step],
            "sums": [self.loss_sum, self.seconds, self.waited],
            "epochs": [asdict(entry) for entry in self.epochs],
            "kept": self.kept,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the training where it was when the state was taken."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step = state["position"]
        self.loss_sum, self.seconds, self.waited = state["sums"]
        self.epochs = [Epoch(**entry) for entry in state["epochs"]]
        self.kept = state["kept"]

    def finished(self, recipe: Recipe) -> bool:
        """Whether all epochs are done, or minival has been no better for as many epochs as the recipe has patience."""
        waited_long = bool(recipe.patience and self.epochs) and self.epoch - self.best.epoch >= recipe.patience
        return self.epoch >= recipe.epochs or waited_long


def num_steps(num_images: int, recipe: Recipe, processes: Processes = ALONE) -> int:
    """Steps of an epoch: batches of nearly equal size, as near to batch_size as may be, no part of a single image."""
    parts = processes.count * recipe.accumulate
    return max(1, min(round(num_images / recipe.batch_size), num_images // (2 * parts)))


def epoch_order(labels: Tensor, recipe: Recipe, seed: int, epoch: int) -> Tensor:
    """The indices of an epoch's images: each once, shuffled; from a sampler, each class about equally often."""
    shuffled = generator(seed, "order", epoch)
    if recipe.balance != "sampler":
        return torch.randperm(len(labels), generator=shuffled)
    chances = (1 / torch.bincount(labels).double())[labels]
    return torch.multinomial(chances, len(labels), replacement=True, generator=shuffled)


def class_weights(task: Task) -> Tensor:
    """A weight a class, inverse to its share of the training images, with a mean of 1 over them."""
    counts = torch.bincount(task.train.labels, minlength=task.num_classes)
    return (len(task.train) / (int((counts > 0).sum()) * counts.clamp_min(1))).float()


def run_epochs(training: Training, task: Task, watcher: Watcher) -> None:
    """Trains until the recipe is done, from wherever the training stands.

    torch's global generators (dropout, drop path), of the CPU and the network's device, are set for each part of a step
    and put back afterwards.

    Raises InvalidInput if there are too few training images for batch norm; Diverged if the loss stops being a finite
    number.
    """
    least = 2 * task.processes.count * task.recipe.accumulate
    if len(task.train) < least:
        raise InvalidInput(f"train must hold at least {least} images, which batch norm needs, got {len(task.train)}")
    while not training.finished(task.recipe):
        run_steps(training, task, watcher)
        entry = _evaluate(training, task, watcher)
        training.epochs.append(entry)
        if training.best is entry:
            kept = training.evaluated.state_dict()
            training.kept = {name: tensor.detach().clone() for name, tensor in kept.items()}
        training.epoch, training.step = training.epoch + 1, 0
        training.loss_sum, training.seconds, training.waited = 0.0, 0.0, 0.0
        watcher.after_epoch(training, entry)


def run_steps(
    training: Training, task: Task, watcher: StepWatcher, *, rates: Callable[[int], float] | None = None
) -> None:
    """Takes the rest of the steps of the epoch that the training stands in.

    rates: the learning rate of each step, counted from the run's first; None: the recipe's schedule.

    Raises Diverged as `run_epochs` does.
    """
    epoch, first = training.epoch, training.step
    steps = num_steps(len(task.train), task.recipe, task.processes)
    if first >= steps:
        return
    set_mode(training.network, task.recipe, epoch=epoch, fresh=task.fresh)
    runner = _runner(training.network, task)
    weights = class_weights(task) if task.recipe.balance == "weights" else None
    draws = epoch_draws(len(task.train), task.recipe, task.seed, epoch)
    parts = _own_parts(task, epoch, steps)
    rest = [part for step in parts[first:] for part in step]
    cropped = isinstance(task.train, Files) and task.recipe.crop_area < 1
    crops = Crops(float(task.recipe.crop_area), [draws.crop[part.rows] for part in rest]) if cropped else None
    pixels = task.train.batches([part.indices for part in rest], crops)
    for step in range(first, steps):
        started, waited, loss = time.perf_counter(), 0.0, 0.0
        number = epoch * steps + step
        rate = learning_rate(task.recipe, number, steps_per_epoch=float(steps)) if rates is None else rates(number)
        for group in training.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        training.optimizer.zero_grad(set_to_none=True)
        for part in parts[step]:
            asked = time.perf_counter()
            batch = prepare(next(pixels), part, draws, task)
            waited += time.perf_counter() - asked
            last = part is parts[step][-1]
            loss += _backward(runner, training, task, batch, part, weights=weights, last=last)
        skipped = _update(training, task.recipe, number)
        loss, stops = summed(task.processes, [loss, float(watcher.stop_asked())])
        if not math.isfinite(loss):
            raise Diverged(_not_finite(task.recipe, loss, epoch, step + 1))
        training.step = step + 1
        training.loss_sum += loss * num_images(len(task.train), steps, step)
        training.seconds += time.perf_counter() - started
        training.waited += waited
        entry = Step(epoch=epoch + 1, step=step + 1, lr=rate, loss=loss, skipped=skipped)
        watcher.after_step(training, entry, stop=stops > 0)


def num_images(total: int, steps: int, step: int) -> int:
    """Images of one step of an epoch: the first ones have one more where all cannot be equal (torch's tensor_split)."""
    return total // steps + (step < total % steps)


def _own_parts(task: Task, epoch: int, steps: int) -> list[list[Part]]:
    """What this process runs through in each step of an epoch."""
    order = epoch_order(task.train.labels, task.recipe, task.seed, epoch)
    drawn_again = task.recipe.balance == "sampler"  # then an image's second time is augmented otherwise
    rows = torch.arange(len(order)) if drawn_again else order
    count, accumulate = task.processes.count, task.recipe.accumulate
    own = range(task.processes.rank * accumulate, (task.processes.rank + 1) * accumulate)
    steps_of_parts = []
    for step, (indices, own_rows) in enumerate(zip(order.tensor_split(steps), rows.tensor_split(steps), strict=True)):
        dealt = list(
            zip(indices.tensor_split(count * accumulate), own_rows.tensor_split(count * accumulate), strict=True)
        )
        steps_of_parts.append(
            [
                Part(
                    indices=dealt[number][0],
                    rows=dealt[number][1],
                    share=len(dealt[number][0]) / len(indices),
                    seed=stream_seed(task.seed, "step", epoch, step, *([number] if number else [])),
                )
                for number in own
            ]
        )
    return steps_of_parts


def _runner(network: nn.Module, task: Task) -> nn.Module:
    """What the images are given to: the network, compiled or in parallel with other processes' if so asked."""
    runner: Any = torch.compile(network) if task.recipe.compile else network
    if task.processes.count == 1 or not any(p.requires_grad for p in network.parameters()):
        return runner  # type: ignore[no-any-return]  # a compiled module has its module's type
    devices = [task.device] if task.device.type == "cuda" else None
    # Otherwise gradients are regrouped after the first step, and three or more processes sum in an order that hangs on
    # the groups: an epoch gone on with would differ in its last bits.
    keep_groups = task.processes.count > 2
    return DistributedDataParallel(runner, device_ids=devices, find_unused_parameters=keep_groups)


def _backward(
    runner: nn.Module, training: Training, task: Task, batch: Batch, part: Part, *, weights: Tensor | None, last: bool
) -> float:
    """The part's share of the step's loss, whose gradients are added to the parameters'.

    last: whether it is the step's last part, after which processes share their gradients.
    """
    count = task.processes.count
    waits = runner.no_sync() if isinstance(runner, DistributedDataParallel) and not last else nullcontext()
    with waits, _seeded(part.seed, task.device):
        loss = training.objective.loss(runner, batch, task, weights)
        # Processes' gradients are averaged; theirs are shares of a sum.
        share = part.share * count
        scaled = training.scaler.scale(loss if share == 1 else loss * share)
        scaled.backward()
    return float(loss.detach()) * part.share


def autocast(task: Task) -> torch.autocast:
    """Within it a network computes at the recipe's precision."""
    precision = task.recipe.precision
    return torch.autocast(task.device.type, _DTYPES[precision], enabled=precision != "float32")


def batch_loss(outputs: Tensor, targets: Tensor, label_smoothing: float, weights: Tensor | None) -> Tensor:
    """The mean cross-entropy of a batch.

    targets: class indices or probabilities. weights: one a class; an image counts by the weight of its target.
    """
    if weights is None:
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)
    losses = F.cross_entropy(outputs, targets, label_smoothing=label_smoothing, reduction="none")
    weights = weights.to(outputs.device)
    return (losses * (targets @ weights if targets.is_floating_point() else weights[targets])).mean()


def _update(training: Training, recipe: Recipe, step: int) -> bool:
    """One step of the optimiser and the average, step counted from 0; whether it was skipped for an overflow."""
    scaler, before = training.scaler, training.scaler.get_scale()
    if recipe.clip_norm:
        scaler.unscale_(training.optimizer)
        parameters = [p for group in training.optimizer.param_groups for p in group["params"] if p.grad is not None]
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
    scaler.step(training.optimizer)
    scaler.update()
    skipped = bool(scaler.get_scale() < before)
    if training.average is not None and not skipped:
        training.average.update(training.network, step)
    return skipped


def _not_finite(recipe: Recipe, loss: object, epoch: int, step: int) -> str:
    """step: how many of the epoch's steps are done."""
    where = f"the loss is {loss} at epoch {epoch + 1} step {step}"
    if recipe.precision == "float16":
        return f"precision float16 overflowed: {where}; bfloat16 and float32 have the range (--set precision=bfloat16)"
    return f"lr {recipe.highest_lr:g} is too high: {where}; try a tenth of it, or --set clip_norm=1.0"


def _evaluate(training: Training, task: Task, watcher: Watcher) -> Epoch:
    """The epoch's entry."""
    started, network = time.perf_counter(), training.objective.to_evaluate(training.evaluated, task)
    chances = predictions(network, task.minival, task, lambda: watcher.while_evaluating(training))
    labels = task.minival.labels
    if not chances.isfinite().all():
        raise Diverged(_not_finite(task.recipe, "no number on minival", training.epoch, training.step))
    seconds = training.seconds + time.perf_counter() - started
    steps = num_steps(len(task.train), task.recipe, task.processes)
    return Epoch(
        epoch=training.epoch + 1,
        lr=learning_rate(task.recipe, (training.epoch + 1) * steps - 1, steps_per_epoch=float(steps)),
        train_loss=training.loss_sum / len(task.train),
        minival_loss=float(F.nll_loss(chances.clamp_min(1e-12).log(), labels)),
        minival_accuracy=float((chances.argmax(1) == labels).double().mean()),
        seconds=seconds,
        waiting=training.waited / training.seconds if training.seconds else 0.0,
    )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The generators of the CPU and of this device start at the seed, and are put back afterwards.

    torch.manual_seed would also set every other device, which fork_rng does not put back.
    """
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for number in cuda:
            torch.cuda.default_generators[number].manual_seed(seed)
        yield
