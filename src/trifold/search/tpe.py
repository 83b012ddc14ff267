"""Optuna's tree-structured Parzen estimator behind the same ask and tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from trifold.search.asking import Allowed, Told, at_least, uniform
from trifold.search.space import Tokens

N_TPE = 25
"""Draws of the estimator for one proposal; those after it are uniform, since each costs milliseconds."""

N_COMPARED = 24
"""Of how many samples the first draw is the best, Optuna's own default. Later draws are samples as they come: the best
would be the same one again and again."""


class Tpe:
    """Optuna's own TPESampler, multivariate, over categorical decisions; startup: uniform proposals before it begins.

    A failed candidate counts as the worst reward told before it, and is only remembered as seen while there is none.
    """

    def __init__(self, sizes: Iterable[int], *, seed: int, startup: int = 10) -> None:
        self.told = Told(sizes, seed=seed)
        self.startup = at_least("startup", startup, 1)
        self.distributions: dict[str, BaseDistribution] = {
            str(place): CategoricalDistribution(range(size)) for place, size in enumerate(self.told.sizes)
        }
        shown = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # a study in memory is a detail that nobody asked for
        self.study = optuna.create_study(direction="maximize")
        optuna.logging.set_verbosity(shown)
        self.rewards: list[float] = []

    def ask(self, number: int, allowed: Allowed) -> Tokens:
        """As `Sampler.ask`."""
        generator = self.told.generator(number)
        if len(self.rewards) < self.startup:
            return self.told.first(uniform(self.told.sizes, generator), allowed)
        return self.told.first(self._draws(generator), allowed)

    def tell(self, tokens: Tokens, reward: float | None) -> None:
        """As `Sampler.tell`."""
        self.told.check(tokens, reward)
        self.told.seen.add(tuple(tokens))
        if reward is None and not self.rewards:
            return
        value = min(self.rewards) if reward is None else reward
        params = {name: int(token) for name, token in zip(self.distributions, tokens, strict=True)}
        self.study.add_trial(create_trial(params=params, distributions=self.distributions, value=value))
        self.rewards.append(value)

    def _draws(self, generator: np.random.Generator) -> Iterator[Tokens]:
        for drawn in range(N_TPE):
            self.study.sampler = TPESampler(
                seed=int(generator.integers(2**32)),
                n_startup_trials=self.startup,
                n_ei_candidates=1 if drawn else N_COMPARED,
                multivariate=True,
                constant_liar=False,
            )
            trial = self.study.ask(self.distributions)
            self.study.tell(trial, state=TrialState.FAIL)  # neither failed trials nor numbers mean anything to TPE
            yield tuple(trial.params[name] for name in self.distributions)
        yield from uniform(self.told.sizes, generator)
