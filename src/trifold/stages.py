"""An architecture as the paper's Table 1 with the cost of each row: stem, stages, head, classifier."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

from trifold.architecture import Architecture, Block
from trifold.cost import blocks_cost


class StageRow(NamedTuple):
    """One row; resolution: of its input, in pixels; channels: of its output."""

    stage: int
    operator: str
    resolution: int
    channels: int
    layers: int
    stride: int
    parameters: int
    multiply_adds: int
    activations: int


def stage_rows(architecture: Architecture, *, num_classes: int = 1000, in_channels: int = 3) -> tuple[StageRow, ...]:
    """The rows from stem to classifier; a stem's pooling, the head and the classifier have rows of their own."""
    rows = []
    blocks = architecture.blocks(num_classes=num_classes, in_channels=in_channels)
    for number, (_, group) in enumerate(groupby(blocks, key=lambda b: (b.stage, _kind(b.operator))), start=1):
        members = list(group)
        first, last, spent = members[0], members[-1], blocks_cost(members)
        rows.append(
            StageRow(
                stage=number,
                operator=operator_name(architecture, first),
                resolution=first.in_size,
                channels=last.out_channels,
                layers=len(members),
                stride=first.stride,
                parameters=spent.parameters,
                multiply_adds=spent.multiply_adds,
                activations=spent.activations,
            )
        )
    return tuple(rows)


def _kind(operator: str) -> str:
    """Stem convolution and pooling, head convolution and classifier are rows of their own."""
    return operator if operator in ("max_pool", "linear") else "blocks"


def operator_name(architecture: Architecture, block: Block) -> str:
    """The operator as the paper writes it: MBConv6, k3x3."""
    kernel = f"k{block.kernel_size}x{block.kernel_size}"
    if block.operator == "linear":
        return "pooling & FC"
    if block.operator in ("mbconv", "fused_mbconv"):
        ratio = architecture.stages[block.stage - 1].expand_ratio
        name = f"{'MBConv' if block.operator == 'mbconv' else 'Fused-MBConv'}{ratio:g}"
    else:
        name = block.operator.replace("_", "-")
    return f"{name}, {kernel}" + (", SE" if block.squeeze_channels else "")
