"""What the seeds of one network say together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trifold.study.choose import mean_and_interval
from trifold.trials import Job, Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A network's accuracies in percent: each mean with half its 95 % interval. seconds: the mean training's."""

    seeds: int
    minival: tuple[float, float]
    test: tuple[float, float]
    seconds: float


def measure(found: Mapping[Job, Trained]) -> dict[int, Measured]:
    """Every network that has a finished training, by number."""
    return {
        number: _measured([one for (network, _), one in found.items() if network == number])
        for number in sorted({number for number, _ in found})
    }


def _measured(ones: list[Trained]) -> Measured:
    return Measured(
        seeds=len(ones),
        minival=mean_and_interval([one.score for one in ones]),
        test=mean_and_interval([one.facts["test"] for one in ones]),
        seconds=float(np.mean([one.facts["seconds"] for one in ones])),
    )
