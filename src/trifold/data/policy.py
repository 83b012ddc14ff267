"""AutoAugment's policy "v0" and RandAugment on batches of bytes; the randomness comes in as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from trifold.data.operators import AUTO_CONSTANTS, OPERATORS, RAND_CONSTANTS, numbers

SubPolicy: TypeAlias = tuple[tuple[str, float, float], tuple[str, float, float]]

AUTO_POLICY: tuple[SubPolicy, ...] = (
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)
"""Rows of two (operator, probability, level of 10), of which an image takes one (tpu efficientnet autoaugment.py)."""

AUTO_DRAWS = 7
"""Uniform numbers that one image uses in `auto_augment`: sub-policy; for either operator whether, sign, a place."""


def rand_draws(num_ops: int) -> int:
    """How many uniform numbers one image uses in `rand_augment`: for each operator which one, sign, a place."""
    return 3 * num_ops


def auto_augment(
    pixels: UInt8[Tensor, "batch channels height width"], draws: Float[Tensor, "batch 7"]
) -> UInt8[Tensor, "batch channels height width"]:
    """Each image after one of AutoAugment's 25 sub-policies, drawn with equal chance.

    pixels: of 1 or 3 channels; in grey images Color changes nothing. draws: AUTO_DRAWS numbers in [0, 1) an image,
    which alone decide what happens to it. Distances grow with the side: see `operators.CONSTANTS_SIDE`.
    """
    chosen = _choose(draws[:, 0], len(AUTO_POLICY))
    for place in range(2):
        steps = [sub_policy[place] for sub_policy in AUTO_POLICY]
        whether, others = draws[:, 1 + 3 * place], draws[:, 2 + 3 * place : 4 + 3 * place]
        applied = whether < torch.tensor([probability for _, probability, _ in steps], device=draws.device)[chosen]
        rows = torch.where(applied, chosen, -1)
        named = [(name, OPERATORS[name].argument(level, AUTO_CONSTANTS)) for name, _, level in steps]
        pixels = _apply(pixels, rows, named, others)
    return pixels


def rand_augment(
    pixels: UInt8[Tensor, "batch channels height width"],
    draws: Float[Tensor, "batch draws"],
    *,
    num_ops: int,
    magnitude: int | float,
) -> UInt8[Tensor, "batch channels height width"]:
    """Each image after num_ops operators of its own, one after another, each drawn from all 16 with equal chance.

    pixels: of 1 or 3 channels; in grey images Color changes nothing. draws: rand_draws(num_ops) numbers in [0, 1) an
    image, which alone decide what happens to it. magnitude: the level of every operator, 0 to 10 (arXiv:1909.13719).
    """
    named = [(name, operator.argument(magnitude, RAND_CONSTANTS)) for name, operator in OPERATORS.items()]
    for step in range(num_ops):
        rows = _choose(draws[:, 3 * step], len(named))
        pixels = _apply(pixels, rows, named, draws[:, 3 * step + 1 : 3 * step + 3])
    return pixels


def _choose(draws: Float[Tensor, " batch"], count: int) -> Int[Tensor, " batch"]:
    """Whole numbers under count; the largest draw below 1, times count, may round up to it."""
    return (draws * count).long().clamp(max=count - 1)


def _apply(
    pixels: UInt8[Tensor, "batch channels height width"],
    rows: Int[Tensor, " batch"],
    named: Sequence[tuple[str, float]],
    draws: Float[Tensor, "batch 2"],
) -> UInt8[Tensor, "batch channels height width"]:
    """Each image after the (operator, argument) in its row of named (-1: none); images of one kernel go together."""
    height, width = pixels.shape[2:]
    operators = [OPERATORS[name] for name, _ in named]
    six = [
        numbers(operator, argument, height=height, width=width)
        for operator, (_, argument) in zip(operators, named, strict=True)
    ]
    flipped = (draws[:, 0] < 0.5).long()
    values = torch.tensor(six, device=draws.device)[rows, flipped]
    kernels = list(dict.fromkeys(operator.kernel for operator in operators))
    kernel_of = torch.tensor([kernels.index(operator.kernel) for operator in operators], device=draws.device)[rows]
    # Sorted by kernel, so that each takes a slice; -1 comes first and is left alone.
    order = torch.argsort(torch.where(rows < 0, -1, kernel_of), stable=True)
    counts = torch.bincount(torch.where(rows < 0, 0, kernel_of + 1), minlength=len(kernels) + 1).tolist()
    parts = zip(*(entry.index_select(0, order).split(counts) for entry in (pixels, values, draws)), strict=True)
    done = [
        kernel(*part) if kernel is not None and len(part[0]) else part[0]
        for kernel, part in zip((None, *kernels), parts, strict=True)
    ]
    return torch.cat(done).index_select(0, torch.argsort(order))
