"""Every sampler inside a real Optuna study, in memory and stored, beside the same sampler asked and told plainly."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import optuna
import pytest

from tests.test_samplers import NAMES, everything, make, planted, searched
from trifold.errors import InvalidInput
from trifold.search.optuna_sampler import OptunaSampler
from trifold.search.samplers import SAMPLERS, Evolution
from trifold.search.space import Tokens


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


DECISIONS: Mapping[str, Sequence[str | int | float | bool | None]] = {
    "kernel": (3, 5, 7),
    "skip": (True, False),
    "ratio": (0.25, None, "auto", 1.5),
    "only": ("one",),
    "width": (8, 16, 24),
}


def options(trial: optuna.Trial) -> Tokens:
    """The trial's choices by index; asked for in another order than the sampler's."""
    chosen = {name: trial.suggest_categorical(name, DECISIONS[name]) for name in reversed(list(DECISIONS))}
    return tuple(DECISIONS[name].index(chosen[name]) for name in DECISIONS)


def wrapped(name: str, seed: int = 0) -> OptunaSampler:
    return OptunaSampler(partial(SAMPLERS[name], seed=seed), DECISIONS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_study_asks_what_ask_and_tell_would(name: str, sign: int) -> None:
    study = optuna.create_study(sampler=wrapped(name), direction="maximize" if sign == 1 else "minimize")
    asked: list[Tokens] = []

    def objective(trial: optuna.Trial) -> float:
        asked.append(options(trial))
        if trial.number % 7 == 3:
            raise ArithmeticError
        return sign * planted(asked[-1])

    study.optimize(objective, n_trials=26, catch=(ArithmeticError,))
    plain = make(name)
    for number, tokens in enumerate(asked):
        assert plain.ask(number, everything) == tokens
        plain.tell(tokens, None if number % 7 == 3 else planted(tokens))


@pytest.mark.parametrize("name", NAMES)
def test_another_process_goes_on_with_a_stored_study(name: str, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    asked: list[Tokens] = []
    for trials in (12, 3):  # each with a sampler of its own
        study = optuna.create_study(
            study_name="s", storage=storage, load_if_exists=True, direction="maximize", sampler=wrapped(name)
        )

        def objective(trial: optuna.Trial) -> float:
            asked.append(options(trial))
            return planted(asked[-1])

        study.optimize(objective, n_trials=trials)
    assert asked == [tokens for tokens, _ in searched(make(name), 15)]


def test_one_sampler_serves_two_studies_in_turn() -> None:
    sampler = wrapped("evolution")
    asked: dict[int, list[Tokens]] = {0: [], 1: []}
    studies = [optuna.create_study(sampler=sampler, direction="maximize") for _ in asked]
    for _ in range(24):
        for which, study in enumerate(studies):
            trial = study.ask()
            asked[which].append(options(trial))
            study.tell(trial, planted(asked[which][-1]) * (1 - 2 * which))
    assert asked[0] == [tokens for tokens, _ in searched(make("evolution"), 24)]
    assert asked[1] == [tokens for tokens, _ in searched(make("evolution"), 24, lambda one: -planted(one))]


def test_history_is_told_in_the_order_of_completion() -> None:
    study = optuna.create_study(sampler=wrapped("evolution"), direction="maximize")
    trials = [study.ask() for _ in range(3)]
    found = [options(trial) for trial in trials]
    for which in (2, 0, 1):
        study.tell(trials[which], float(which))
    options(study.ask())
    assert isinstance(study.sampler, OptunaSampler)
    assert study.sampler.told == [(found[2], 2), (found[0], 0), (found[1], 1)]


def test_pruned_and_foreign_trials() -> None:
    study = optuna.create_study(sampler=wrapped("random"), direction="maximize")
    reported, silent, short = study.ask(), study.ask(), study.ask()
    found = [options(reported), options(silent)]
    reported.report(0.5, 1)
    short.suggest_categorical("kernel", (3, 5, 7))
    for trial in (reported, silent):
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    study.tell(short, 9.0)  # lacks decisions
    other = study.ask()
    study.tell(other, float("inf"))
    options(study.ask())
    assert isinstance(study.sampler, OptunaSampler)
    assert study.sampler.told == [(found[0], 0.5), (found[1], None)]


def test_limits_hold_in_a_study_and_enqueued_trials_are_told() -> None:
    sampler = OptunaSampler(partial(Evolution, seed=0), DECISIONS, allowed=lambda tokens: tokens[0] > 0)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    study.enqueue_trial({"kernel": 3, "skip": True, "ratio": 0.25, "only": "one", "width": 8})
    asked = []
    for _ in range(25):
        trial = study.ask()
        asked.append(options(trial))
        study.tell(trial, planted(asked[-1]))
    assert asked[0] == (0, 0, 0, 0, 0)
    assert all(tokens[0] > 0 for tokens in asked[1:])
    assert sampler.told[0] == ((0, 0, 0, 0, 0), 0)


def test_two_threads_share_a_sampler() -> None:
    study = optuna.create_study(sampler=wrapped("evolution"), direction="maximize")
    study.optimize(lambda trial: planted(options(trial)), n_trials=30, n_jobs=2)
    assert len(study.trials) == 30


def test_several_objectives_are_refused_in_one_line() -> None:
    study = optuna.create_study(sampler=wrapped("random"), directions=["maximize", "minimize"])
    with pytest.raises(InvalidInput, match=r"^study must have one objective to be searched so, got 2$"):
        options(study.ask())


def test_a_parameter_that_is_no_decision_is_refused() -> None:
    study = optuna.create_study(sampler=wrapped("random"))
    with pytest.raises(InvalidInput, match="parameter must be one of kernel, skip, ratio, only, width, got 'lr'"):
        study.ask().suggest_float("lr", 0.1, 1)
