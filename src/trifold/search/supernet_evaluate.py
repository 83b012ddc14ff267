"""What a candidate of a supernet is worth on minival, its batch-norm statistics computed on some training images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trifold.architecture import Architecture
from trifold.data.images import normalise
from trifold.errors import InvalidInput
from trifold.network import Network
from trifold.search.supernet import Supernet, resized
from trifold.train.evaluate import predictions
from trifold.train.loop import Diverged
from trifold.train.randomness import generator
from trifold.train.task import Task

BATCHES = 20
"""Batches of the recipe's size that statistics are computed on. AlphaNet takes 64, of networks with more channels."""


class AtResolution(nn.Module):
    """A network that is shown its images at its architecture's resolution, whatever theirs is."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The network's output."""
        out: Tensor = self.network(resized(images, self.network.architecture.resolution))
        return out


def calibration_batches(task: Task, batches: int) -> list[Tensor]:
    """The training images that statistics are computed on: so many batches of equal size, the same for all candidates.

    Where there are fewer images, all of them are taken.
    """
    size = min(task.recipe.batch_size, len(task.train))
    order = torch.randperm(len(task.train), generator=generator(task.seed, "calibration"))
    count = max(1, min(batches, len(order) // size))
    return list(order[: count * size].split(size))


@torch.no_grad()
def calibrate(network: nn.Module, task: Task, *, batches: int = BATCHES) -> None:
    """Sets batch norms' running statistics to the mean over batches of their batches' means and variances.

    The variances are the unbiased ones, as everywhere in torch. Images are not augmented, and nothing is dropped, as in
    evaluation; the network is left in that mode, on the task's device.
    network: takes the task's normalised images.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.to(task.device).eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's cumulative average
        norm.train()
    for pixels in task.train.batches(calibration_batches(task, batches)):
        network(normalise(pixels.to(task.device), task.preprocessing))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def candidate(supernet: Supernet, architecture: Architecture, task: Task, *, batches: int = BATCHES) -> AtResolution:
    """A candidate of its own, extracted and calibrated, for the task's images whatever its resolution.

    batches: at least 1. Raises InvalidInput if that is not so, or the architecture is not in the supernet's space.
    """
    if type(batches) is not int or batches < 1:
        raise InvalidInput(f"batches must be a whole number of at least 1, got {batches!r}")
    network = AtResolution(supernet.extract(architecture))
    if task.recipe.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own idiom
    calibrate(network, task, batches=batches)
    return network


def evaluate_candidate(supernet: Supernet, architecture: Architecture, task: Task, *, batches: int = BATCHES) -> float:
    """The share of minival, in [0, 1], that a candidate gets right with its part of the supernet's weights.

    It is a function of these weights, the architecture and the task: the same images give the statistics each time.

    Raises InvalidInput as `candidate` does; Diverged if an output is not a finite number.
    """
    chances = predictions(candidate(supernet, architecture, task, batches=batches), task.minival, task)
    if not chances.isfinite().all():
        raise Diverged(f"candidate {architecture.name}: its outputs on minival are not finite numbers")
    return float((chances.argmax(1) == task.minival.labels).double().mean())
