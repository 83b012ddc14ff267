"""Time of torch's own to that of each compiled kernel, for every shape of a network, as a Markdown table.

    .venv/bin/python benchmarks/kernels.py [NETWORK] [--sizes 32x128,64x64,224x16] [--threads 1,2]

Channels-last float32, freed memory kept as in a training. The two take turns within a round; medians of rounds. One
thread: CPU time of the process; more: wall-clock. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from trifold import kernels
from trifold.architecture import Block
from trifold.baselines import find
from trifold.kernels.excite import norm_act_excite, plain_excite
from trifold.kernels.mbconv import mbconv_middle, plain_middle
from trifold.kernels.norm_act import norm_act, plain
from trifold.train.machine import keep_freed_memory

ROUNDS, LEAST_SECONDS = 5, 0.02

Pair = tuple[Callable[[], object], Callable[[], object]]


def images(batch: int, channels: int, size: int) -> Tensor:
    return torch.randn(batch, channels, size, size).contiguous(memory_format=torch.channels_last)


def depthwise_pairs(batch: int, block: Block) -> dict[str, Pair]:
    """Torch's call and ours, of the depthwise convolution of a block and of its two gradients."""
    kernel_size, stride, margin = block.kernel_size, block.stride, block.kernel_size // 2
    x, grad = (images(batch, block.mid_channels, size) for size in (block.in_size, block.out_size))
    weight = torch.randn(block.mid_channels, 1, kernel_size, kernel_size)

    def backward(mask: list[bool]) -> object:
        both = ([stride] * 2, [margin] * 2, [1, 1])
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, *both, False, [0, 0], block.mid_channels, mask
        )

    before, sizes = [margin] * 2, ([block.in_size] * 2, [block.out_size] * 2)
    return {
        "forward": (
            lambda: F.conv2d(x, weight, None, stride, margin, 1, block.mid_channels),
            lambda: kernels.depthwise(x, weight, stride, before, sizes[1]),
        ),
        "input gradient": (
            lambda: backward([True, False, False]),
            lambda: kernels.depthwise_input_grad(grad, weight, stride, before, sizes[0]),
        ),
        "weight gradient": (
            lambda: backward([False, True, False]),
            lambda: kernels.depthwise_weight_grad(x, grad, kernel_size, stride, before),
        ),
    }


def both_passes(call: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor) -> Callable[[], object]:
    """Forward and backward in one."""
    return lambda: torch.autograd.grad(call(*inputs), inputs, grad)


def norm_pairs(batch: int, block: Block) -> dict[str, Pair]:
    """Batch norm alone and with an activation, and with squeeze-excite where the block has it, both passes."""
    channels, squeezed = block.mid_channels, block.squeeze_channels
    grad = images(batch, channels, block.out_size)
    given = (images(batch, channels, block.out_size), torch.ones(channels), torch.zeros(channels))
    inputs = [tensor.requires_grad_() for tensor in given]
    found = {}
    for name, activation in (("norm", "none"), ("norm, ReLU", "relu"), ("norm, SiLU", "silu")):
        calls = (partial(plain, epsilon=1e-3, activation=activation), partial(normed, activation=activation))
        found[name] = tuple(both_passes(call, inputs, grad) for call in calls)
    if squeezed:
        shapes = ((squeezed, channels), (squeezed,), (channels, squeezed), (channels,))
        layers = [torch.randn(shape).requires_grad_() for shape in shapes]
        both = (partial(plain_excite, epsilon=1e-3, activation="silu"), excited)
        found["norm, SiLU, excite"] = tuple(both_passes(call, inputs + layers, grad) for call in both)
    return found


def normed(*inputs: Tensor, activation: str) -> Tensor:
    """The first output of the kernel."""
    return norm_act(*inputs, 1e-3, activation)[0]


def excited(*inputs: Tensor) -> Tensor:
    """The first output of the kernel with squeeze-excite."""
    return norm_act_excite(*inputs, 1e-3, "silu")[0]


def middle_pairs(batch: int, block: Block) -> dict[str, Pair]:
    """The whole middle of a block that expands, both passes."""
    if block.mid_channels == block.in_channels:
        return {}
    channels, squeezed, size = block.mid_channels, block.squeeze_channels, block.kernel_size
    shapes = [(channels,), (channels,), (channels, 1, size, size), (channels,), (channels,)]
    if squeezed:
        shapes += [(squeezed, channels), (squeezed,), (channels, squeezed), (channels,)]
    given = [images(batch, channels, block.in_size), *(torch.randn(shape) for shape in shapes)]
    inputs = [tensor.requires_grad_() for tensor in given]
    grad, missing = images(batch, channels, block.out_size), [None] * (10 - len(inputs))
    numbers = (block.stride, [size // 2] * 2, [block.out_size] * 2, 1e-3, 1e-3, "silu")
    ours = lambda *of: mbconv_middle(*of, *missing, *numbers)[0]  # noqa: E731  two of a kind
    theirs = lambda *of: plain_middle([*of, *missing], numbers)  # noqa: E731
    return {"middle": (both_passes(theirs, inputs, grad), both_passes(ours, inputs, grad))}


def pairs(batch: int, block: Block) -> dict[str, Pair]:
    """Everything compared of a block."""
    if block.operator not in ("mbconv", "separable"):
        return norm_pairs(batch, block)
    return depthwise_pairs(batch, block) | norm_pairs(batch, block) | middle_pairs(batch, block)


def seconds(call: Callable[[], object], clock: Callable[[], float], times: int) -> float:
    start = clock()
    for _ in range(times):
        call()
    return (clock() - start) / times


def measure(pair: Pair, clock: Callable[[], float]) -> tuple[float, float]:
    """Median seconds of torch's call and of ours."""
    times = [max(1, round(LEAST_SECONDS / max(min(seconds(call, clock, 1) for _ in range(2)), 1e-6))) for call in pair]
    rounds = [[seconds(call, clock, count) for call, count in zip(pair, times, strict=True)] for _ in range(ROUNDS)]
    theirs, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    return theirs, ours


OPERATORS = ("mbconv", "separable", "bottleneck", "basic")
DEPTHWISE = ("forward", "input gradient", "weight gradient")
COLUMNS = (*DEPTHWISE, "all three", "norm", "norm, ReLU", "norm, SiLU", "norm, SiLU, excite", "middle")


def ratios(found: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Torch's time to the kernel's, of everything compared and of the depthwise convolution with its gradients."""
    together = {}
    if "forward" in found:
        theirs, ours = (sum(found[name][number] for name in DEPTHWISE) for number in (0, 1))
        together = {"all three": theirs / ours}
    return {name: one / other for name, (one, other) in found.items()} | together


def row(batch: int, block: Block, threads: int) -> str:
    """The table's line of a block."""
    clock = time.process_time if threads == 1 else time.perf_counter
    found = ratios({what: measure(pair, clock) for what, pair in pairs(batch, block).items()})
    cells = [f"{found[name]:.2f}" if name in found else "" for name in COLUMNS]
    window = f"{block.kernel_size}x{block.kernel_size}, {block.stride}"
    return f"| {block.in_size} | {block.mid_channels} | {window} | {batch} | {threads} | {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Times of each kernel beside torch's own, as Markdown.")
    parser.add_argument("network", nargs="?", default="efficientnet_b0")
    parser.add_argument("--sizes", default="32x128,64x64,224x16")
    parser.add_argument("--threads", default="1,2")
    chosen = parser.parse_args()
    keep_freed_memory()
    print(f"| map | channels | window, stride | batch | threads | {' | '.join(COLUMNS)} |")
    print(f"|---:|---:|---|---:|---:|{'---:|' * len(COLUMNS)}")
    for threads in map(int, chosen.threads.split(",")):
        torch.set_num_threads(threads)
        for size, batch in (map(int, text.split("x")) for text in chosen.sizes.split(",")):
            blocks = replace(find(chosen.network), resolution=size).blocks()
            seen = set()
            for block in (
                block for block in blocks if block.operator in ("mbconv", "separable", "bottleneck", "basic")
            ):
                shape = (block.in_size, block.out_size, block.mid_channels, block.kernel_size, block.stride)
                if shape not in seen:
                    seen.add(shape)
                    print(row(batch, block, threads), flush=True)


if __name__ == "__main__":
    main()
