"""The learning-rate range test: the loss while the rate rises exponentially, step by step (Smith 2015, 1506.01186)."""

from __future__ import annotations

import copy
import math
from contextlib import suppress
from dataclasses import dataclass, replace

from trifold.errors import InvalidInput
from trifold.network import Network
from trifold.train.loop import Diverged, Step, Training, num_steps, run_steps
from trifold.train.task import Task

FEWEST_STEPS = 10
SMOOTHING = 0.7
"""Share of the old average in the smoothed loss. At 60 steps over 7 decades it follows a third of a decade behind."""

DIVERGED = 1.5
"""Times its least value at which the smoothed loss counts as diverged.

Batches of one training differ by some tenths of their loss, which the smoothing halves; a rate too high by a factor of
two multiplies the loss. Below 1.5 noise ends tests; 4, as fastai has it, is reached one step or two later.
"""

BELOW = 30.0
"""How many times under the rate of divergence the suggestion lies.

Chosen on 600 digits with two small networks, in runs of 3 to 5 epochs. The rate of divergence moved by a factor of 2 to
3 from seed to seed, that of the steepest descent by up to 10^4, since batches differ by more than the loss falls in a
step. AdamW diverged at 2 to 4 and trained best at 0.1, not at 0.3 (at 0.3 to 0.9 and best at 0.03, not at 0.1, with the
larger network); RMSProp at 1.5 to 1.9 and best at 0.03, not at 0.1; SGD at 4 and more and best at 0.5 to 1. A tenth is
too high for the first two, a thirtieth is within a factor of 4 of the best of each.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTest:
    """What a range test saw, a number a step.

    rates: learning rates, rising by one factor. losses: of the steps, as training logs them. smoothed: their moving
    average, corrected for its start; all finite. diverged_at: the rate after whose step the loss diverged, or None.
    suggested: the highest rate to train with.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged_at: float | None
    suggested: float


class _Enough(Exception):
    """The test has seen enough; it is no error."""


class _Watching:
    """A watcher that notes losses and ends the training where they diverge, or after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.diverged = False
        self.average = 0.0

    def stop_asked(self) -> bool:
        """Never."""
        return False

    def after_step(self, training: Training, step: Step, *, stop: bool) -> None:  # noqa: ARG002  a watcher's signature
        """Notes the loss."""
        self.losses.append(step.loss)
        self.average = SMOOTHING * self.average + (1 - SMOOTHING) * step.loss
        self.smoothed.append(self.average / (1 - SMOOTHING ** len(self.losses)))
        self.diverged = self.smoothed[-1] > DIVERGED * min(self.smoothed)
        if self.diverged or len(self.losses) == self.steps:
            raise _Enough


def range_test(
    network: Network, task: Task, *, steps: int = 60, lowest: float = 1e-6, highest: float = 10.0
) -> RangeTest:
    """What becomes of the loss while a copy of the network takes one step at each of exponentially rising rates.

    Batches, augmentation, losses and optimiser are the task's own; everything that the recipe trains at last is
    trained from the first step on. The network stays as it is, and so do torch's global generators.

    steps: the most that are taken, at least 10. lowest, highest: the first and the last rate.

    Raises InvalidInput if steps or rates are out of range.
    """
    if type(steps) is not int or steps < FEWEST_STEPS:
        raise InvalidInput(f"steps must be a whole number from {FEWEST_STEPS}, got {steps!r}")
    if not 0 < lowest < highest < math.inf:
        raise InvalidInput(f"lowest and highest must rise from above 0, got {lowest!r} and {highest!r}")
    recipe = replace(task.recipe, head_epochs=0, ema_decay=0.0, compile=False)
    task = replace(task, recipe=recipe)
    factor = (highest / lowest) ** (1 / (steps - 1))
    rates = [lowest * factor**number for number in range(steps)]
    watching = _Watching(steps)
    _take_steps(Training(copy.deepcopy(network), task), task, watching, rates)
    taken = len(watching.losses)
    ended_well = taken == steps and not watching.diverged
    # A loss is that of the weights before its own step: the rate before it made it so.
    diverged_at = None if ended_well else rates[max(0, taken - watching.diverged - 1)]
    return RangeTest(
        rates=tuple(rates[:taken]),
        losses=tuple(watching.losses),
        smoothed=tuple(watching.smoothed),
        diverged_at=diverged_at,
        suggested=(highest if diverged_at is None else diverged_at) / BELOW,
    )


def _take_steps(training: Training, task: Task, watching: _Watching, rates: list[float]) -> None:
    """Steps, epoch after epoch, until the watcher has enough or the loss is no number."""
    per_epoch = num_steps(len(task.train), task.recipe, task.processes)
    with suppress(_Enough, Diverged):
        for epoch in range(-(-len(rates) // per_epoch)):
            training.epoch, training.step = epoch, 0
            # The last epoch ends within: the watcher has enough at the last rate.
            run_steps(training, task, watching, rates=lambda number: rates[number])
