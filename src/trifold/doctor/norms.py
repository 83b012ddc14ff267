"""Whether a run's batch norms fit its weights and images."""

from __future__ import annotations

import copy
import statistics
from contextlib import suppress
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from trifold.data.dataset import Sample
from trifold.data.images import Images, load, normalise
from trifold.doctor.case import Case
from trifold.doctor.findings import Check, Finding
from trifold.doctor.start import Start
from trifold.network import Network
from trifold.train.evaluate import probabilities
from trifold.train.randomness import generator

FIRST_NORMS = 5
"""Batch norms that are looked at: a wrong normalisation shows in the first layers and fades in later ones."""

FEWEST_IMAGES, MOST_IMAGES = 48, 256
MOST_PIXELS = 4_000_000
"""Of the images that are run through the first layers at once."""

EXPECTED_RATIOS = (0.4, 2.5)
"""Between which the median variance ratio lies where images are normalised as the statistics expect.

Of EfficientNet-B4's first five, with 48 photographs at 128 pixels: 0.81 to 0.91 when right, 0.18 to 0.32 with mean and
standard deviation of one half in place of ImageNet's, 0.04 to 0.14 without any, 12 to 267 when normalised twice.
"""

UNSETTLED = 0.05
"""Share of their start that running statistics may still hold."""

RUNNING = ("running_mean", "running_var")

MINIVAL_IMAGES = 512
MOST_GAP = 0.1
"""Accuracy between the modes, as a share."""


class _Enough(Exception):
    """The last batch norm of interest was reached; it is no error."""


@torch.no_grad()
def _norm_inputs(network: Network, images: Tensor) -> dict[str, tuple[float, float]]:
    """Of each of the first batch norms: variance over running variance, and the means' distance in running deviations.

    Both are medians over the channels. The network stays as it is.
    """
    norms = [(name, module) for name, module in network.named_modules() if isinstance(module, _BatchNorm)][:FIRST_NORMS]
    found: dict[str, tuple[float, float]] = {}

    def look(name: str, norm: _BatchNorm, x: Tensor) -> None:
        if norm.running_mean is None or norm.running_var is None:
            return
        variance, mean = torch.var_mean(x, dim=(0, 2, 3))
        # Batch norm's own epsilon keeps channels that are nearly constant from being judged by their noise.
        running = norm.running_var + norm.eps
        ratio = (variance + norm.eps) / running
        distance = (mean - norm.running_mean).abs() / running.sqrt()
        found[name] = (float(ratio.median()), float(distance.median()))
        if len(found) == len(norms):
            raise _Enough

    handles = [
        norm.register_forward_pre_hook(lambda module, inputs, name=name: look(name, module, inputs[0]))
        for name, norm in norms
    ]
    modes = {module: module.training for module in network.modules()}
    try:
        with suppress(_Enough):
            network.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return found


def statistics_ratio(network: Network, images: Float[Tensor, "batch channels height width"]) -> dict[str, float]:
    """The median over channels of what reaches a batch norm: its variance over the running variance, by name.

    Of the first five batch norms, in evaluation mode. images: normalised as the network expects them, or not.
    """
    return {name: ratio for name, (ratio, _) in _norm_inputs(network, images).items()}


def normalisation(case: Case) -> Check:
    """Whether the images reach the first layers as their batch norms expect."""
    preprocessing, network = case.trained.preprocessing, case.trained.network
    fitting = MOST_PIXELS // preprocessing.resolution**2
    most = max(FEWEST_IMAGES, min(MOST_IMAGES, fitting))
    some = case.train[:: -(-len(case.train) // most)]
    pixels = _load(case, some).pixels
    measured = _norm_inputs(network, normalise(pixels, preprocessing))
    if not measured:
        return Check(what="normalisation", number="the network has no batch norm with statistics", looked=False)
    ratios = [ratio for ratio, _ in measured.values()]
    middle, apart = statistics.median(ratios), statistics.median(distance for _, distance in measured.values())
    number = (
        f"{len(some):,} images have {middle:.2f} times the running variance in the first {len(ratios)} batch norms "
        f"({min(ratios):.2f} to {max(ratios):.2f}), means {apart:.2f} deviations apart"
    )
    low, high = EXPECTED_RATIOS
    if low <= middle <= high:
        return Check(what="normalisation", number=number)
    recipe = case.plan.recipe
    held = 0.0 if case.plan.weights else (1 - recipe.bn_momentum) ** (case.kept_steps * recipe.accumulate)
    if held > UNSETTLED:
        found = Finding(
            severity="warning",
            what="normalisation",
            text=f"{number}; after {case.kept_steps:,} steps the statistics still hold {held:.0%} of their start",
            advice="more epochs, or --set bn_momentum=0.1, so that the statistics follow the weights",
        )
    else:
        found = Finding(
            severity="error",
            what="normalisation",
            text=f"{number}; {low:g} to {high:g} times are expected",
            advice="images may be normalised twice, not at all, or otherwise than the weights were trained with; "
            "compare mean and std",
        )
    return Check(what="normalisation", number=number, findings=(found,))


def _load(case: Case, samples: tuple[Sample, ...]) -> Images:
    """Some of the images as the run's network takes them, not normalised."""
    (images,) = load(replace(case.dataset, samples=samples), case.trained.preprocessing)
    return images


def mode_gap(case: Case) -> Check:
    """Whether the network is as good with its running statistics as with those of each batch."""
    recipe = case.plan.recipe
    if recipe.freeze_bn:
        return Check(what="mode_gap", number="batch norm is frozen: both modes are one", looked=False)
    if not case.own or len(case.minival) < 2:
        return Check(what="mode_gap", number="needs the minival images of the run", looked=False)
    order = torch.randperm(len(case.minival), generator=generator(case.plan.seed, "doctor"))
    # Shuffled: the statistics of a batch of one class would be nobody's.
    images = _load(case, tuple(case.minival[i] for i in order[:MINIVAL_IMAGES].tolist()))
    right = [outputs.argmax(1) == images.labels for outputs in _both_modes(case, images)]
    evaluated, batched = (float(mode.double().mean()) for mode in right)
    number = (
        f"{evaluated:.1%} in evaluation mode, {batched:.1%} with batch statistics, of {len(images):,} minival images"
    )
    differing = int((right[0] != right[1]).sum())
    gap = abs(evaluated - batched)
    # Two standard errors of the difference of two paired shares (McNemar 1947).
    if gap <= MOST_GAP or gap * len(images) <= 2 * differing**0.5:
        return Check(what="mode_gap", number=number)
    worse = "running statistics" if evaluated < batched else "statistics of single batches"
    found = Finding(
        severity="warning",
        what="mode_gap",
        text=f"{number}: {100 * gap:.0f} points between the modes; the {worse} do not fit the weights",
        advice="larger batches, more steps, --set bn_momentum=0.1, or images prepared as those of the training",
    )
    return Check(what="mode_gap", number=number, findings=(found,))


def _both_modes(case: Case, images: Images) -> tuple[Tensor, Tensor]:
    """The images' probabilities in evaluation mode and with the statistics of batches; a copy takes those."""
    preprocessing, recipe = case.trained.preprocessing, case.plan.recipe
    evaluated = probabilities(case.trained.network, images.pixels, preprocessing)
    network = copy.deepcopy(case.trained.network).eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    parts = max(1, round(len(images) / (recipe.batch_size / recipe.accumulate)))
    with torch.no_grad():
        outputs = [network(normalise(part, preprocessing)) for part in images.pixels.tensor_split(parts)]
    return evaluated, torch.cat(outputs).float().softmax(1)


def frozen_bn(case: Case, start: Start | str) -> Check:
    """Whether batch norms that the recipe froze still hold the statistics that they began with."""
    recipe, kept = case.plan.recipe, case.record.result.epoch
    if not recipe.freeze_bn and kept > recipe.head_epochs:
        return Check(what="frozen_bn", number="the recipe leaves batch norm free", looked=False)
    if not case.plan.weights:
        return Check(what="frozen_bn", number="there is nothing to keep: the run began at random", looked=False)
    if isinstance(start, str):
        return Check(what="frozen_bn", number=start, looked=False)
    before, after = start.network.state_dict(), case.trained.network.state_dict()
    names = [name.rpartition(".")[0] for name in before if name.endswith("running_mean") and name not in start.fresh]
    moved = [
        name
        for name in names
        if any(not torch.equal(before[f"{name}.{kind}"], after[f"{name}.{kind}"]) for kind in RUNNING)
    ]
    number = f"{len(moved):,} of {len(names):,} pretrained batch norms moved"
    if not moved:
        return Check(what="frozen_bn", number=number)
    found = Finding(
        severity="error",
        what="frozen_bn",
        text=f"{number} though the recipe froze them, such as {moved[0]}",
        advice="put frozen batch norms back in evaluation mode after each network.train()",
    )
    return Check(what="frozen_bn", number=number, findings=(found,))
