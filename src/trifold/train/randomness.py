"""Random streams as functions of (seed, purpose, epoch, step): nothing depends on what was drawn before."""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, purpose: str, *position: int) -> int:
    """A seed in [0, 2^63) of its own for every (seed, purpose, position)."""
    text = "/".join([str(seed), purpose, *map(str, position)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def generator(seed: int, purpose: str, *position: int) -> torch.Generator:
    """A CPU generator at the start of that stream."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose, *position))
