"""A claimed training: what studies and searches share, and the run that answers a claim."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trifold.architecture import Architecture, to_dict
from trifold.data.dataset import Dataset
from trifold.train.assemble import Progress
from trifold.train.folder import LOG, InUse, in_use
from trifold.train.log import read_log
from trifold.train.loop import Epoch
from trifold.train.machine import Machine, processor
from trifold.train.recipe import Recipe, from_dict
from trifold.train.record import Plan, asked, run_id
from trifold.train.run import train
from trifold.trials import Claim, Job, Trained
from trifold.weights.loading import Pretrained

RUNS = "runs"
"""The folder of the run folders, within a study's, where no other is named."""

POLL_SECONDS = 2.0
"""Between two looks at a run that another process is training."""

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

    def plan(self, architecture: Architecture, seed: int) -> Plan:
        """The training of a network with a seed."""
        return Plan(architecture=architecture, recipe=self.recipe, seed=seed, split_seed=self.split_seed)


class _Weak(Exception):
    """Ends a training that is stopped early; its run folder goes on if it is asked for again."""


def train_claimed(
    claim: Claim,
    plan: Plan,
    dataset: Dataset,
    *,
    folder: str | Path,
    runs: str | Path | None = None,
    machine: Machine | None = None,
    pretrained: Pretrained | None = None,
    progress: Progress | None = None,
    may_stop: bool = False,
) -> Trained:
    """Trains a claimed plan in a run folder of its own; it goes on where another worker, or another study, left it.

    folder: the study's. runs: where run folders lie; None: in folder/runs. A run folder is named by all that its
    result depends on, and the network in it too, so that studies of one `runs` train nothing twice; one that another
    process is training is waited for. The fact `run` is the run folder's path from the study's. pretrained: what the
    network begins with; its digest is the plan's `weights`.

    The score is the accuracy on minival in percent, at the epoch whose weights are kept. may_stop: whether it may end
    early, where the storage's pruner says so.

    Raises what `run.train` does.
    """
    plan, name = _canonical(plan, dataset.fingerprint)
    run_folder = Path(folder) / RUNS / name if runs is None else Path(runs) / name
    path = Path(os.path.relpath(run_folder, folder)).as_posix()
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

    record = None
    try:
        while record is None:
            while in_use(run_folder):
                time.sleep(POLL_SECONDS)
            with suppress(InUse):  # another process took it since
                record = train(
                    dataset,
                    plan,
                    run_folder=run_folder,
                    machine=machine,
                    pretrained=pretrained,
                    progress=progress,
                    after_epoch=after_epoch,
                )
    except _Weak:
        last = max(curve)
        return Trained(score=curve[last], facts={"run": path, "seconds": spent}, curve=curve, stopped=last, whole=False)
    if not curve:  # it was finished before
        for entry in read_log(run_folder / LOG):
            if entry["type"] == "epoch":
                claim.report(int(entry["epoch"]), 100 * float(entry["minival_accuracy"]))
    result = record.result
    facts = {
        "run": path,
        "seconds": result.seconds,
        "test": 100 * record.accuracy,
        "images": result.images,
        "computed": {"processor": processor(), **result.computed},
        "versions": result.versions,
    }
    return Trained(score=100 * result.minival_accuracy, facts=facts)


def _canonical(plan: Plan, fingerprint: str) -> tuple[Plan, str]:
    """The plan with its network named by what it is, and its run folder's name."""
    described = {name: value for name, value in to_dict(plan.architecture).items() if name != "name"}
    network = f"net-{run_id(described)[:8]}"
    plan = replace(plan, architecture=replace(plan.architecture, name=network))
    return plan, f"{network}-seed-{plan.seed}-{run_id(asked(plan, fingerprint))}"
