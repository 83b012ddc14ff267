"""A run's log as TensorBoard's events, written anew from the log each time, so that nothing can stand in them twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trifold.data.decode import printable
from trifold.errors import InvalidData

MOST_STEPS = 2000
PREFIX = "events.out.tfevents."
STEP_TAGS = {"train/loss": "loss", "train/lr": "lr"}
EPOCH_TAGS = {
    "train/epoch_loss": "train_loss",
    "minival/loss": "minival_loss",
    "minival/top1": "minival_accuracy",
    "time/waiting_share": "waiting",
}
"""TensorBoard's name → the log's; waiting: share of the epoch's seconds spent waiting for data."""


class Scalar(NamedTuple):
    """One point of one curve; step: of the whole run; seconds: since training began."""

    tag: str
    step: int
    value: float
    seconds: float


def scalars(entries: Iterable[Mapping[str, Any]], *, most_steps: int = MOST_STEPS) -> tuple[Scalar, ...]:
    """The points that a log's "step" and "epoch" entries give, in order of steps.

    An epoch stands at its last step, or at its number where the log has no steps. Of more than most_steps steps as
    many are taken, evenly, and each epoch's last. A step or epoch that the log has twice counts as it was written
    last. Fields that are absent or None are left out. Raises InvalidData if one is not a number.
    """
    steps: dict[int, Mapping[str, Any]] = {}
    epochs: dict[int, Mapping[str, Any]] = {}
    for entry in entries:
        kind = entry["type"]
        if kind == "step":
            steps[int(_number(entry, "step"))] = entry
        elif kind == "epoch":
            epochs[int(_number(entry, "epoch"))] = entry
    last = {int(_number(steps[step], "epoch")): step for step in sorted(steps)}
    clock = _Clock(epochs, last)
    points = [
        point
        for step in _thinned(sorted(steps), set(last.values()), most_steps)
        for point in _points(steps[step], STEP_TAGS, step, clock.at_step(step, int(steps[step]["epoch"])))
    ]
    for epoch in sorted(epochs):
        points += _points(epochs[epoch], EPOCH_TAGS, last.get(epoch, epoch), clock.ends.get(epoch, 0.0))
    return tuple(sorted(points, key=lambda point: point.step))


def write_events(entries: Iterable[Mapping[str, Any]], folder: Path, *, started: float = 0.0) -> Path:
    """The event file in the folder, holding what the whole log says and nothing else; older ones are deleted.

    started: when training began, in Unix seconds. The folder is made if absent. The new file is written beside the
    folder, then moved in before the old one goes: a process killed at any moment leaves events that read correctly,
    since each file begins by telling TensorBoard to forget what it has read.
    """
    # Imported here: nothing but a training run writes events, and it takes part of a second.
    from torch.utils.tensorboard import SummaryWriter

    points = scalars(entries)
    folder.mkdir(parents=True, exist_ok=True)
    making = folder.with_name(f".{folder.name}.making")
    shutil.rmtree(making, ignore_errors=True)  # of a run that was killed here
    writer = SummaryWriter(str(making), purge_step=0, max_queue=1000)
    for point in points:
        writer.add_scalar(point.tag, point.value, point.step, walltime=started + point.seconds)
    writer.close()
    older = [path for path in folder.iterdir() if path.name.startswith(PREFIX)]
    # Numbered, for TensorBoard reads a folder's files in the order of their names and a clock may be set back.
    target = folder / f"{PREFIX}{max(map(_number_of, older), default=0) + 1:09d}"
    (written,) = making.iterdir()
    written.replace(target)
    making.rmdir()
    for path in older:
        path.unlink()
    return target


class _Clock:
    """When each step was, in seconds since training began, from how long each epoch took."""

    def __init__(self, epochs: Mapping[int, Mapping[str, Any]], last: Mapping[int, int]) -> None:
        self.last = last
        self.ends: dict[int, float] = {}
        end = 0.0
        for epoch in sorted(epochs):
            end += float(epochs[epoch].get("seconds") or 0.0)
            self.ends[epoch] = end

    def at_step(self, step: int, epoch: int) -> float:
        """When a step was; those of an unfinished epoch count as its beginning."""
        begin, first = self.ends.get(epoch - 1, 0.0), self.last.get(epoch - 1, 0)
        return begin + (self.ends.get(epoch, begin) - begin) * (step - first) / max(1, self.last[epoch] - first)


def _thinned(steps: Sequence[int], kept: set[int], most: int) -> list[int]:
    every = -(-len(steps) // most) or 1
    return [step for i, step in enumerate(steps) if i % every == 0 or step in kept]


def _points(entry: Mapping[str, Any], tags: Mapping[str, str], step: int, seconds: float) -> list[Scalar]:
    return [
        Scalar(tag, step, _number(entry, name), seconds) for tag, name in tags.items() if entry.get(name) is not None
    ]


def _number(entry: Mapping[str, Any], name: str) -> float:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidData(f"log: {name} of {entry['type']} must be a number, got {printable(repr(value))}")
    return float(value)


def _number_of(path: Path) -> int:
    """The number in the name of an event file of ours; 0 in that of another."""
    text = path.name.removeprefix(PREFIX)
    return int(text) if text.isdecimal() and len(text) == 9 else 0
