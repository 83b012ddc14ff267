"""Depthwise convolution of channels-last images on the CPU as torch operators: forward, input and weight gradient.

The three are bilinear and each one's gradients are the other two, so gradients of any order are exact. Padding is part
of them: `before` is how many zeros stand above and to the left, and the output's size says how many follow, so that
TensorFlow's SAME needs no padded copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import SymInt, Tensor

from trifold.errors import InvalidInput
from trifold.kernels.gradients import register_gradient
from trifold.kernels.library import call

KERNEL_SIZES = (3, 5, 7)
STRIDES = (1, 2)

_OPERATORS = torch.library.Library("trifold", "FRAGMENT")
_OPERATORS.define("depthwise(Tensor x, Tensor weight, int stride, SymInt[2] before, SymInt[2] out_size) -> Tensor")
_OPERATORS.define(
    "depthwise_input_grad(Tensor grad, Tensor weight, int stride, SymInt[2] before, SymInt[2] size) -> Tensor"
)
_OPERATORS.define(
    "depthwise_weight_grad(Tensor x, Tensor grad, int kernel_size, int stride, SymInt[2] before) -> Tensor"
)
depthwise = torch.ops.trifold.depthwise.default
"""depthwise(x, weight, stride, before, out_size): each channel convolved with its own square kernel.

x: (batch, channels, height, width), float32 or float64; any memory order, channels-last is the fast one. weight:
(channels, 1, k, k), k 3, 5 or 7. stride: 1 or 2. before: zeros above and to the left, in pixels, from 0 to k - 1.
out_size: height and width of the output, which is channels-last; zeros follow where windows reach beyond the image.

Raises InvalidInput naming the argument, the value and what is allowed.
"""
depthwise_input_grad = torch.ops.trifold.depthwise_input_grad.default
"""depthwise_input_grad(grad, weight, stride, before, size): the gradient at x, of height and width `size`."""
depthwise_weight_grad = torch.ops.trifold.depthwise_weight_grad.default
"""depthwise_weight_grad(x, grad, kernel_size, stride, before): the gradient at the weights."""


def _check(images: Tensor, other: Tensor, kernel_size: int, stride: int, before: Sequence[int]) -> None:
    """Raises InvalidInput where the kernels have no code for this."""
    for name, tensor in (("x", images), ("the other tensor", other)):
        if tensor.dtype not in (torch.float32, torch.float64) or tensor.dtype != images.dtype:
            raise InvalidInput(f"depthwise: {name} must be float32 or float64, both alike, got {tensor.dtype}")
        if tensor.ndim != 4:
            raise InvalidInput(f"depthwise: {name} must have 4 dimensions, got {tensor.ndim}")
    if kernel_size not in KERNEL_SIZES:
        raise InvalidInput(f"depthwise: kernel_size must be 3, 5 or 7, got {kernel_size!r}")
    if stride not in STRIDES:
        raise InvalidInput(f"depthwise: stride must be 1 or 2, got {stride!r}")
    if not all(0 <= zeros < kernel_size for zeros in before):
        raise InvalidInput(f"depthwise: before must be from 0 to {kernel_size - 1}, got {tuple(before)}")


def _check_weight(images: Tensor, weight: Tensor) -> None:
    """Raises InvalidInput unless there is one square kernel a channel."""
    wanted = (images.shape[1], 1, weight.shape[-1], weight.shape[-1])
    if tuple(weight.shape) != wanted:
        raise InvalidInput(f"depthwise: weight must have the shape {wanted}, got {tuple(weight.shape)}")


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _images_like(images: Tensor, size: Sequence[int | SymInt]) -> Tensor:
    """An uninitialised channels-last tensor with the batch and the channels of another."""
    shape = (*images.shape[:2], *size)
    return torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last)


def used_taps(
    kernel_size: int, stride: int, before: Sequence[int], size: Sequence[int], out_size: Sequence[int]
) -> slice:
    """The taps, along either side, that fall on the image for some output: on a map of 2x2 the middle 3 of 5.

    Their number is odd, and 1 only where the stride is 1.
    """
    low = min(max(0, first - (outs - 1) * stride) for first, outs in zip(before, out_size, strict=True))
    high = max(min(kernel_size, first + side) for first, side in zip(before, size, strict=True))
    least = 1 if stride == 1 else 3
    while high - low < least or (high - low) % 2 == 0:
        low, high = (low, high + 1) if high < kernel_size else (low - 1, high)
    return slice(low, high)


def _window(
    images: Tensor, size: Sequence[int], out_size: Sequence[int], kernel_size: int, stride: int, before: Sequence[int]
) -> tuple[int, ...]:
    """What the compiled library calls a window."""
    return (*images.shape[:2], *size, *out_size, kernel_size, stride, *before)


def _forward(x: Tensor, weight: Tensor, stride: int, before: Sequence[int], out_size: Sequence[int]) -> Tensor:
    kernel_size = weight.shape[-1]
    _check(x, weight, kernel_size, stride, before)
    _check_weight(x, weight)
    x = _channels_last(x)
    out = _images_like(x, out_size)
    if out.numel():
        taps = used_taps(kernel_size, stride, before, x.shape[2:], out_size)
        weight, before = weight[:, :, taps, taps].contiguous(), [first - taps.start for first in before]
        call(
            "depthwise_forward", x, _window(x, x.shape[2:], out_size, weight.shape[-1], stride, before), x, weight, out
        )
    return out


def _input_grad(grad: Tensor, weight: Tensor, stride: int, before: Sequence[int], size: Sequence[int]) -> Tensor:
    kernel_size = weight.shape[-1]
    _check(grad, weight, kernel_size, stride, before)
    _check_weight(grad, weight)
    grad = _channels_last(grad)
    out = _images_like(grad, size)
    if out.numel():
        taps = used_taps(kernel_size, stride, before, size, grad.shape[2:])
        weight, before = weight[:, :, taps, taps].contiguous(), [first - taps.start for first in before]
        window = _window(grad, size, grad.shape[2:], weight.shape[-1], stride, before)
        call("depthwise_input_grad", grad, window, grad, weight, out)
    return out


def _weight_grad(x: Tensor, grad: Tensor, kernel_size: int, stride: int, before: Sequence[int]) -> Tensor:
    _check(x, grad, kernel_size, stride, before)
    if x.shape[:2] != grad.shape[:2]:
        raise InvalidInput(
            f"depthwise: grad must have x's batch and channels {tuple(x.shape[:2])}, got {tuple(grad.shape)}"
        )
    x, grad = _channels_last(x), _channels_last(grad)
    out = x.new_zeros((x.shape[1], 1, kernel_size, kernel_size))
    if grad.numel():
        taps = used_taps(kernel_size, stride, before, x.shape[2:], grad.shape[2:])
        found, before = out[:, :, taps, taps].contiguous(), [first - taps.start for first in before]
        window = _window(x, x.shape[2:], grad.shape[2:], found.shape[-1], stride, before)
        call("depthwise_weight_grad", x, window, x, grad, found)
        out[:, :, taps, taps] = found
    return out


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.stride, ctx.before, ctx.out_size = inputs
    ctx.save_for_backward(x, weight)


def _forward_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    by = (ctx.stride, ctx.before)
    for_x = depthwise_input_grad(grad, weight, *by, x.shape[2:]) if ctx.needs_input_grad[0] else None
    for_weight = depthwise_weight_grad(x, grad, weight.shape[-1], *by) if ctx.needs_input_grad[1] else None
    return for_x, for_weight, None, None, None


def _save_input_grad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, weight, ctx.stride, ctx.before, _ = inputs
    ctx.save_for_backward(grad, weight)


def _input_grad_backward(ctx: Any, second: Tensor) -> tuple[Tensor | None, ...]:
    grad, weight = ctx.saved_tensors
    by = (ctx.stride, ctx.before)
    for_grad = depthwise(second, weight, *by, grad.shape[2:]) if ctx.needs_input_grad[0] else None
    for_weight = depthwise_weight_grad(second, grad, weight.shape[-1], *by) if ctx.needs_input_grad[1] else None
    return for_grad, for_weight, None, None, None


def _save_weight_grad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grad, _, ctx.stride, ctx.before = inputs
    ctx.save_for_backward(x, grad)


def _weight_grad_backward(ctx: Any, second: Tensor) -> tuple[Tensor | None, ...]:
    x, grad = ctx.saved_tensors
    by = (ctx.stride, ctx.before)
    for_x = depthwise_input_grad(grad, second, *by, x.shape[2:]) if ctx.needs_input_grad[0] else None
    for_grad = depthwise(x, second, *by, grad.shape[2:]) if ctx.needs_input_grad[1] else None
    return for_x, for_grad, None, None, None


_OPERATORS.impl("depthwise", _forward, "CPU")
_OPERATORS.impl("depthwise_input_grad", _input_grad, "CPU")
_OPERATORS.impl("depthwise_weight_grad", _weight_grad, "CPU")


def _forward_fake(x: Tensor, weight: Tensor, stride: int, before: Any, out_size: Any) -> Tensor:
    return _images_like(x, out_size)


def _input_grad_fake(grad: Tensor, weight: Tensor, stride: int, before: Any, size: Any) -> Tensor:
    return _images_like(grad, size)


def _weight_grad_fake(x: Tensor, grad: Tensor, kernel_size: int, stride: int, before: Any) -> Tensor:
    return x.new_empty((x.shape[1], 1, kernel_size, kernel_size))


torch.library.register_fake("trifold::depthwise", _forward_fake, lib=_OPERATORS)
torch.library.register_fake("trifold::depthwise_input_grad", _input_grad_fake, lib=_OPERATORS)
torch.library.register_fake("trifold::depthwise_weight_grad", _weight_grad_fake, lib=_OPERATORS)
for _name, _backward, _save in (
    ("depthwise", _forward_backward, _save_forward),
    ("depthwise_input_grad", _input_grad_backward, _save_input_grad),
    ("depthwise_weight_grad", _weight_grad_backward, _save_weight_grad),
):
    register_gradient(_OPERATORS, _name, _backward, _save)
    torch.library.register_autocast(f"trifold::{_name}", "cpu", torch.float32, lib=_OPERATORS)
