"""What watches over a training: writes its log, saves it now and then, and stops it when it is told to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trifold.train import checkpoint
from trifold.train.folder import CHECKPOINT, EVENTS
from trifold.train.log import LogWriter, read_log
from trifold.train.loop import Epoch, Step, Training
from trifold.train.stop import StopSign
from trifold.train.tensorboard import write_events

EVENTS_SECONDS = 30.0
"""At most so often TensorBoard's events are written anew from the log while a run goes on."""


class Keeper:
    """Watches one sitting of a run; on every process but the first, which keeps the folder, it has no log.

    every: seconds between checkpoints; one is also written after each epoch. progress: called with (done, total,
    "training") after each step; steps: of an epoch; epochs: of the run. told: called with all epochs so far when one is
    saved.
    """

    def __init__(
        self, folder: Path, *, log: LogWriter | None, sign: StopSign, every: float, total: int, steps: int,
        progress: Callable[[int, int, str], None] | None, told: Callable[[Sequence[Epoch]], None] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.log, self.sign = folder / CHECKPOINT, log, sign
        self.every, self.total, self.steps, self.progress, self.told = every, total, steps, progress, told
        self.saved = self.shown = time.monotonic()

    def save(self, training: Training) -> None:
        """Writes a checkpoint that knows how long the log is at this moment."""
        if self.log is not None:
            state = {"training": training.state_dict(), "log_bytes": self.log.synced()}
            checkpoint.save(self.path, state)
        self.saved = time.monotonic()

    def stop_asked(self) -> bool:
        """Whether this process was told to stop."""
        return self.sign.signal is not None

    def after_step(self, training: Training, step: Step, *, stop: bool) -> None:
        """Logs the step; saves if it is time; saves and raises Stopped if any process was told to stop."""
        if self.log is not None:
            entry = asdict(step)
            self.log.write("step", entry if step.skipped else {k: v for k, v in entry.items() if k != "skipped"})
        if self.progress is not None:
            self.progress(training.epoch * self.steps + training.step, self.total, "training")
        if stop:
            self._stop(training)
        if time.monotonic() - self.saved >= self.every:
            self.save(training)

    def while_evaluating(self, training: Training) -> None:
        """Saves and raises Stopped if this process was told to stop."""
        if self.stop_asked():
            self._stop(training)

    def after_epoch(self, training: Training, epoch: Epoch) -> None:
        """Logs the epoch, saves, and now and then lets TensorBoard see it."""
        if self.log is not None:
            self.log.write("epoch", asdict(epoch))
            if time.monotonic() - self.shown >= EVENTS_SECONDS:
                write_events(read_log(self.log.path), self.path.with_name(EVENTS))
                self.shown = time.monotonic()
        self.save(training)
        if self.told is not None:
            self.told(training.epochs)

    def _stop(self, training: Training) -> None:
        self.save(training)
        raise self.sign.stopped(f"epoch {training.epoch + 1} step {training.step} is saved")


def load(folder: Path) -> dict[str, Any] | None:
    """What `Keeper.save` wrote last into a run folder, or None. Raises InvalidData if all there is is damaged."""
    return checkpoint.load(folder / CHECKPOINT)
