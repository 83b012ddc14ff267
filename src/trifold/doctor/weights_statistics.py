"""What reaches a network's batch norms, image by image, and how far that lies from the statistics they hold."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trifold.network import Network
from trifold.train.randomness import generator

REPEATS = 50
"""Times that the images are drawn anew, with replacement, to say how far a distance is a matter of the draw."""

SHARED_FACTOR = 1.6
"""Of all variances of a layer together: photographs differ so much in sharpness and contrast. It counts nothing.

EfficientNet-B4's first five norms get 0.85 to 0.91 of the stored variance from photographs at 224 pixels, 0.60 to 0.86
where these are enlarged to 380; with a mean and std of one half in place of ImageNet's 0.13 to 0.32 (results/real_b4).
"""

LEAST_VARIANCE = 0.01
"""Of a layer's median running variance: what is added to both sides, so that idle channels are not judged by noise."""


class _Enough(Exception):
    """Every batch norm of interest was reached; it is no error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """What reached one batch norm. mean, square: (images, channels), over the pixels, float64; running_*: as stored."""

    mean: Tensor
    square: Tensor
    running_mean: Tensor
    running_var: Tensor


@torch.no_grad()
def moments(network: Network, norms: Sequence[str], batches: Iterable[Tensor], *, own: bool) -> tuple[Moments, ...]:
    """What reaches the batch norms of these names, in their order; the network stays as it is.

    batches: images as the network takes them, (images, channels, height, width). own: each norm normalises by the
    batch's own statistics, so that a layer is judged apart from those before it; else by the stored ones.
    """
    network = copy.deepcopy(network).eval()
    modules = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    if own:
        for module in modules.values():
            module.train()
            module.momentum = 0.0  # the stored statistics stay
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in norms}

    def look(name: str, x: Tensor) -> None:
        found[name].append((x.mean((2, 3)).double(), x.square().mean((2, 3)).double()))
        if len({len(seen) for seen in found.values()}) == 1:  # each has seen the batch
            raise _Enough

    for name in norms:
        modules[name].register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0]))
    for batch in batches:
        with suppress(_Enough):
            network(batch)
    return tuple(_gathered(modules[name], seen) for name, seen in found.items())


def _gathered(norm: nn.BatchNorm2d, seen: Sequence[tuple[Tensor, Tensor]]) -> Moments:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    means, squares = zip(*seen, strict=True)
    return Moments(
        mean=torch.cat(means),
        square=torch.cat(squares),
        running_mean=norm.running_mean.double(),
        running_var=norm.running_var.double(),
    )


def draws(images: int) -> Tensor:
    """Shares of the images, (1 + REPEATS, images): all of them, then REPEATS draws with replacement."""
    drawn = torch.randint(images, (REPEATS, images), generator=generator(0, "doctor"))
    counts = torch.zeros(REPEATS, images, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones(REPEATS, images, dtype=torch.float64))
    return torch.cat([torch.ones(1, images, dtype=torch.float64), counts]) / images


def distances(found: Sequence[Moments], shares: Tensor) -> Tensor:
    """How far the images' statistics lie from the stored ones, a number for each row of shares; 0 is equal.

    The mean over the norms of three numbers: what the layer's shared variance ratio exceeds SHARED_FACTOR by (natural
    logarithm, either way), its channels' mean distance from that ratio, and the means' distance in stored deviations.
    """
    total = torch.zeros(len(shares), dtype=torch.float64)
    for layer in found:
        mean, square = shares @ layer.mean, shares @ layer.square
        least = LEAST_VARIANCE * layer.running_var.median()
        stored = layer.running_var + least
        ratio = (((square - mean.square()).clamp(min=0) + least) / stored).log()
        shared = ratio.median(1, keepdim=True).values
        excess = (shared[:, 0].abs() - math.log(SHARED_FACTOR)).clamp(min=0)
        spread = (ratio - shared).abs().mean(1)
        shift = ((mean - layer.running_mean).abs() / stored.sqrt()).mean(1)
        total += excess + spread + shift
    return total / len(found)
