"""The learning rate as a function of progress, so that changing the length of a run changes nothing else."""

from __future__ import annotations

import math

from trifold.train.recipe import Recipe


def learning_rate(recipe: Recipe, step: int, *, steps_per_epoch: float) -> float:
    """The rate of a step, counted from 0.

    steps_per_epoch: may be a fraction, as in the paper's code, which counts images over batch size.
    """
    if recipe.schedule == "exponential":
        return recipe.highest_lr * warmup_exponential(
            step, int(recipe.warmup_epochs * steps_per_epoch), recipe.decay_epochs * steps_per_epoch, recipe.decay_rate
        )
    # Half a step in, so that neither the first nor the last step has rate 0.
    progress = min((step + 0.5) / (steps_per_epoch * recipe.epochs), 1.0)
    warmup = min(1.0, recipe.warmup_epochs / recipe.epochs)
    if recipe.schedule == "constant":
        return recipe.highest_lr * min(1.0, progress / warmup if warmup else 1.0)
    return recipe.highest_lr * warmup_cosine(progress, warmup)


def warmup_cosine(progress: float, warmup: float) -> float:
    """The share of the highest rate in [0, 1]: a line up to 1 at `warmup`, then half a cosine down to 0 at 1.

    progress: share of the run's steps that are done, in [0, 1). warmup: share of the run, in [0, 1].
    """
    if progress < warmup:
        return progress / warmup
    if warmup >= 1:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def warmup_exponential(step: int, warmup_steps: int, decay_steps: float, decay_rate: float) -> float:
    """The share of the highest rate: a line from 0 over the warm-up, then a stair counted from step 0.

    So the rate falls at the end of the warm-up by the decays that fell into it (tensorflow/tpu utils.py).
    """
    if step < warmup_steps:
        return step / warmup_steps
    return float(decay_rate ** math.floor(step / decay_steps))


def ema_decay(highest: float, step: int) -> float:
    """The share of the old average after a step, counted from 0: min(highest, (1 + step) / (10 + step)).

    (TensorFlow's ExponentialMovingAverage with num_updates, as the paper's code calls it.)
    """
    return min(highest, (1 + step) / (10 + step))
