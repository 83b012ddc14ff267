"""The learning rate as a function of progress, so that changing the length of a run changes nothing else."""

from __future__ import annotations

import math


def warmup_cosine(progress: float, warmup: float) -> float:
    """The share of the highest rate in [0, 1]: a line up to 1 at `warmup`, then half a cosine down to 0 at 1.

    progress: share of the run's steps that are done, in [0, 1). warmup: share of the run, in [0, 1].
    """
    if progress < warmup:
        return progress / warmup
    if warmup >= 1:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
