"""A claimed training: what studies and searches share, and the run that answers a claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trifold.data.dataset import Dataset
from trifold.train.assemble import Progress
from trifold.train.folder import LOG
from trifold.train.log import read_log
from trifold.train.loop import Epoch
from trifold.train.machine import Machine, processor
from trifold.train.recipe import Recipe, from_dict
from trifold.train.record import Plan, asked, run_id
from trifold.train.run import train
from trifold.trials import Claim, Job, Trained

RUNS = "runs"
"""The folder of the run folders, within a study's or a search's."""

Shown = Callable[[Job, Mapping[Job, Trained]], AbstractContextManager[Progress | None]]
"""Called with each training before it begins and with what is finished; what it gives is entered for its progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What all trainings of a study share.

    data: the dataset's fingerprint. split_seed: of the one split, so that networks are compared on the same images.
    classes, channels: of the data, which the networks' costs are counted with.
    """

    recipe: Recipe
    split_seed: int
    data: str
    classes: int
    channels: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Common:
        """What `dataclasses.asdict` made plain values of."""
        return cls(**{**data, "recipe": from_dict(data["recipe"])})


class _Weak(Exception):
    """Ends a training that is stopped early; its run folder goes on if it is asked for again."""


def train_claimed(
    claim: Claim,
    plan: Plan,
    dataset: Dataset,
    *,
    folder: str | Path,
    machine: Machine | None = None,
    progress: Progress | None = None,
    may_stop: bool = False,
) -> Trained:
    """Trains a claimed plan in a run folder of its own in folder/runs; it goes on where another worker left it.

    The score is the accuracy on minival in percent, at the epoch whose weights are kept. may_stop: whether it may end
    early, where the storage's pruner says so.

    Raises what `run.train` does.
    """
    name = f"{claim.job[0]:02d}-seed-{claim.job[1]}-{run_id(asked(plan, dataset.fingerprint))[:8]}"
    curve: dict[int, float] = {}
    spent = 0.0

    def after_epoch(epochs: Sequence[Epoch]) -> None:
        nonlocal spent
        spent, weak = sum(epoch.seconds for epoch in epochs), False
        for epoch in epochs[len(curve) :]:
            curve[epoch.epoch] = 100 * epoch.minival_accuracy
            weak = claim.report(epoch.epoch, curve[epoch.epoch])
        if weak and may_stop and len(epochs) < plan.recipe.epochs:
            raise _Weak

    run_folder = Path(folder) / RUNS / name
    try:
        record = train(
            dataset, plan, run_folder=run_folder, machine=machine, progress=progress, after_epoch=after_epoch
        )
    except _Weak:
        last = max(curve)
        return Trained(score=curve[last], facts={"run": name, "seconds": spent}, curve=curve, stopped=last, whole=False)
    if not curve:  # it was finished before
        for entry in read_log(run_folder / LOG):
            if entry["type"] == "epoch":
                claim.report(int(entry["epoch"]), 100 * float(entry["minival_accuracy"]))
    result = record.result
    facts = {
        "run": name,
        "seconds": result.seconds,
        "test": 100 * record.accuracy,
        "images": result.images,
        "computed": {"processor": processor(), **result.computed},
        "versions": result.versions,
    }
    return Trained(score=100 * result.minival_accuracy, facts=facts)
