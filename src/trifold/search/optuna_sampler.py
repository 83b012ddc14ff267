"""Any of our samplers inside an Optuna study of the user's own: `optuna.create_study(sampler=OptunaSampler(...))`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trifold.errors import InvalidInput
from trifold.search.asking import Allowed, Sampler
from trifold.search.space import Tokens

Option = str | int | float | bool | None

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class OptunaSampler(BaseSampler):
    """Proposes what one of our samplers does, told the study's finished trials in the order in which they finished.

    make: the sampler, new, from the decisions' sizes: `partial(Evolution, seed=0)`. decisions: each one's name, as the
    objective gives it to `trial.suggest_categorical`, and its options in that order. allowed: what may be proposed, by
    the options' indices; None: everything.

    A failed trial is told as failed, a pruned one by the last value it reported, or as failed without one. A trial that
    lacks one of the decisions is left out. In a study that minimises, rewards are the values' negatives. It holds
    nothing that the study does not, so each process can have its own.

    Raises InvalidInput for a study with several objectives and for a parameter that is none of the decisions.
    """

    def __init__(
        self,
        make: Callable[[tuple[int, ...]], Sampler],
        decisions: Mapping[str, Sequence[Option]],
        *,
        allowed: Allowed | None = None,
    ) -> None:
        self.make = make
        self.distributions = {name: CategoricalDistribution(tuple(options)) for name, options in decisions.items()}
        self.sizes = tuple(len(one.choices) for one in self.distributions.values())
        self.allowed = allowed or _everything
        self.sampler = make(self.sizes)
        self.told: list[tuple[Tokens, float | None]] = []
        self._lock = Lock()  # optimize(n_jobs=2) asks from two threads

    def reseed_rng(self) -> None:
        """Does nothing: trials of different numbers have different randomness already."""

    def infer_relative_search_space(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002  BaseSampler's signature
    ) -> dict[str, BaseDistribution]:
        """All decisions, whatever the study's trials hold."""
        if len(study.directions) > 1:
            raise InvalidInput(f"study must have one objective to be searched so, got {len(study.directions)}")
        return dict(self.distributions)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],  # noqa: ARG002  BaseSampler's signature
    ) -> dict[str, Any]:
        """The proposal for the trial's number."""
        with self._lock:
            self._catch_up(self._history(study))
            tokens = self.sampler.ask(trial.number, self.allowed)
        chosen = zip(self.distributions.items(), tokens, strict=True)
        return {name: one.choices[token] for (name, one), token in chosen}

    def sample_independent(
        self,
        study: optuna.Study,  # noqa: ARG002  BaseSampler's signature
        trial: FrozenTrial,  # noqa: ARG002
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Any:
        """Nothing: refuses a parameter that is none of the decisions."""
        raise InvalidInput(f"parameter must be one of {', '.join(self.distributions)}, got {param_name!r}")

    def _history(self, study: optuna.Study) -> list[tuple[Tokens, float | None]]:
        """What a sampler is told of the study, in that order."""
        sign = -1 if study.direction == StudyDirection.MINIMIZE else 1
        trials = [
            one
            for one in study.get_trials(deepcopy=False, states=_FINISHED)
            if all(one.distributions.get(name) == options for name, options in self.distributions.items())
        ]
        trials.sort(key=lambda one: (one.datetime_complete, one.number))
        return [(self._tokens(one), None if one.value is None else sign * one.value) for one in trials]

    def _tokens(self, trial: FrozenTrial) -> Tokens:
        return tuple(int(one.to_internal_repr(trial.params[name])) for name, one in self.distributions.items())

    def _catch_up(self, history: list[tuple[Tokens, float | None]]) -> None:
        """Tells what is new; all of it to a new sampler where this one was told something else, as by another study."""
        if self.told != history[: len(self.told)]:
            self.sampler, self.told = self.make(self.sizes), []
        for tokens, reward in history[len(self.told) :]:
            finite = reward is not None and abs(reward) < float("inf")  # Optuna takes infinity for a value
            self.sampler.tell(tokens, reward if finite else None)
            self.told.append((tokens, reward))


def _everything(tokens: Tokens) -> bool:
    return True
