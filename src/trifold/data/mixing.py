"""Mixup and CutMix of a batch with the mirror image of its order; the randomness comes in as numbers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.special import betaincinv
from torch import Tensor

from trifold.errors import InvalidInput

MIX_DRAWS = 4
"""Uniform numbers that one image uses in `mix`: its share, a place across, a place down, which (the first image's)."""


def mix(
    images: Float[Tensor, "batch channels height width"],
    targets: Float[Tensor, "batch classes"],
    draws: Float[Tensor, "batch 4"],
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, "batch classes"]]:
    """Images and targets, each mixed by a share of its own with its partner: the last with the first, and so on.

    targets: probabilities; rows still sum to 1. draws: numbers in [0, 1). mixup, cutmix: alpha of the share's
    distribution Beta(alpha, alpha); 0: off. Where both are given, the first image's fourth draw takes one for the whole
    batch, either with probability 1/2.

    Raises InvalidInput if an alpha is below 0.
    """
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if not alpha >= 0:
            raise InvalidInput(f"{name} must be 0 or more, got {alpha!r}")
    if not len(images) or not (mixup or cutmix):
        return images, targets
    if mixup and (not cutmix or float(draws[0, 3]) < 0.5):
        images, kept = _mixup(images, beta_share(draws[:, 0], mixup))
    else:
        images, kept = _cutmix(images, beta_share(draws[:, 0], cutmix), draws[:, 1:3])
    share = kept[:, None].to(targets.dtype)
    return images, targets * share + targets.flip(0) * (1 - share)


def beta_share(draws: Float[Tensor, " batch"], alpha: float) -> Float[Tensor, " batch"]:
    """What Beta(alpha, alpha) has these uniform draws below it: its inverse distribution function."""
    return torch.from_numpy(betaincinv(alpha, alpha, draws.double().cpu().numpy())).to(draws)


def _mixup(
    images: Float[Tensor, "batch channels height width"], share: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
    """Weighted means of images and partners, and the own weight, at least 1/2 (arXiv:1710.09412; tpu efficientnet)."""
    kept = torch.maximum(share, 1 - share)
    weight = kept[:, None, None, None].to(images.dtype)
    return torch.lerp(images.flip(0), images, weight), kept


def _cutmix(
    images: Float[Tensor, "batch channels height width"],
    share: Float[Tensor, " batch"],
    centres: Float[Tensor, "batch 2"],
) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
    """Images with a box of the partner's pixels, and the share of pixels they keep (arXiv:1905.04899, algorithm 1).

    share: of the area, kept; a box that sticks out is cut off, so that more may be kept.
    """
    inside = []
    for axis, centre in ((3, centres[:, 0]), (2, centres[:, 1])):
        side = images.shape[axis]
        half = (side * torch.sqrt(1 - share)).floor().div(2, rounding_mode="floor")[:, None]
        position = torch.arange(side, device=images.device) - (centre * side).floor()[:, None]
        inside.append((position >= -half) & (position < half))
    across, down = inside
    taken = across.sum(1) * down.sum(1)
    box = (down[:, :, None] & across[:, None, :])[:, None]
    return torch.where(box, images.flip(0), images), 1 - taken.to(share.dtype) / (images.shape[2] * images.shape[3])
