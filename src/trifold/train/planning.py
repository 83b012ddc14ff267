"""How many epochs fit into a given time, from a few steps taken on a copy of the network."""

from __future__ import annotations

import copy
import statistics
import time
from contextlib import suppress
from dataclasses import replace

from trifold.errors import InvalidInput
from trifold.network import Network
from trifold.train.loop import Step, Training, num_steps, run_steps
from trifold.train.task import Task

TIMED_STEPS, WARM_UP_STEPS = 30, 3
MARGIN = 0.97
"""Share of the time that is planned for; the rest is for checkpoints and pictures."""


class _Timed(Exception):
    """The trial has seen enough; it is no error."""


class _Trial:
    """A watcher that times steps and then ends the training."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def stop_asked(self) -> bool:
        """Never."""
        return False

    def after_step(self, training: Training, step: Step, *, stop: bool) -> None:  # noqa: ARG002  a watcher's signature
        """Notes the time."""
        self.times.append(time.perf_counter())
        if len(self.times) > TIMED_STEPS + WARM_UP_STEPS:
            raise _Timed


def step_seconds(network: Network, task: Task) -> float:
    """The wall time of a step, measured on a copy of the network, which stays as it is.

    Of the steps timed it is the one that a third are quicker than: what else the machine does only adds to a step.
    """
    trial = _Trial()
    dearest = replace(task, recipe=replace(task.recipe, head_epochs=0))
    with suppress(_Timed):
        run_steps(Training(copy.deepcopy(network), dearest), dearest, trial)
    spans = [later - earlier for earlier, later in zip(trial.times, trial.times[1:], strict=False)]
    timed = spans[WARM_UP_STEPS:] or spans
    return statistics.quantiles(timed, n=3)[0] if len(timed) > 1 else timed[0]


def planned_epochs(seconds: float, spent: float, step: float, task: Task) -> int:
    """The number of epochs that fit into `seconds`, of which `spent` are gone; step: seconds of one.

    An evaluated batch is taken to cost a third of a step of as many images.

    Raises InvalidInput if not even one fits.
    """
    steps = num_steps(len(task.train), task.recipe, task.processes)
    evaluation = len(task.minival) / task.recipe.batch_size * step / 3
    epoch = steps * step + evaluation
    fits = int((seconds * MARGIN - spent) // epoch)
    if fits < 1:
        raise InvalidInput(
            f"time must allow one epoch, about {epoch:.0f} s here after {spent:.0f} s of preparation, got {seconds:g}"
            " s; a smaller network, resolution or set needs less"
        )
    return min(fits, 100_000)
