"""Training what a study still wants: every network with its seeds, by one recipe, on one split."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import optuna

from trifold.architecture import Architecture
from trifold.claimed import Common, Shown, train_claimed
from trifold.data.dataset import Dataset
from trifold.train.machine import Machine
from trifold.train.record import Plan
from trifold.trials import Claim, Job, Trained, finished, work


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

    Raises what `claimed.train_claimed` and `trials.work` raise.
    """

    def one(claim: Claim) -> Trained:
        found = finished(trials)
        with nullcontext() if shown is None else shown(claim.job, found) as progress:
            return train_claimed(
                claim,
                plan_of(study, claim.job),
                dataset,
                folder=folder,
                machine=machine,
                progress=progress,
                may_stop=study.may_stop(claim.job, found),
            )

    return work(trials, study.wanted, one)


def plan_of(study: Study, job: Job) -> Plan:
    """The training of a network with a seed."""
    common = study.common
    return Plan(architecture=study.networks[job[0]], recipe=common.recipe, seed=job[1], split_seed=common.split_seed)
