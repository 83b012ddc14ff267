"""The training loop: epochs of steps over images in memory, randomness a function of (seed, epoch, step)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trifold.data.augment import NUM_DRAWS, augment
from trifold.data.images import Images, normalise
from trifold.data.preprocessing import Preprocessing
from trifold.errors import InvalidInput
from trifold.train.evaluate import probabilities
from trifold.train.randomness import generator, stream_seed
from trifold.train.recipe import Recipe
from trifold.train.schedule import warmup_cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained on and how; flip: whether these images may be mirrored at all."""

    train: Images
    minival: Images
    preprocessing: Preprocessing
    recipe: Recipe
    seed: int
    flip: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch's log entry.

    epoch: from 1. lr: of its last step. train_loss: mean over the epoch's augmented images, smoothed labels.
    minival_loss: cross-entropy without smoothing. minival_accuracy: share in [0, 1]. seconds: its wall time.
    """

    epoch: int
    lr: float
    train_loss: float
    minival_loss: float
    minival_accuracy: float
    seconds: float


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; biases and batch norm have no weight decay."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)


def num_steps(num_images: int, batch_size: int) -> int:
    """Steps of an epoch: batches of nearly equal size, as near to batch_size as may be, none of a single image."""
    return max(1, min(round(num_images / batch_size), num_images // 2))


def epoch_batches(num_images: int, recipe: Recipe, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The shuffled indices of an epoch, dealt into its steps."""
    order = torch.randperm(num_images, generator=generator(seed, "order", epoch))
    return order.tensor_split(num_steps(num_images, recipe.batch_size))


def epoch_draws(num_images: int, seed: int, epoch: int) -> Tensor:
    """The numbers that augment each image in an epoch: a row a sample, whatever step it falls in."""
    return torch.rand(num_images, NUM_DRAWS, generator=generator(seed, "augment", epoch))


def run_epochs(
    network: nn.Module, task: Task, progress: Callable[[int, int, str], None] | None = None
) -> Iterator[Epoch]:
    """Trains the network in place, an epoch each time the next entry is asked for.

    torch's global generators (dropout, drop path), of the CPU and the network's devices, are set for each step and put
    back afterwards.
    progress: called with (done, total, "training") after each step.

    Raises InvalidInput if there are fewer than two training images, or the loss stops being a finite number.
    """
    if len(task.train) < 2:
        raise InvalidInput(f"train must hold at least 2 images, which batch norm needs, got {len(task.train)}")
    recipe = task.recipe
    optimizer = make_optimizer(network, recipe)
    steps = num_steps(len(task.train), recipe.batch_size)
    total = steps * recipe.epochs
    warmup = min(1.0, recipe.warmup_epochs / recipe.epochs)
    devices = sorted({tensor.get_device() for tensor in network.parameters() if tensor.is_cuda})
    for epoch in range(recipe.epochs):
        started = time.perf_counter()
        draws = epoch_draws(len(task.train), task.seed, epoch)
        losses = []
        network.train()
        for step, indices in enumerate(epoch_batches(len(task.train), recipe, task.seed, epoch)):
            done = epoch * steps + step
            # Half a step in, so that neither the first nor the last step has rate 0.
            lr = recipe.lr * warmup_cosine((done + 0.5) / total, warmup)
            for group in optimizer.param_groups:
                group["lr"] = lr
            with _seeded(stream_seed(task.seed, "step", epoch, step), devices):
                loss = _step(network, optimizer, task, indices, draws[indices])
            if not math.isfinite(loss):
                raise InvalidInput(
                    f"lr {recipe.lr:g} is too high: the loss is {loss} at epoch {epoch + 1} step {step + 1}"
                )
            losses.append(loss * len(indices))
            if progress is not None:
                progress(done + 1, total, "training")
        chances = probabilities(network, task.minival.pixels, task.preprocessing)
        yield Epoch(
            epoch=epoch + 1,
            lr=lr,
            train_loss=sum(losses) / len(task.train),
            minival_loss=float(F.nll_loss(chances.clamp_min(1e-12).log(), task.minival.labels)),
            minival_accuracy=float((chances.argmax(1) == task.minival.labels).double().mean()),
            seconds=time.perf_counter() - started,
        )


@contextmanager
def _seeded(seed: int, devices: list[int]) -> Iterator[None]:
    """The generators of the CPU and of these CUDA devices start at the seed, and are put back afterwards.

    torch.manual_seed would also set every other device, which fork_rng does not put back.
    """
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        yield


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, task: Task, indices: Tensor, draws: Tensor) -> float:
    """One step of the optimiser; gives back its loss."""
    recipe, batch = task.recipe, task.train[indices]
    images = augment(
        normalise(batch.pixels, task.preprocessing),
        draws,
        shift=recipe.shift,
        rotation=recipe.rotation,
        zoom=recipe.zoom,
        horizontal_flip=recipe.horizontal_flip and task.flip,
    )
    loss = F.cross_entropy(network(images), batch.labels, label_smoothing=recipe.label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())
