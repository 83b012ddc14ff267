"""What a run works on, put together: network, split, images, preprocessing."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from trifold.cost import cost
from trifold.data.dataset import Dataset
from trifold.data.decode import MIN_SIDE
from trifold.data.images import Images, load, measured
from trifold.data.loader import Files, Held
from trifold.data.split import Split, split
from trifold.errors import InvalidInput
from trifold.layers import Numerics
from trifold.network import Network, build
from trifold.preprocessing import STANDARD, Preprocessing, plain
from trifold.train.evaluate import NEAREST_IMAGES
from trifold.train.machine import Machine
from trifold.train.processes import Processes
from trifold.train.randomness import stream_seed
from trifold.train.record import Plan
from trifold.train.task import Task
from trifold.weights.loading import Loaded, Pretrained, load_pretrained

logger = logging.getLogger(__name__)

YARDSTICK_SIDE = 32
"""Pixels at which nearest neighbours compare images, where they are not smaller themselves."""

YARDSTICK_TESTS = 2_000
"""Test images, evenly spaced, that nearest neighbours are asked about, where there are more."""

MEASURED_IMAGES = 2_000
"""Training images, evenly spaced, whose channels are measured where images are not held in memory."""

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A run's network before its first step, its task and its test images.

    known, asked: small images for nearest neighbours, of train and test. loaded: what pretrained weights gave, or None.
    """

    network: Network
    task: Task
    parts: Split
    test: Held | Files
    known: Images
    asked: Images
    loaded: Loaded | None


def assemble(
    dataset: Dataset,
    plan: Plan,
    *,
    machine: Machine,
    processes: Processes,
    held: bool | None,
    pretrained: Pretrained | None,
    progress: Progress | None,
) -> Assembled:
    """Everything that a run works on.

    held: whether images are held in memory, where that was decided before; None decides it.

    Raises InvalidData if the split needs more images, one can no longer be read, or the weights do not fit;
    InvalidInput if the recipe asks for what this machine has not.
    """
    parts, device = split(dataset, seed=plan.split_seed), machine.torch_device(processes)
    network = make_network(dataset, plan, device)
    loaded = None if pretrained is None else load_pretrained(network, pretrained)
    if loaded is not None and pretrained is not None and processes.first:
        logger.info("%s: %s", pretrained.source, loaded)
        for text in disagreements(pretrained, network.numerics, plan.recipe.normalisation, dataset.mode):
            logger.warning("%s: %s", pretrained.source, text)
    if pretrained is None and plan.recipe.head_epochs and processes.first:
        logger.warning(
            "recipe %s trains the classifier alone for %d epochs, on a network of random weights: it is meant"
            " for pretrained ones (--weights)",
            plan.recipe.name,
            plan.recipe.head_epochs,
        )
    network.to(device)
    train: Held | Files
    minival: Held | Files
    test: Held | Files
    shape = plain(plan.architecture.resolution, dataset.mode)
    if held is None:
        held = machine.holds(len(dataset.samples) * shape.channels * shape.resolution**2)
    yardstick = plain(min(YARDSTICK_SIDE, max(MIN_SIDE, dataset.median_side)), dataset.mode)
    if held:
        images, *smaller = load(dataset, *dict.fromkeys((shape, yardstick)), progress=progress)
        small = smaller[0] if smaller else images
        train, minival, test = (Held(images=images[part]) for part in parts)
        known, asked = small[_spaced(parts.train, NEAREST_IMAGES)], small[_spaced(parts.test, YARDSTICK_TESTS)]
    else:
        samples = ([dataset.samples[i] for i in part] for part in parts)
        train, minival, test = (
            Files(samples=tuple(some), preprocessing=shape, workers=machine.num_workers) for some in samples
        )
        known = _some(dataset, _spaced(parts.train, NEAREST_IMAGES), yardstick, progress)
        asked = _some(dataset, _spaced(parts.test, YARDSTICK_TESTS), yardstick, progress)
    task = Task(
        train=train,
        minival=minival,
        preprocessing=_normalisation(plan.recipe.normalisation, shape, train),
        recipe=plan.recipe,
        seed=plan.seed,
        flip=dataset.mirror,
        num_classes=len(dataset.classes),
        device=device,
        processes=processes,
        fresh=frozenset() if loaded is None else frozenset(loaded.initial),
    )
    return Assembled(network=network, task=task, parts=parts, test=test, known=known, asked=asked, loaded=loaded)


def make_network(dataset: Dataset, plan: Plan, device: torch.device) -> Network:
    """The plan's network for this dataset at its initialisation, on the CPU."""
    recipe = plan.recipe
    network: Network = build(
        plan.architecture,
        num_classes=len(dataset.classes),
        in_channels=dataset.in_channels,
        numerics=Numerics(bn_eps=recipe.bn_eps, bn_momentum=recipe.bn_momentum, padding=recipe.padding),
        drop_rate=recipe.drop_rate,
        drop_path_rate=recipe.drop_path_rate,
        seed=stream_seed(plan.seed, "weights"),
    )
    network.set_grad_checkpointing(recipe.grad_checkpointing)
    if recipe.sync_bn:
        if device.type != "cuda":
            raise InvalidInput("recipe: sync_bn must be false on a CPU: torch has it for GPUs only, got True")
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if recipe.compile and device.type == "cpu" and not any(map(shutil.which, _compilers())):
        raise InvalidInput(
            f"recipe: compile must be false here: torch.compile needs a C++ compiler, {' or '.join(_compilers())}, and"
            " there is none, got True"
        )
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own idiom
    return network


def _compilers() -> tuple[str, ...]:
    """The commands that torch.compile may find a compiler by."""
    own = os.environ.get("CXX")
    return (own,) if own else ("g++", "clang++", "c++")


def disagreements(pretrained: Pretrained, numerics: Numerics, normalisation: str, mode: str) -> tuple[str, ...]:
    """What the weights were trained with, as far as their file says, and the recipe has otherwise; one line each."""
    found = []
    if pretrained.numerics is not None:
        for name in ("bn_eps", "padding"):
            theirs, ours = getattr(pretrained.numerics, name), getattr(numerics, name)
            if theirs != ours:
                found.append(f"was trained with {name} {theirs}, and the recipe has {ours}: --set {name}={theirs}")
    standard = STANDARD.get((normalisation, mode))
    if pretrained.mean is not None and standard is not None and pretrained.mean != standard[0]:
        found.append(
            f"was trained with images less {pretrained.mean}, and normalisation {normalisation} is {standard[0]}"
        )
    return tuple(found)


def cost_of(dataset: Dataset, plan: Plan) -> dict[str, int]:
    """Parameters, multiply_adds and activations of the plan's network for this dataset."""
    spent = cost(plan.architecture, num_classes=len(dataset.classes), in_channels=dataset.in_channels)
    return {name: getattr(spent, name) for name in ("parameters", "multiply_adds", "activations")}


def _normalisation(kind: str, shape: Preprocessing, train: Held | Files) -> Preprocessing:
    """The preprocessing with its mean and standard deviation; measured ones are of training images alone."""
    if kind != "measured":
        mean, std = STANDARD[kind, shape.mode]
        return replace(shape, mean=mean, std=std)
    if isinstance(train, Held):
        return measured(shape, train.images)
    some = torch.tensor(_spaced(range(len(train)), MEASURED_IMAGES))
    pixels = torch.cat(list(train.batches(some.split(64))))
    return measured(shape, Images(pixels=pixels, labels=train.labels[some]))


def _spaced(indices: range | tuple[int, ...], most: int) -> list[int]:
    """At most so many of the indices, evenly spaced."""
    return list(indices[:: -(-len(indices) // most)])


def _some(dataset: Dataset, indices: list[int], preprocessing: Preprocessing, progress: Progress | None) -> Images:
    samples = tuple(dataset.samples[i] for i in indices)
    (images,) = load(replace(dataset, samples=samples), preprocessing, progress=progress)
    return images
