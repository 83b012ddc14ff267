"""The tiny network's training task without a run folder, for what is tested of the loop itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.tiny import TINY
from trifold.data.dataset import Dataset
from trifold.data.images import load, normalise
from trifold.data.loader import Held
from trifold.data.split import split
from trifold.network import Network, Numerics, build
from trifold.preprocessing import plain
from trifold.train.loop import Epoch, Step, Training, run_epochs
from trifold.train.recipe import Recipe
from trifold.train.task import Task


class Watching:
    """A watcher that notes every step, and the network's tensors after every epoch."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.states: list[dict[str, Tensor]] = []

    def stop_asked(self) -> bool:
        return False

    def after_step(self, training: Training, step: Step, *, stop: bool) -> None:  # noqa: ARG002  a watcher's signature
        assert not stop
        self.steps.append(step)

    def while_evaluating(self, training: Training) -> None:
        pass

    def after_epoch(self, training: Training, epoch: Epoch) -> None:
        assert training.epochs[-1] is epoch
        self.states.append(state_of(training.network))


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of every tensor."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def task_of(dataset: Dataset, recipe: Recipe, seed: int = 0) -> Task:
    (images,) = load(dataset, plain(8, "L"))
    parts = split(dataset)
    return Task(
        train=Held(images=images[parts.train]),
        minival=Held(images=images[parts.minival]),
        preprocessing=plain(8, "L"),
        recipe=recipe,
        seed=seed,
        flip=False,
        num_classes=len(dataset.classes),
    )


def tiny_network(seed: int = 0, drop_rate: float = 0.1) -> Network:
    numerics = Numerics(bn_momentum=0.1, padding="symmetric")
    return build(TINY, num_classes=10, in_channels=1, numerics=numerics, drop_rate=drop_rate, seed=seed)


def steady_network(task: Task, seed: int = 0) -> Network:
    """The tiny network without dropout, its batch-norm statistics those of the training images."""
    network = tiny_network(seed, drop_rate=0.0)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    (pixels,) = task.train.batches([torch.arange(len(task.train))])
    for momentum in (1.0, 0.1):
        for norm in norms:
            norm.momentum = momentum
        with torch.no_grad():
            network(normalise(pixels, task.preprocessing))
    return network


def trained(network: Network, task: Task) -> tuple[Training, Watching]:
    """The training, finished, and what was seen of it."""
    training, watching = Training(network, task), Watching()
    run_epochs(training, task, watching)
    return training, watching
