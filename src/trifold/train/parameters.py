"""Which parameters move: groups with their decay and share of the rate, the optimiser over them, and what is frozen."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import trifold._torchvision  # noqa: F401  timm imports torchvision, which needs the guard first
from trifold.errors import InvalidInput
from trifold.train.recipe import Recipe
from trifold.weights.layouts import row_of

RMSPROP_DECAY, RMSPROP_EPSILON = 0.9, 1e-3
"""Of the mean squares, and within the root (tensorflow/tpu utils.py build_optimizer)."""


def row_depths(network: nn.Module) -> dict[str, int]:
    """How many rows each top-level part lies before the classifier, which has 0, by the prefix of its tensors' names.

    Rows of the architecture, backwards: head (where there is one), stages from last to first, stem. B0: head 1, its
    stages 2 to 8, stem 9.
    """
    rows = dict.fromkeys(row_of(name) for name, _ in network.named_parameters())
    before = [row for row in reversed(rows) if row != "classifier"]
    return {"classifier": 0} | {row: depth for depth, row in enumerate(before, start=1)}


def _norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Every batch norm by its module's name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The network's parameters as an optimiser's groups: "params", "weight_decay" and "lr_scale", none empty.

    lr_scale: the group's share of the learning rate: layer_decay to the power of `row_depths`, so 1 for the classifier
    and the least for the stem. The order is that of the rates, least first; what decays comes before what does not;
    within a group, the network's own.
    """
    depths = row_depths(network)
    norms = {id(parameter) for norm in _norms(network).values() for parameter in norm.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decays = parameter.ndim > 1 if recipe.decay == "kernels" else id(parameter) not in norms
        scale = float(recipe.layer_decay ** depths[row_of(name)])
        groups.setdefault((scale, not decays), []).append(parameter)
    return [
        {"params": groups[key], "weight_decay": 0.0 if key[1] else recipe.weight_decay, "lr_scale": key[0]}
        for key in sorted(groups)
    ]


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over `parameter_groups`; each group's rate is the schedule's times its "lr_scale".

    All three pass over parameters without a gradient, weight decay and momentum included, as frozen ones are after
    ``zero_grad(set_to_none=True)``. rmsprop_tf is timm's copy of TensorFlow's: mean squares from 1, epsilon within the
    root, the rate within the momentum, decay added to the gradient.
    """
    groups = parameter_groups(network, recipe)
    for group in groups:
        group["lr"] = recipe.highest_lr * group["lr_scale"]
    lr, momentum = recipe.highest_lr, recipe.momentum
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=True)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    from timm.optim.rmsprop_tf import RMSpropTF

    return RMSpropTF(groups, lr=lr, alpha=RMSPROP_DECAY, eps=RMSPROP_EPSILON, momentum=momentum)


def set_mode(network: nn.Module, recipe: Recipe, *, epoch: int, fresh: Collection[str] = ()) -> None:
    """Puts the network in the training mode of an epoch, with what the recipe freezes really frozen.

    To be called on the network itself (not what wraps it) before each epoch, from 0, and again after every evaluation,
    since ``network.train()`` switches frozen batch norms back on. Frozen parameters lose their gradients, so that no
    optimiser touches them.

    freeze_bn: batch norms keep statistics, scale and shift. While epoch < head_epochs all but the classifier is frozen
    and in evaluation mode; dropout before the classifier stays on.
    fresh: names of tensors that hold no pretrained values (`transfer.Loaded.initial`). A batch norm among them is
    never frozen by freeze_bn, since its statistics are of nothing, and a row of the network that is wholly fresh is
    trained together with the classifier.

    Raises InvalidInput if head_epochs asks for a classifier that the network does not have.
    """
    network.train()
    network.requires_grad_(True)
    if recipe.freeze_bn:
        for name, norm in _norms(network).items():
            if f"{name}.running_mean" not in fresh:
                _freeze(norm)
    if epoch < recipe.head_epochs:
        _train_head_alone(network, fresh)
    for parameter in network.parameters():
        if not parameter.requires_grad:
            parameter.grad = None


def _freeze(module: nn.Module) -> None:
    module.eval().requires_grad_(False)


def _train_head_alone(network: nn.Module, fresh: Collection[str]) -> None:
    """Freezes every row before the classifier that holds anything pretrained."""
    names = [name for name, _ in network.named_parameters()]
    if not any(row_of(name) == "classifier" for name in names):
        raise InvalidInput("recipe: head_epochs must be 0 for a network without a classifier")
    kept = {row_of(name) for name in names if name not in fresh} - {"classifier"}
    for row in kept:
        _freeze(network.get_submodule(row))
