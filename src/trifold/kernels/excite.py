"""Batch norm, activation and squeeze-excite (Hu et al. 2018) as one torch operator on the CPU.

Of the wide tensors only the convolution's output is kept. Forward reads it three times and writes once; backward reads
it and the gradient twice: everything that the gradient needs, whatever the gate's gradient turns out to be, is linear
in five sums of each image and channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trifold.errors import InvalidInput
from trifold.kernels.gradients import gradients_by_torch, register_gradient
from trifold.kernels.library import call
from trifold.kernels.norm_act import ACTIVATIONS, check_images, make_norm, plain, rows, statistics

_PASSED_BACK: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda grad, _: grad,
    "silu": torch.ops.aten.silu_backward,
    "relu": lambda grad, x: torch.ops.aten.threshold_backward(grad, x, 0),
    "relu6": lambda grad, x: torch.ops.aten.hardtanh_backward(grad, x, 0, 6),
    "hard_swish": torch.ops.aten.hardswish_backward,
}
"""The gradient at an activation's input from that at its output and the input."""

_TENSORS = ("x", "weight", "bias", "reduce_weight", "reduce_bias", "excite_weight", "excite_bias")
_SCHEMA = f"({', '.join(f'Tensor {name}' for name in _TENSORS)}, float epsilon, str activation)"
_OPERATORS = torch.library.Library("trifold", "FRAGMENT")
_OPERATORS.define(f"norm_act_excite{_SCHEMA} -> (Tensor, Tensor, Tensor, Tensor, Tensor)")
_OPERATORS.define(
    "norm_act_excite_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor reduce_weight, "
    "Tensor reduce_bias, Tensor excite_weight, Tensor mean, Tensor variance, Tensor pooled, Tensor gate, "
    "float epsilon, str activation) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
norm_act_excite = torch.ops.trifold.norm_act_excite.default
"""norm_act_excite(x, weight, bias, reduce_weight, reduce_bias, excite_weight, excite_bias, epsilon, activation).

The activated, normalised x times its gates; the batch's means and variances; each image's means of what is gated; the
gates. All but the first have no gradient.

x, weight, bias, epsilon, activation: as for `norm_act`; the activation also stands between the two layers.
reduce_weight: (squeeze, channels); reduce_bias: (squeeze,); excite_weight: (channels, squeeze); excite_bias:
(channels,).

Raises InvalidInput naming the argument, the value and what is allowed.
"""
norm_act_excite_backward = torch.ops.trifold.norm_act_excite_backward.default
"""The gradients at the seven tensors from that at the first output."""


def gates(pooled: Tensor, layers: Sequence[Tensor], activation: str) -> Tensor:
    """Squeeze-excite's two layers: each image's and channel's factor in (0, 1), (batch, channels)."""
    hidden = F.linear(pooled, layers[0], layers[1])
    return F.linear(ACTIVATIONS[activation](hidden), layers[2], layers[3]).sigmoid()


def gates_backward(
    grad: Tensor, gate: Tensor, pooled: Tensor, layers: Sequence[Tensor], activation: str
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The gradients at `pooled` and at the four tensors of the layers; the last of those is not needed here."""
    hidden = F.linear(pooled, layers[0], layers[1])
    activated = ACTIVATIONS[activation](hidden)
    at_excited = torch.ops.aten.sigmoid_backward(grad, gate)
    at_hidden = _PASSED_BACK[activation](at_excited @ layers[2], hidden)
    of_layers = (at_hidden.T @ pooled, at_hidden.sum(0), at_excited.T @ activated, at_excited.sum(0))
    return at_hidden @ layers[0], of_layers


def plain_excite(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    excite_weight: Tensor,
    excite_bias: Tensor,
    *,
    epsilon: float,
    activation: str,
) -> Tensor:
    """The first output of `norm_act_excite` by torch's own functions."""
    y = plain(x, weight, bias, epsilon=epsilon, activation=activation)
    layers = (reduce_weight, reduce_bias, excite_weight, excite_bias)
    return y * gates(y.mean((2, 3)), layers, activation)[:, :, None, None]


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    excite_weight: Tensor,
    excite_bias: Tensor,
    epsilon: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    check_images(x)
    x = x.contiguous(memory_format=torch.channels_last)
    norm = statistics(x, weight, bias, epsilon, activation)
    _check_excite(x, reduce_weight, excite_weight)
    out, pooled, sizes = torch.empty_like(x), x.new_empty(x.shape[:2]), rows(x, by_image=True)
    call("norm_act_pool", x, sizes, norm.passed(), x, pooled)
    gate = gates(pooled, (reduce_weight, reduce_bias, excite_weight, excite_bias), activation).contiguous()
    call("norm_act_apply", x, sizes, norm.passed(), x, gate, out)
    return out, norm.mean, norm.variance, pooled, gate


def _check_excite(x: Tensor, reduce_weight: Tensor, excite_weight: Tensor) -> None:
    """Raises InvalidInput unless the two layers fit the channels."""
    channels, squeezed = x.shape[1], reduce_weight.shape[0]
    for name, tensor, wanted in (
        ("reduce_weight", reduce_weight, (squeezed, channels)),
        ("excite_weight", excite_weight, (channels, squeezed)),
    ):
        if tuple(tensor.shape) != wanted:
            raise InvalidInput(f"norm_act_excite: {name} must have the shape {wanted}, got {tuple(tensor.shape)}")


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    excite_weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    pooled: Tensor,
    gate: Tensor,
    epsilon: float,
    activation: str,
) -> tuple[Tensor, ...]:
    x, grad = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad))
    norm = make_norm(weight, bias, mean, variance, epsilon, activation)
    sizes = rows(x, by_image=True)
    sums = x.new_empty((5, *x.shape[:2]))
    call("norm_act_gated_sums", x, sizes, norm.passed(), x, grad, sums)
    layers = (reduce_weight, reduce_bias, excite_weight)
    at_pooled, of_layers = gates_backward(sums[0], gate, pooled, layers, activation)
    added = (at_pooled / sizes[1]).contiguous()
    found = tuple(torch.empty_like(tensor) for tensor in (weight, bias, x))
    call("norm_act_grad", x, sizes, norm.passed(), x, grad, gate.contiguous(), added, sums, *found)
    for_weight, for_bias, out = found
    return out, for_weight, for_bias, *of_layers


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.epsilon, ctx.activation = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*tensors, *output[1:])


def _gradients(ctx: Any, grad: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    *tensors, mean, variance, pooled, gate = ctx.saved_tensors
    by = (ctx.epsilon, ctx.activation)
    if torch.is_grad_enabled():
        function = partial(plain_excite, epsilon=ctx.epsilon, activation=ctx.activation)
        return *gradients_by_torch(function, tuple(tensors), ctx.needs_input_grad[:7], grad), None, None
    found = norm_act_excite_backward(grad, *tensors[:6], mean, variance, pooled, gate, *by)
    return *found, None, None


_OPERATORS.impl("norm_act_excite", _forward, "CPU")
_OPERATORS.impl("norm_act_excite_backward", _backward, "CPU")


def _forward_fake(x: Tensor, weight: Tensor, *_: object) -> tuple[Tensor, ...]:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    pooled = x.new_empty(x.shape[:2])
    return out, torch.empty_like(weight), torch.empty_like(weight), pooled, torch.empty_like(pooled)


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    excite_weight: Tensor,
    *_: object,
) -> tuple[Tensor, ...]:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    of_layers = (reduce_weight, reduce_bias, excite_weight, bias)
    return out, *(torch.empty_like(tensor) for tensor in (weight, bias, *of_layers))


torch.library.register_fake("trifold::norm_act_excite", _forward_fake, lib=_OPERATORS)
torch.library.register_fake("trifold::norm_act_excite_backward", _backward_fake, lib=_OPERATORS)
register_gradient(_OPERATORS, "norm_act_excite", _gradients, _save)
torch.library.register_autocast("trifold::norm_act_excite", "cpu", torch.float32, lib=_OPERATORS)
