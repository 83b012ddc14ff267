"""A run's log as TensorBoard's events, written anew from the log each time, so that nothing can stand in them twice."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import ModuleType
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
"""TensorBoard's name → the log's; waiting: share of the steps' time spent waiting for data."""


class Scalar(NamedTuple):
    """One point of one curve; step: of the whole run; seconds: since training began."""

    tag: str
    step: int
    value: float
    seconds: float


def scalars(entries: Iterable[Mapping[str, Any]], *, most_steps: int = MOST_STEPS) -> tuple[Scalar, ...]:
    """The points that a log's "step" and "epoch" entries give, in order of steps.

    The log counts steps within their epoch; here they are counted through the run, and an epoch stands at its last
    step, or at its number where the log has no steps. Of more than most_steps steps as many are taken, evenly, and
    each epoch's last. A step or epoch that the log has twice counts as it was written last. Fields that are absent or
    None are left out. Raises InvalidData if one is not a number.
    """
    steps: dict[tuple[int, int], Mapping[str, Any]] = {}
    epochs: dict[int, Mapping[str, Any]] = {}
    for entry in entries:
        if entry["type"] == "step":
            steps[int(_number(entry, "epoch")), int(_number(entry, "step"))] = entry
        elif entry["type"] == "epoch":
            epochs[int(_number(entry, "epoch"))] = entry
    lengths = dict(sorted(steps))  # the last step of each epoch
    seconds = {epoch: float(epochs.get(epoch, {}).get("seconds") or 0.0) for epoch in sorted({*epochs, *lengths})}
    ends = dict(zip(seconds, accumulate(seconds.values()), strict=True))
    last = dict(zip(seconds, accumulate(lengths.get(epoch, 0) for epoch in seconds), strict=True))
    points = []
    for epoch, step in _thinned(sorted(steps), lengths, most_steps):
        when = ends[epoch] - seconds[epoch] * (1 - step / lengths[epoch])
        points += _points(steps[epoch, step], STEP_TAGS, last[epoch] - lengths[epoch] + step, when)
    for epoch in sorted(epochs):
        points += _points(epochs[epoch], EPOCH_TAGS, last[epoch] if steps else epoch, ends[epoch])
    return tuple(sorted(points, key=lambda point: point.step))


def write_events(entries: Iterable[Mapping[str, Any]], folder: Path, *, started: float = 0.0) -> Path:
    """The event file in the folder, holding what the whole log says and nothing else; older ones are deleted.

    started: when training began, in Unix seconds. The folder is made if absent. The new file is written beside the
    folder, then moved in before the old one goes: a process killed at any moment leaves events that read correctly,
    since each file begins by telling TensorBoard to forget what it has read.
    """
    # Imported here: nothing but a training run writes events, and it takes part of a second.
    # TensorBoard would load all of TensorFlow where that is installed; this module's presence is its own switch.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
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


def _thinned(steps: Sequence[tuple[int, int]], lengths: Mapping[int, int], most: int) -> list[tuple[int, int]]:
    every = -(-len(steps) // most) or 1
    return [(epoch, step) for i, (epoch, step) in enumerate(steps) if i % every == 0 or step == lengths[epoch]]


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
