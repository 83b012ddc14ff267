"""What tests beside other libraries share: random networks whose every number matters, and their distance."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def images(size: tuple[int, int], *, seed: int = 0, batch: int = 2) -> Tensor:
    return torch.randn((batch, 3, *size), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomise(network: nn.Module, *, seed: int) -> None:
    """Gives every tensor random values, batch-norm statistics too, under which 50 layers neither vanish nor overflow.

    The statistics are those of random images, each mean moved by a normal third of a deviation and each variance
    multiplied by 0.5 to 2: wide enough that a wrong epsilon, order or padding shows.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            bound = (6 / fan_in) ** 0.5
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.5, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.3, generator=generator)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    network(images((64, 64), seed=seed + 1, batch=4))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        deviation = variance.sqrt()
        mean.add_(deviation * torch.randn(mean.shape, generator=generator) / 3)
        variance.mul_(0.5 * 4 ** torch.rand(variance.shape, generator=generator)).add_(0.01)


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest value of the peer."""
    return float(((ours - theirs).abs().max() / theirs.abs().max()).detach())


@torch.no_grad()
def vary(network: nn.Module, *, seed: int, gain: float = 1.5) -> None:
    """As `randomise`, with statistics that are not those of any images.

    gain: of each convolution, small enough for rounding not to grow from layer to layer; deep networks want less.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.normal_(0, (gain / module.weight[0].numel()) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.5, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.3, 1.5, generator=generator)
