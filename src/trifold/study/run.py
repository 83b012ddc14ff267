"""Training what a study still wants: every network with its seeds, by one recipe, on one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna

from trifold.architecture import Architecture
from trifold.data.dataset import Dataset
from trifold.train.assemble import Progress
from trifold.train.folder import LOG
from trifold.train.log import read_log
from trifold.train.loop import Epoch
from trifold.train.machine import Machine, processor
from trifold.train.recipe import Recipe, from_dict
from trifold.train.record import Plan, asked, run_id
from trifold.train.run import train
from trifold.trials import Claim, Job, Trained, finished, work

RUNS = "runs"
"""The folder of the run folders, within a study's."""

Shown = Callable[[Job, Mapping[Job, Trained]], AbstractContextManager[Progress | None]]


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


class Study(Protocol):
    """What is trained and why."""

    @property
    def common(self) -> Common:
        """What all trainings share."""

    @property
    def question(self) -> dict[str, Any]:
        """Plain values that tell two studies apart, and from which this one can be made again."""

    @property
    def networks(self) -> tuple[Architecture, ...]:
        """The networks, by their numbers."""

    @property
    def names(self) -> tuple[str, ...]:
        """What each network is called."""

    def to_come(self, found: Mapping[Job, Trained]) -> int:
        """How many trainings are still to come, as far as is known."""

    @property
    def pruner(self) -> optuna.pruners.BasePruner | None:
        """What stops weak trainings early."""

    def wanted(self, found: Mapping[Job, Trained]) -> list[Job]:
        """The trainings to come."""

    def may_stop(self, job: Job, found: Mapping[Job, Trained]) -> bool:
        """Whether this training may be stopped early."""


class _Weak(Exception):
    """Ends a training that is stopped early; its run folder goes on if it is asked for again."""


def run_study(
    study: Study,
    dataset: Dataset,
    trials: optuna.Study,
    *,
    folder: str | Path,
    machine: Machine | None = None,
    shown: Shown | None = None,
) -> dict[Job, Trained]:
    """Trains what the study still wants, beside any other worker on its trials; run folders lie in folder/runs.

    A training's score is its accuracy on minival in percent, at the epoch whose weights are kept. shown: called with
    each training before it begins and with what is finished; what it gives is entered for its progress.

    Raises what `run.train` and `trials.work` raise.
    """

    def one(claim: Claim) -> Trained:
        job, plan = claim.job, plan_of(study, claim.job)
        name = f"{job[0]:02d}-seed-{job[1]}-{run_id(asked(plan, dataset.fingerprint))[:8]}"
        curve: dict[int, float] = {}
        spent, may_stop = 0.0, study.may_stop(job, finished(trials))

        def after_epoch(epochs: Sequence[Epoch]) -> None:
            nonlocal spent
            spent, weak = sum(epoch.seconds for epoch in epochs), False
            for epoch in epochs[len(curve) :]:
                curve[epoch.epoch] = 100 * epoch.minival_accuracy
                weak = claim.report(epoch.epoch, curve[epoch.epoch])
            if weak and may_stop and len(epochs) < plan.recipe.epochs:
                raise _Weak

        run_folder = Path(folder) / RUNS / name
        with nullcontext() if shown is None else shown(job, finished(trials)) as progress:
            try:
                record = train(
                    dataset, plan, run_folder=run_folder, machine=machine, progress=progress, after_epoch=after_epoch
                )
            except _Weak:
                last = max(curve)
                facts = {"run": name, "seconds": spent}
                return Trained(score=curve[last], facts=facts, curve=curve, stopped=last, whole=False)
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

    return work(trials, study.wanted, one)


def plan_of(study: Study, job: Job) -> Plan:
    """The training of a network with a seed."""
    common = study.common
    return Plan(architecture=study.networks[job[0]], recipe=common.recipe, seed=job[1], split_seed=common.split_seed)
