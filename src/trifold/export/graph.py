"""A network as it is exported: in evaluation, with normalisation and softmax inside the graph where asked."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from trifold.errors import InvalidInput
from trifold.export.interface import Interface
from trifold.network import Network


class Deployed(nn.Module):
    """The network between what an interface says of its input and of its output; in evaluation mode, on the CPU."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: Network, interface: Interface) -> None:
        super().__init__()
        if interface.num_classes != network.num_classes:
            raise InvalidInput(f"interface: num_classes {interface.num_classes} is not {network.num_classes}")
        self.interface = interface
        self.network = copy.deepcopy(network).float().cpu().eval().requires_grad_(False)
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", 255 * torch.tensor(interface.preprocessing.mean).view(shape))
        self.register_buffer("scale", 1 / (255 * torch.tensor(interface.preprocessing.std).view(shape)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits or probabilities, (batch, num_classes). images: (batch, channels, height, width), float32."""
        if self.interface.takes_levels:
            images = (images - self.mean) * self.scale
        logits: Tensor = self.network(images)
        return logits.softmax(1) if self.interface.gives_probabilities else logits

    def example(self) -> Tensor:
        """An input of the right shape; two images where any number may come, since one is taken for a constant."""
        return torch.zeros(self.interface.batch or 2, *self.interface.shape)
