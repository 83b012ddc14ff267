"""The middle of an MBConv block (paper §4) as one torch operator on the CPU, from expansion to projection.

Batch norm, activation, depthwise convolution, batch norm, activation and, where there is one, squeeze-excite. Of the
wide tensors only the two convolutions' outputs are kept; what stands between them is never written to memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trifold.errors import InvalidInput
from trifold.kernels.depthwise import KERNEL_SIZES, STRIDES, used_taps
from trifold.kernels.excite import gates, gates_backward, plain_excite
from trifold.kernels.gradients import gradients_by_torch, register_gradient
from trifold.kernels.library import call
from trifold.kernels.norm_act import check_images, check_norm, make_norm, plain, rows, statistics

_TENSORS = "Tensor x, Tensor weight1, Tensor bias1, Tensor kernel, Tensor weight2, Tensor bias2"
_LAYERS = "Tensor? reduce_weight, Tensor? reduce_bias, Tensor? excite_weight, Tensor? excite_bias"
_NUMBERS = "int stride, SymInt[2] before, SymInt[2] out_size, float epsilon1, float epsilon2, str activation"
_FOUND = "Tensor mean1, Tensor variance1, Tensor inner, Tensor mean2, Tensor variance2, Tensor pooled, Tensor gate"
_OPERATORS = torch.library.Library("trifold", "FRAGMENT")
_OPERATORS.define(f"mbconv_middle({_TENSORS}, {_LAYERS}, {_NUMBERS}) -> ({', '.join(['Tensor'] * 8)})")
_ALL = f"Tensor grad, {_TENSORS}, {_LAYERS}, {_FOUND}, {_NUMBERS}"
_OPERATORS.define(f"mbconv_middle_backward({_ALL}) -> ({', '.join(['Tensor'] * 10)})")
mbconv_middle = torch.ops.trifold.mbconv_middle.default
"""mbconv_middle(x, weight1, bias1, kernel, weight2, bias2, reduce_weight, reduce_bias, excite_weight, excite_bias,
stride, before, out_size, epsilon1, epsilon2, activation).

What is projected; then, all without a gradient: the first norm's means and variances, the depthwise convolution's
output, the second norm's means and variances, each image's means of what is gated, and the gates (the last two are
empty without squeeze-excite).

x: the expansion's convolution's output. weight1, bias1, epsilon1; weight2, bias2, epsilon2: the norms', as for
`norm_act`. kernel, stride, before, out_size: as for `depthwise`. The four layers' tensors are as for
`norm_act_excite`, or all None. activation: stands behind both norms and between the two layers.

Raises InvalidInput naming the argument, the value and what is allowed.
"""
mbconv_middle_backward = torch.ops.trifold.mbconv_middle_backward.default
"""The gradients at the ten tensors from that at the first output; empty for layers that are not there."""

Numbers = tuple[int, Sequence[int], Sequence[int], float, float, str]


def plain_middle(tensors: Sequence[Tensor | None], numbers: Numbers) -> Tensor:
    """The first output of `mbconv_middle` by torch's own functions."""
    x, weight1, bias1, kernel, weight2, bias2, *layers = tensors
    stride, before, out_size, epsilon1, epsilon2, activation = numbers
    assert x is not None and weight1 is not None and bias1 is not None and kernel is not None  # noqa: PT018
    assert weight2 is not None and bias2 is not None  # noqa: PT018  narrows the types, four at a time
    y, size = plain(x, weight1, bias1, epsilon=epsilon1, activation=activation), kernel.shape[-1]
    after = [(o - 1) * stride + size - n - b for o, n, b in zip(out_size, x.shape[2:], before, strict=True)]
    y = F.pad(y, (before[1], after[1], before[0], after[0]))
    y = F.conv2d(y, kernel, stride=stride, groups=x.shape[1])
    if layers[0] is None:
        return plain(y, weight2, bias2, epsilon=epsilon2, activation=activation)
    return plain_excite(y, weight2, bias2, *layers, epsilon=epsilon2, activation=activation)  # type: ignore[arg-type]  # all or none


def _window(x: Tensor, kernel: Tensor, numbers: Numbers) -> tuple[tuple[int, ...], Tensor, slice]:
    """What the compiled library calls a window, with the kernel's used taps, and which they are.

    Raises InvalidInput where the library has no code for it.
    """
    stride, before, out_size = numbers[:3]
    size = kernel.shape[-1]
    wanted = (x.shape[1], 1, size, size)
    if kernel.dtype != x.dtype or tuple(kernel.shape) != wanted or size not in KERNEL_SIZES:
        raise InvalidInput(
            f"mbconv_middle: kernel must be {x.dtype} of the shape (channels, 1, k, k), k 3, 5 or 7, "
            f"got {kernel.dtype} of {tuple(kernel.shape)} for {x.shape[1]} channels"
        )
    if stride not in STRIDES:
        raise InvalidInput(f"mbconv_middle: stride must be 1 or 2, got {stride!r}")
    if not all(0 <= zeros < size for zeros in before):
        raise InvalidInput(f"mbconv_middle: before must be from 0 to {size - 1}, got {tuple(before)}")
    taps = used_taps(size, stride, before, x.shape[2:], out_size)
    number, before = taps.stop - taps.start, [first - taps.start for first in before]
    return (*x.shape, *out_size, number, stride, *before), kernel[:, :, taps, taps].contiguous(), taps


def _forward(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    kernel: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    reduce_weight: Tensor | None,
    reduce_bias: Tensor | None,
    excite_weight: Tensor | None,
    excite_bias: Tensor | None,
    *numbers: Any,
) -> tuple[Tensor, ...]:
    _, _, out_size, epsilon1, epsilon2, activation = numbers
    check_images(x)
    x = x.contiguous(memory_format=torch.channels_last)
    window, used, _ = _window(x, kernel, numbers)
    first = statistics(x, weight1, bias1, epsilon1, activation)
    shape = (*x.shape[:2], *out_size)
    inner, out = (torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last) for _ in range(2))
    check_norm(inner, weight2, bias2, activation)
    second = make_norm(weight2, bias2, x.new_empty(x.shape[1]), x.new_empty(x.shape[1]), epsilon2, activation)
    call("middle_forward", x, window, first.passed(), x, used, inner, second.mean, second.variance)
    sizes = rows(inner, by_image=True)
    pooled, gate = x.new_empty(0), x.new_empty(0)
    if reduce_weight is not None and reduce_bias is not None and excite_weight is not None and excite_bias is not None:
        pooled = x.new_empty(x.shape[:2])
        call("norm_act_pool", x, sizes, second.passed(), inner, pooled)
        gate = gates(pooled, (reduce_weight, reduce_bias, excite_weight, excite_bias), activation).contiguous()
    call("norm_act_apply", x, sizes, second.passed(), inner, gate if gate.numel() else None, out)
    return out, first.mean, first.variance, inner, second.mean, second.variance, pooled, gate


def _backward(
    grad: Tensor,
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    kernel: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    reduce_weight: Tensor | None,
    reduce_bias: Tensor | None,
    excite_weight: Tensor | None,
    excite_bias: Tensor | None,
    mean1: Tensor,
    variance1: Tensor,
    inner: Tensor,
    mean2: Tensor,
    variance2: Tensor,
    pooled: Tensor,
    gate: Tensor,
    *numbers: Any,
) -> tuple[Tensor, ...]:
    *_, epsilon1, epsilon2, activation = numbers
    x, grad, inner = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad, inner))
    first = make_norm(weight1, bias1, mean1, variance1, epsilon1, activation)
    second = make_norm(weight2, bias2, mean2, variance2, epsilon2, activation)
    gated: tuple[Tensor | None, ...] = (None, None, None)
    of_layers = tuple(x.new_empty(0) for _ in range(4))
    if reduce_weight is not None and reduce_bias is not None and excite_weight is not None:
        sizes, sums = rows(inner, by_image=True), x.new_empty((5, *x.shape[:2]))
        call("norm_act_gated_sums", x, sizes, second.passed(), inner, grad, sums)
        layers = (reduce_weight, reduce_bias, excite_weight)
        at_pooled, of_layers = gates_backward(sums[0], gate, pooled, layers, activation)
        gated = (gate.contiguous(), (at_pooled / sizes[1]).contiguous(), sums)
    window, used, taps = _window(x, kernel, numbers)
    found = tuple(torch.empty_like(tensor) for tensor in (x, used, weight1, bias1, weight2, bias2))
    call("middle_backward", x, window, first.passed(), second.passed(), x, inner, grad, *gated, used, *found)
    out, for_used, for_weight1, for_bias1, for_weight2, for_bias2 = found
    for_kernel = for_used
    if used.shape != kernel.shape:
        for_kernel = kernel.new_zeros(kernel.shape)
        for_kernel[:, :, taps, taps] = for_used
    return out, for_weight1, for_bias1, for_kernel, for_weight2, for_bias2, *of_layers


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.numbers = inputs[10:]
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:10], *output[1:])


def _gradients(ctx: Any, grad: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    saved, nothing = ctx.saved_tensors, (None,) * 6
    inputs = saved[:10]
    if torch.is_grad_enabled():
        given = [number for number, tensor in enumerate(inputs) if tensor is not None]

        def call_plain(*tensors: Tensor) -> Tensor:
            found = dict(zip(given, tensors, strict=True))
            return plain_middle([found.get(number) for number in range(10)], ctx.numbers)

        needed = tuple(ctx.needs_input_grad[number] for number in given)
        wanted = gradients_by_torch(call_plain, tuple(inputs[number] for number in given), needed, grad)
        by_number = dict(zip(given, wanted, strict=True))
        return *(by_number.get(number) for number in range(10)), *nothing
    found = mbconv_middle_backward(grad, *saved, *ctx.numbers)
    return *(one if tensor is not None else None for one, tensor in zip(found, inputs, strict=True)), *nothing


_OPERATORS.impl("mbconv_middle", _forward, "CPU")
_OPERATORS.impl("mbconv_middle_backward", _backward, "CPU")


def _forward_fake(x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    weight1, weight2, reduce_weight, out_size = others[0], others[3], others[5], others[11]
    shape = (*x.shape[:2], *out_size)
    out, inner = (torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last) for _ in "12")
    pooled = x.new_empty(x.shape[:2] if reduce_weight is not None else (0,))
    of_first, of_second = [torch.empty_like(weight1) for _ in "12"], [torch.empty_like(weight2) for _ in "12"]
    return out, *of_first, inner, *of_second, pooled, torch.empty_like(pooled)


def _backward_fake(grad: Tensor, x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    of_norms = [torch.empty_like(tensor) for tensor in others[:5]]
    return out, *of_norms, *(x.new_empty(0 if tensor is None else tensor.shape) for tensor in others[5:9])


torch.library.register_fake("trifold::mbconv_middle", _forward_fake, lib=_OPERATORS)
torch.library.register_fake("trifold::mbconv_middle_backward", _backward_fake, lib=_OPERATORS)
register_gradient(_OPERATORS, "mbconv_middle", _gradients, _save)
torch.library.register_autocast("trifold::mbconv_middle", "cpu", torch.float32, lib=_OPERATORS)
