"""Where a compiled kernel takes the place of torch's own: only where it was measured to be faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import SymInt, Tensor, nn

from trifold.kernels.depthwise import KERNEL_SIZES, STRIDES, depthwise
from trifold.kernels.excite import norm_act_excite
from trifold.kernels.library import instruction_set
from trifold.kernels.mbconv import mbconv_middle
from trifold.kernels.norm_act import norm_act

_NAMES: dict[type[nn.Module], str] = {
    nn.Identity: "none",
    nn.SiLU: "silu",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardswish: "hard_swish",
}


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch gives it no annotations
def _on() -> bool:
    return instruction_set() != "off"


def hooked(*modules: nn.Module) -> bool:
    """Whether somebody wants to be told of one of these modules' calls, so that it has to be called."""
    return any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in modules
    )


def _usable(x: Tensor) -> bool:
    """Whether these images are what the kernels are for: training in float32, channels-last, on a CPU.

    What is exported or traced is to hold torch's own operators, and so is what is evaluated: there torch is fast.
    """
    return (
        not torch.compiler.is_exporting()  # first: an exported graph's sizes are symbols, not to be compared
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.is_grad_enabled()
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and _on()
    )


MATRIX_ROWS, MATRIX_CHANNELS = 2048, 40
"""A 1x1 convolution over at most so many pixels, from and to so many channels or more, is computed as a matrix product:
it takes as long or down to 0.36 of the time, and longer where it is larger (docs/kernels.md)."""


def convolve(x: Tensor, conv: nn.Conv2d, pad: nn.Module, before: Sequence[int | SymInt]) -> Tensor:
    """conv(pad(x)), with a compiled kernel where conv is depthwise, as a matrix product where it is small and 1x1.

    before: how many zeros pad and conv put above and to the left, in pixels; a side of n becomes ceil(n / stride).
    """
    if _is_matrix_product(x, conv):
        return F.linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1)).permute(0, 3, 1, 2)
    if not _replaces_convolution(x, conv) or (isinstance(pad, nn.Identity) and _torch_convolves_faster(x, conv)):
        out: Tensor = conv(pad(x))
        return out
    stride = conv.stride[0]
    size = [(side - 1) // stride + 1 for side in x.shape[2:]]
    return depthwise(x, conv.weight, stride, before, size)  # type: ignore[no-any-return]  # an operator has no types


def _is_matrix_product(x: Tensor, conv: nn.Conv2d) -> bool:
    return (
        conv.groups == 1
        and conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.bias is None
        and min(conv.in_channels, conv.out_channels) >= MATRIX_CHANNELS
        and not hooked(conv)
        and not torch.compiler.is_compiling()
        and _usable(x)
        and x.numel() <= MATRIX_ROWS * x.shape[1]
    )


def _replaces_convolution(x: Tensor, conv: nn.Conv2d) -> bool:
    return (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.kernel_size[0] in KERNEL_SIZES
        and conv.stride[0] in STRIDES
        and not hooked(conv)
        and _usable(x)
    )


SMALL_SIDE, SMALL_CHANNELS = 16, 16
"""A 3x3 depthwise convolution of stride 2, or over a side or with channels less than these, is left to torch, but for
maps smaller than the window: there its weights' gradient takes 15 to 190 times as long (docs/kernels-by-shape.md)."""


def _torch_convolves_faster(x: Tensor, conv: nn.Conv2d) -> bool:
    """Of a depthwise convolution, with both gradients, where torch needs no padded copy."""
    side = min(x.shape[2:])
    small = side < SMALL_SIDE or x.shape[1] < SMALL_CHANNELS
    return conv.kernel_size[0] == 3 and side >= 3 and (conv.stride[0] == 2 or small)


NORM_VALUES, NORM_CHANNELS = 2**17, 8
"""Batch norm and activation of fewer values or channels than these, and with squeeze-excite on maps of one pixel, are
left to torch, which is then faster; so is batch norm without an activation (docs/kernels-by-shape.md)."""


def _few(x: Tensor, channels: int = 0) -> bool:
    return x.numel() < NORM_VALUES or x.shape[1] < channels


def normalise(x: Tensor, norm: nn.Module, activation: nn.Module) -> Tensor:
    """activation(norm(x)), in one where that is batch norm by the batch's own statistics; its running ones follow."""
    if isinstance(activation, nn.Identity) or not _replaces_norm(x, norm, activation) or _few(x, NORM_CHANNELS):
        out: Tensor = activation(norm(x))
        return out
    assert isinstance(norm, nn.BatchNorm2d)
    out, mean, variance = norm_act(x, norm.weight, norm.bias, norm.eps, _NAMES[type(activation)])
    _follow(norm, mean, variance, x.numel() // x.shape[1])
    return out


@runtime_checkable
class SqueezeExcite(Protocol):
    """Pooling, `reduce`, `activation`, `excite`, sigmoid; 1x1 convolutions with biases."""

    reduce: nn.Conv2d
    activation: nn.Module
    excite: nn.Conv2d

    def __call__(self, x: Tensor) -> Tensor:
        """x with its channels weighted."""


def normalise_excite(x: Tensor, norm: nn.Module, activation: nn.Module, squeeze_excite: SqueezeExcite) -> Tensor:
    """squeeze_excite(activation(norm(x))), in one where `normalise` would be and the activations are alike."""
    replaced = _excites(squeeze_excite, type(activation)) and _replaces_norm(x, norm, activation)
    if not replaced or _few(x) or x.shape[2] * x.shape[3] == 1:
        return squeeze_excite(normalise(x, norm, activation))
    assert isinstance(norm, nn.BatchNorm2d)
    tensors = (norm.weight, norm.bias, *_layers(squeeze_excite))
    out, mean, variance, _, _ = norm_act_excite(x, *tensors, norm.eps, _NAMES[type(activation)])
    _follow(norm, mean, variance, x.numel() // x.shape[1])
    return out  # type: ignore[no-any-return]  # an operator's outputs have no types


@runtime_checkable
class ConvNorm(Protocol):
    """Padding, convolution, batch norm, activation."""

    pad: nn.Module
    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    activation: nn.Module


def middle(
    x: Tensor,
    expand: ConvNorm,
    depthwise_part: ConvNorm,
    squeeze_excite: SqueezeExcite | None,
    before: Sequence[int | SymInt],
) -> Tensor:
    """An MBConv block from its expansion's convolution's output x to its projection's input.

    before: as for `convolve`. squeeze_excite: None where there is none.
    """
    if not _replaces_middle(x, expand, depthwise_part, squeeze_excite):
        y = normalise(x, expand.norm, expand.activation)
        y = convolve(y, depthwise_part.conv, depthwise_part.pad, before)
        if squeeze_excite is None:
            return normalise(y, depthwise_part.norm, depthwise_part.activation)
        return normalise_excite(y, depthwise_part.norm, depthwise_part.activation, squeeze_excite)
    first, second, conv = expand.norm, depthwise_part.norm, depthwise_part.conv
    size = [(side - 1) // conv.stride[0] + 1 for side in x.shape[2:]]
    numbers = (conv.stride[0], before, size, first.eps, second.eps, _NAMES[type(expand.activation)])
    norms = (first.weight, first.bias, conv.weight, second.weight, second.bias)
    layers = (None,) * 4 if squeeze_excite is None else _layers(squeeze_excite)
    out, mean1, variance1, inner, mean2, variance2, _, _ = mbconv_middle(x, *norms, *layers, *numbers)
    _follow(first, mean1, variance1, x.numel() // x.shape[1])
    _follow(second, mean2, variance2, inner.numel() // x.shape[1])
    return out  # type: ignore[no-any-return]  # an operator's outputs have no types


def _replaces_middle(
    x: Tensor, expand: ConvNorm, depthwise_part: ConvNorm, squeeze_excite: SqueezeExcite | None
) -> bool:
    kind = type(expand.activation)
    return (
        type(depthwise_part.activation) is kind
        and (squeeze_excite is None or _excites(squeeze_excite, kind))
        and _replaces_norm(x, expand.norm, expand.activation)
        and _replaces_norm(x, depthwise_part.norm, depthwise_part.activation)
        and _replaces_convolution(x, depthwise_part.conv)
        and x.numel() // depthwise_part.conv.stride[0] ** 2 >= 2 * x.shape[1]  # of the output, at most
    )


def _excites(squeeze_excite: SqueezeExcite, kind: type[nn.Module]) -> bool:
    """Whether squeeze-excite can be part of a kernel whose activation is of this kind."""
    parts = (squeeze_excite, squeeze_excite.reduce, squeeze_excite.activation, squeeze_excite.excite)
    return type(squeeze_excite.activation) is kind and not hooked(*parts)  # type: ignore[arg-type]  # they are modules


def _layers(squeeze_excite: SqueezeExcite) -> tuple[Tensor, ...]:
    """The four tensors of squeeze-excite's two layers, the weights as matrices."""
    reduce, excite = squeeze_excite.reduce, squeeze_excite.excite
    assert reduce.bias is not None
    assert excite.bias is not None
    return reduce.weight.flatten(1), reduce.bias, excite.weight.flatten(1), excite.bias


@torch.no_grad()
def _follow(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Moves the running statistics towards those of a batch with so many values a channel."""
    tracked, means, variances, momentum = norm.num_batches_tracked, norm.running_mean, norm.running_var, norm.momentum
    assert tracked is not None
    assert means is not None
    assert variances is not None
    assert momentum is not None
    tracked.add_(1)
    means.lerp_(mean, momentum)
    variances.lerp_(variance * (count / (count - 1)), momentum)


def _replaces_norm(x: Tensor, norm: nn.Module, activation: nn.Module) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and type(activation) in _NAMES
        and not hooked(norm, activation)
        and not torch.compiler.is_compiling()  # the compiler fuses them itself
        and _usable(x)
        and x.numel() >= 2 * x.shape[1]
    )
