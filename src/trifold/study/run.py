"""Training what a study still wants: every network with its seeds, on one split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import optuna

from trifold.architecture import Architecture
from trifold.claimed import Common, Shown, train_claimed
from trifold.data.dataset import Dataset
from trifold.errors import InvalidData
from trifold.train.machine import Machine
from trifold.train.record import Plan
from trifold.trials import Claim, Job, Trained, finished, work
from trifold.weights.loading import Pretrained, pretrained


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

    def plan(self, job: Job) -> Plan:
        """Of a training."""

    def to_come(self, found: Mapping[Job, Trained]) -> int:
        """How many trainings are still to come, as far as is known."""

    @property
    def pruner(self) -> optuna.pruners.BasePruner | None:
        """What stops weak trainings early."""

    def wanted(self, found: Mapping[Job, Trained]) -> list[Job]:
        """The trainings to come."""

    def may_stop(self, job: Job, found: Mapping[Job, Trained]) -> bool:
        """Whether this training may be stopped early."""


class TrainedToTheEnd(ABC):
    """What studies have in common that want every training to its end."""

    __slots__ = ()

    @abstractmethod
    def wanted(self, found: Mapping[Job, Trained]) -> list[Job]:
        """The trainings to come."""

    def to_come(self, found: Mapping[Job, Trained]) -> int:
        """How many trainings are still to come."""
        return len(self.wanted(found))

    @property
    def pruner(self) -> optuna.pruners.BasePruner | None:
        """None: all are wanted to their end."""
        return None

    def may_stop(self, job: Job, found: Mapping[Job, Trained]) -> bool:  # noqa: ARG002  as every study's
        """None may."""
        return False


def rounds(seeds: Sequence[int], found: Mapping[Job, Trained]) -> list[Job]:
    """The trainings to come, one seed of all networks after another. seeds: of each network."""
    jobs = [(number, seed) for seed in range(max(seeds, default=0)) for number, own in enumerate(seeds) if seed < own]
    return [job for job in jobs if job not in found]


def run_study(
    study: Study,
    dataset: Dataset,
    trials: optuna.Study,
    *,
    folder: str | Path,
    runs: str | Path | None = None,
    weights: Mapping[str, Path] | None = None,
    machine: Machine | None = None,
    shown: Shown | None = None,
) -> dict[Job, Trained]:
    """Trains what the study still wants, beside any other worker on its trials.

    folder, runs: as for `claimed.train_claimed`. weights: the files of pretrained weights by their digests, where plans
    name any.

    Raises what `claimed.train_claimed` and `trials.work` raise.
    """

    def one(claim: Claim) -> Trained:
        found, plan = finished(trials), study.plan(claim.job)
        with nullcontext() if shown is None else shown(claim.job, found) as progress:
            return train_claimed(
                claim,
                plan,
                dataset,
                folder=folder,
                runs=runs,
                machine=machine,
                pretrained=_begun_with(plan, weights or {}),
                progress=progress,
                may_stop=study.may_stop(claim.job, found),
            )

    return work(trials, study.wanted, one)


def _begun_with(plan: Plan, weights: Mapping[str, Path]) -> Pretrained | None:
    """The weights that a training begins with. Raises InvalidData if their file is another one by now."""
    if not plan.weights:
        return None
    found = pretrained(weights[plan.weights])
    if found.digest != plan.weights:
        raise InvalidData(f"{found.source}: has changed since the study began")
    return found
