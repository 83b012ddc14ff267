"""The main job: from images and a budget to a scaled architecture and a trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trifold import baselines, budget
from trifold.budget import Budget, Fit
from trifold.data.dataset import Dataset
from trifold.scaling import PAPER, Coefficients
from trifold.train.assemble import Progress
from trifold.train.recipe import Recipe
from trifold.train.record import Plan, Record
from trifold.train.run import train

SMALL_SIDE = 64
"""Images whose median shorter side is at most so many pixels start from the baseline with total stride 8."""


SMALL_NETWORK = "efficientnet_mini"


def default_network(dataset: Dataset) -> str:
    """The baseline that suits the images' size: efficientnet_mini up to 64 pixels, else efficientnet_b0."""
    return SMALL_NETWORK if dataset.median_side <= SMALL_SIDE else "efficientnet_b0"


def scale_to_budget(
    dataset: Dataset, limits: Budget, network: str | None = None, coefficients: Coefficients = PAPER
) -> Fit:
    """The largest network under the budget, counted with this dataset's classes and channels.

    network: a name or file as in `baselines.load`; None takes default_network.

    Raises ImpossibleBudget or InvalidArchitecture.
    """
    architecture, rounding = baselines.load(network or default_network(dataset))
    return budget.fit(
        architecture,
        limits,
        coefficients,
        rounding=rounding,
        num_classes=len(dataset.classes),
        in_channels=dataset.in_channels,
    )


def describe(found: Fit) -> dict[str, Any]:
    """What scaling gave, as plain values for a run's record."""
    return {
        "budget": found.budget.limits,
        "phi": found.phi,
        "multipliers": asdict(found.multipliers),
        "binding": list(found.binding),
        "unused": found.unused,
        "width_adjustment": found.width_adjustment,
    }


def train_scaled(
    dataset: Dataset,
    found: Fit,
    recipe: Recipe,
    *,
    run_folder: str | Path,
    seeds: Mapping[str, int] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Record:
    """Trains the network that scaling found; see `run.train`. seeds: the plan's `seed` and `split_seed`, 0 if absent.

    Raises InvalidData as `run.train` does.
    """
    given = seeds or {}
    plan = Plan(
        architecture=found.architecture,
        recipe=recipe,
        seed=given.get("seed", 0),
        split_seed=given.get("split_seed", 0),
    )
    return train(dataset, plan, run_folder=run_folder, overwrite=overwrite, scaling=describe(found), progress=progress)
