"""Batch norm by the batch's own statistics and the activation after it, as one torch operator on the CPU.

The gradient computes the activation's input again, so that one tensor less is kept and fewer are read and written.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trifold.errors import InvalidInput
from trifold.kernels.gradients import gradients_by_torch, register_gradient
from trifold.kernels.library import call

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "silu": F.silu,
    "relu": F.relu,
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
}
"""The activations that are compiled in, in the library's order, each with torch's own function."""
_NUMBERS = {name: number for number, name in enumerate(ACTIVATIONS)}

_OPERATORS = torch.library.Library("trifold", "FRAGMENT")
_OPERATORS.define(
    "norm_act(Tensor x, Tensor weight, Tensor bias, float epsilon, str activation) -> (Tensor, Tensor, Tensor)"
)
_OPERATORS.define(
    "norm_act_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor variance, float epsilon, "
    "str activation) -> (Tensor, Tensor, Tensor)"
)
norm_act = torch.ops.trifold.norm_act.default
"""norm_act(x, weight, bias, epsilon, activation): the activated, normalised x; the batch's means; its variances.

x: (batch, channels, height, width), float32 or float64, batch * height * width from 2; any memory order, channels-last
is the fast one. weight, bias: (channels,), x's type. epsilon: added to the variance, 0 or more. activation: one of
`ACTIVATIONS`. The output is channels-last; the variances, (channels,), are divided by the number of values, not by one
less. Means and variances have no gradient.

Raises InvalidInput naming the argument, the value and what is allowed.
"""
norm_act_backward = torch.ops.trifold.norm_act_backward.default
"""The gradients at x, weight and bias from that at the output."""


def plain(x: Tensor, weight: Tensor, bias: Tensor, *, epsilon: float, activation: str) -> Tensor:
    """The first output of `norm_act` by torch's own functions."""
    return ACTIVATIONS[activation](F.batch_norm(x, None, None, weight, bias, True, 0.0, epsilon))


class _Norm(ctypes.Structure):
    """What the compiled library calls a norm."""

    _fields_ = (
        ("activation", ctypes.c_int64),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "mean", "variance")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """Batch norm and activation as the compiled library takes them; the tensors are contiguous, (channels,)."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    epsilon: float
    activation: str

    def passed(self) -> ctypes.Structure:
        """The structure whose address is passed; its tensors live as long as this value."""
        tensors = (self.weight, self.bias, self.mean, self.variance)
        return _Norm(_NUMBERS[self.activation], self.epsilon, *(tensor.data_ptr() for tensor in tensors))


def rows(x: Tensor, *, by_image: bool) -> tuple[int, int, int]:
    """Images, rows of each, channels; all images' rows as one's, unless by_image."""
    batch, channels, height, width = x.shape
    return (batch, height * width, channels) if by_image else (1, batch * height * width, channels)


def check_images(x: Tensor) -> None:
    """Raises InvalidInput where the library has no code for such images."""
    if x.dtype not in (torch.float32, torch.float64) or x.ndim != 4:
        raise InvalidInput(f"norm_act: x must be float32 or float64 of 4 dimensions, got {x.dtype} of {x.ndim}")
    if x.numel() < 2 * x.shape[1]:
        raise InvalidInput(f"norm_act: x must have at least 2 values a channel, got the shape {tuple(x.shape)}")


def check_norm(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> None:
    """Raises InvalidInput where the library has no code for such a norm of x, or for the activation after it."""
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor.dtype != x.dtype or tuple(tensor.shape) != (x.shape[1],):
            wanted = f"{x.dtype} of {x.shape[1]} values"
            raise InvalidInput(f"norm_act: {name} must be {wanted}, got {tensor.dtype} of {tuple(tensor.shape)}")
    if activation not in _NUMBERS:
        raise InvalidInput(f"norm_act: activation must be {' or '.join(_NUMBERS)}, got {activation!r}")


def make_norm(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float, activation: str) -> Norm:
    """The norm of tensors in any memory order."""
    return Norm(
        weight=weight.contiguous(),
        bias=bias.contiguous(),
        mean=mean.contiguous(),
        variance=variance.contiguous(),
        epsilon=epsilon,
        activation=activation,
    )


def statistics(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str) -> Norm:
    """The norm with the mean and the variance of channels-last images. Raises InvalidInput as `check_norm` does."""
    check_norm(x, weight, bias, activation)
    mean, variance = (x.new_empty(x.shape[1]) for _ in range(2))
    call("norm_statistics", x, rows(x, by_image=False), x, mean, variance)
    return make_norm(weight, bias, mean, variance, epsilon, activation)


def _forward(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    check_images(x)
    x = x.contiguous(memory_format=torch.channels_last)
    norm, out = statistics(x, weight, bias, epsilon, activation), torch.empty_like(x)
    call("norm_act_apply", x, rows(x, by_image=False), norm.passed(), x, None, out)
    return out, norm.mean, norm.variance


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    x, grad = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad))
    norm = make_norm(weight, bias, mean, variance, epsilon, activation)
    out, for_weight, for_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
    given = (x, grad, None, None, None, for_weight, for_bias, out)
    call("norm_act_grad", x, rows(x, by_image=False), norm.passed(), *given)
    return out, for_weight, for_bias


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, ctx.epsilon, ctx.activation = inputs
    _, mean, variance = output
    ctx.mark_non_differentiable(mean, variance)
    ctx.save_for_backward(x, weight, bias, mean, variance)


def _gradients(ctx: Any, grad: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, variance = ctx.saved_tensors
    by = (ctx.epsilon, ctx.activation)
    if torch.is_grad_enabled():
        function = partial(plain, epsilon=ctx.epsilon, activation=ctx.activation)
        return *gradients_by_torch(function, (x, weight, bias), ctx.needs_input_grad[:3], grad), None, None
    return *norm_act_backward(grad, x, weight, bias, mean, variance, *by), None, None


_OPERATORS.impl("norm_act", _forward, "CPU")
_OPERATORS.impl("norm_act_backward", _backward, "CPU")


def _forward_fake(
    x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return out, torch.empty_like(weight), torch.empty_like(weight)


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return out, torch.empty_like(weight), torch.empty_like(bias)


torch.library.register_fake("trifold::norm_act", _forward_fake, lib=_OPERATORS)
torch.library.register_fake("trifold::norm_act_backward", _backward_fake, lib=_OPERATORS)
register_gradient(_OPERATORS, "norm_act", _gradients, _save)
torch.library.register_autocast("trifold::norm_act", "cpu", torch.float32, lib=_OPERATORS)
