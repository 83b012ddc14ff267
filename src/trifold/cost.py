"""What a described network costs, counted on the description: parameters, multiply-adds, activations, file size.

Counting needs no torch. A block is first spelled out as its convolutions (`convolutions`), then those are summed:
the tests compare every sum with the parameters and the work that the built network is seen to have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from trifold.architecture import Architecture, Block


class Convolution(NamedTuple):
    """One convolution or matrix product of a block.

    role: "expand", "depthwise", "spatial", "reduce", "excite", "project", "shortcut" or "linear".
    size: output height (= width); 1 for squeeze-excite and the classifier.
    bias: it has a bias and no batch norm; otherwise a batch norm and no bias.
    """

    role: str
    in_channels: int
    out_channels: int
    kernel_size: int
    groups: int
    size: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Elements of the kernel."""
        return self.out_channels * (self.in_channels // self.groups) * self.kernel_size**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Counts of one block or one network, for one image.

    parameters: trainable values.
    statistics: batch-norm running means and variances (stored, not trained).
    multiply_adds: of convolutions, squeeze-excite and classifier; biases, batch norm and activations are not
    counted (the paper's "FLOPS").
    activations: output elements of the same layers (pycls' definition).
    tensors: tensors in a saved file.
    """

    parameters: int
    statistics: int
    multiply_adds: int
    activations: int
    tensors: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of all saved values in float32."""
        return 4 * (self.parameters + self.statistics)

    @property
    def file_bytes(self) -> int:
        """Upper bound of the float32 weight file that `weights.save` writes, header included.

        It leaves 24 KiB for metadata such as class names; a thousand long names can take more.
        """
        return self.weight_bytes + 160 * self.tensors + 32_768


def _squeeze(block: Block, channels: int) -> tuple[Convolution, ...]:
    """Squeeze-excite over `channels`: reduce to the squeeze width, expand again; both with biases."""
    if not block.squeeze_channels:
        return ()
    return (
        Convolution("reduce", channels, block.squeeze_channels, 1, 1, 1, True),
        Convolution("excite", block.squeeze_channels, channels, 1, 1, 1, True),
    )


def _mbconv(block: Block) -> tuple[Convolution, ...]:
    mid = block.mid_channels
    body = (
        Convolution("depthwise", mid, mid, block.kernel_size, mid, block.out_size),
        *_squeeze(block, mid),
        Convolution("project", mid, block.out_channels, 1, 1, block.out_size),
    )
    if mid == block.in_channels:
        return body
    return (Convolution("expand", block.in_channels, mid, 1, 1, block.in_size), *body)


def _fused_mbconv(block: Block) -> tuple[Convolution, ...]:
    mid, size = block.mid_channels, block.out_size
    if mid == block.in_channels:
        return _conv(block)
    return (
        Convolution("expand", block.in_channels, mid, block.kernel_size, 1, size),
        *_squeeze(block, mid),
        Convolution("project", mid, block.out_channels, 1, 1, size),
    )


def _bottleneck(block: Block) -> tuple[Convolution, ...]:
    mid = block.mid_channels
    return (
        Convolution("expand", block.in_channels, mid, 1, 1, block.in_size),
        Convolution("spatial", mid, mid, block.kernel_size, 1, block.out_size),
        Convolution("project", mid, block.out_channels, 1, 1, block.out_size),
        *_squeeze(block, block.out_channels),
        *_shortcut(block),
    )


def _basic(block: Block) -> tuple[Convolution, ...]:
    out, size = block.out_channels, block.out_size
    return (
        Convolution("spatial", block.in_channels, out, block.kernel_size, 1, size),
        Convolution("spatial", out, out, block.kernel_size, 1, size),
        *_squeeze(block, out),
        *_shortcut(block),
    )


def _shortcut(block: Block) -> tuple[Convolution, ...]:
    if block.shortcut != "projection":
        return ()
    return (Convolution("shortcut", block.in_channels, block.out_channels, 1, 1, block.out_size),)


def _conv(block: Block) -> tuple[Convolution, ...]:
    return (
        Convolution("spatial", block.in_channels, block.out_channels, block.kernel_size, 1, block.out_size),
        *_squeeze(block, block.out_channels),
    )


def _linear(block: Block) -> tuple[Convolution, ...]:
    return (Convolution("linear", block.in_channels, block.out_channels, 1, 1, 1, True),)


def _nothing(block: Block) -> tuple[Convolution, ...]:
    return ()


_OPERATORS: dict[str, Callable[[Block], tuple[Convolution, ...]]] = {
    "mbconv": _mbconv,
    "fused_mbconv": _fused_mbconv,
    "separable": _mbconv,
    "bottleneck": _bottleneck,
    "basic": _basic,
    "conv": _conv,
    "linear": _linear,
    "max_pool": _nothing,
}


def convolutions(block: Block) -> tuple[Convolution, ...]:
    """The block's convolutions in the order in which they run; a projected shortcut stands last."""
    return _OPERATORS[block.operator](block)


def _count(block: Block, times: int) -> tuple[int, int, int, int, int]:
    """The fields of Cost, in order, of `times` equal blocks."""
    parameters = statistics = multiply_adds = activations = tensors = 0
    for _, inputs, outputs, kernel, groups, size, bias in convolutions(block):
        weights = outputs * (inputs // groups) * kernel * kernel
        pixels = size * size
        multiply_adds += weights * pixels
        activations += outputs * pixels
        if bias:
            parameters += weights + outputs
            tensors += 2
        else:
            parameters += weights + 2 * outputs
            statistics += 2 * outputs
            tensors += 5
    return parameters * times, statistics * times, multiply_adds * times, activations * times, tensors * times


def _total(counts: list[tuple[int, int, int, int, int]]) -> Cost:
    parameters, statistics, multiply_adds, activations, tensors = map(sum, zip(*counts, strict=True))
    return Cost(
        parameters=parameters,
        statistics=statistics,
        multiply_adds=multiply_adds,
        activations=activations,
        tensors=tensors,
    )


def blocks_cost(blocks: Iterable[Block]) -> Cost:
    """The cost of some blocks together: one, a stage, or all that `Architecture.blocks()` gives."""
    counts, last, times = [(0, 0, 0, 0, 0)], None, 0
    for block in blocks:
        if block is not last:
            if last is not None:
                counts.append(_count(last, times))
            last, times = block, 0
        times += 1
    if last is not None:
        counts.append(_count(last, times))
    return _total(counts)


def cost(architecture: Architecture, *, num_classes: int = 1000, in_channels: int = 3) -> Cost:
    """The cost of the whole network for one image at the architecture's resolution.

    Raises InvalidArchitecture if num_classes or in_channels is out of range.
    """
    return blocks_cost(architecture.blocks(num_classes=num_classes, in_channels=in_channels))
