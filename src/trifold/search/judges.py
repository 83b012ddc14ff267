"""Who judges a search's candidates: short trainings of their own, or their part of one supernet."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from trifold.architecture import Architecture
from trifold.claimed import train_claimed
from trifold.data.dataset import Dataset
from trifold.search.question import Search
from trifold.search.run import Evaluate
from trifold.search.supernet_evaluate import evaluate_candidate
from trifold.search.supernet_run import TrainedSupernet
from trifold.train.assemble import Progress
from trifold.train.machine import Machine
from trifold.trials import Claim, Trained


def by_training(
    search: Search,
    dataset: Dataset,
    *,
    folder: str | Path,
    runs: str | Path | None = None,
    machine: Machine | None = None,
) -> Evaluate:
    """Judges candidates by a short training each; folder, runs: as for `claimed.train_claimed`."""

    def evaluate(claim: Claim, network: Architecture, progress: Progress | None) -> Trained:
        plan = search.common.plan(network, search.seed)
        seen = train_claimed(claim, plan, dataset, folder=folder, runs=runs, machine=machine, progress=progress)
        hidden = {name: value for name, value in seen.facts.items() if name != "test"}  # nothing is chosen by it
        return replace(seen, facts=hidden)

    return evaluate


def by_supernet(made: TrainedSupernet) -> Evaluate:
    """Judges candidates by their part of a trained supernet, its batch norm calibrated for each."""

    def evaluate(claim: Claim, network: Architecture, progress: Progress | None) -> Trained:
        began = time.perf_counter()
        share = evaluate_candidate(made.supernet, network, made.task)
        return Trained(score=100 * share, facts={"seconds": time.perf_counter() - began})

    return evaluate
