"""Stopping weak first trainings of a search early: those that nothing seen so far would lift into the better half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

UNTOUCHED = 4
"""Trainings that must have come to their end before one is stopped."""


class Hopeless(BasePruner):
    """Stops a training that would end in the lower half even if it gained from here as much as any other did.

    Curves that cross are what this is made for: a percentile of the scores so far, which Optuna's own pruners take,
    stops the slow learners, among them the best one; here one slow learner that was seen to its end protects the next.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial is to stop at the epoch it reported last."""
        epoch = trial.last_step
        ended = [
            (one.value, one.intermediate_values[epoch])
            for one in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if epoch in one.intermediate_values and one.value is not None
        ]
        if epoch is None or len(ended) < UNTOUCHED:
            return False
        most_gained = max(end - then for end, then in ended)
        return trial.intermediate_values[epoch] + most_gained < float(np.median([end for end, _ in ended]))


def replay(courses: Sequence[tuple[int, Mapping[int, float], float]]) -> dict[int, int]:
    """Which trainings would have been stopped, and after how many epochs, had one come after the other in this order.

    courses: of each training its number, its score by epoch, and the score it ended with.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", pruner=Hopeless())
    stopped = {}
    for number, curve, end in courses:
        trial = study.ask()
        for epoch, score in sorted(curve.items()):
            trial.report(score, epoch)
            if epoch < max(curve) and trial.should_prune():
                stopped[number] = epoch
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, end)
    return stopped
