"""The moving average of a network's weights and batch-norm statistics."""

from __future__ import annotations

import copy

import torch
from torch import nn

from trifold.train.schedule import ema_decay


class Average:
    """A network of its own whose tensors follow another's: new = decay * old + (1 - decay) * theirs (paper §5.2).

    It begins as a copy. Tensors of whole numbers are copied.
    """

    def __init__(self, network: nn.Module, highest_decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.highest_decay = highest_decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Follows the network after a step, counted from 0."""
        share = 1 - ema_decay(self.highest_decay, step)
        mine, theirs = self.network.state_dict(), network.state_dict()
        floats = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mine[n] for n in floats], [theirs[n] for n in floats], share)
        for name in mine.keys() - set(floats):
            mine[name].copy_(theirs[name])
