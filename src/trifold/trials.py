"""Trainings as trials in Optuna's storage: any number of workers share them, and none is done twice.

Every worker runs the same loop: it reads what is finished, works out what is still to be trained, and claims one of it.
A claim is a trial; where two workers claim the same training, the earlier trial has it. The trial of a worker that
died is failed as soon as another one on its machine looks, or else when its heartbeat is late, and the training is to
be had again: its run folder goes on where it was.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from trifold.errors import Failed, InvalidInput
from trifold.train.record import run_id

QUESTION = "question"
"""The user attribute in which a study keeps what it asks."""

FAILED = "failed"
"""The user attribute in which a trial keeps why its training failed for good."""

WORKER = "worker"
"""The user attribute in which a trial keeps whose it is: the machine's name, the process's number and its beginning."""

HEARTBEAT_SECONDS, LATE_AFTER = 15, 4
"""How often a worker says that it lives, and after how many silent ones its trial is another's."""

Job = tuple[int, int]
"""A training: the candidate's number and the seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of a training. score: larger is better. facts: plain values to keep beside it.

    curve: what was reported, by epoch. stopped: after how many epochs it was stopped early, 0 if it was not; whole:
    whether it was trained to its end, perhaps after a stop. The score of one that is not whole is the last reported.
    failed: why it has no score, which then is no number; empty for all others. It is not tried again.
    """

    score: float
    facts: Mapping[str, Any]
    curve: Mapping[int, float] = field(default_factory=dict)
    stopped: int = 0
    whole: bool = True
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Where a study's trials are kept: an Optuna storage's address, and the study's name in it."""

    url: str
    name: str


class Claim:
    """A training that a worker has, and what of it can be told to the storage before it is finished."""

    def __init__(self, study: optuna.Study, trial: optuna.Trial, job: Job) -> None:
        self.job, self._study, self._trial = job, study, trial

    def report(self, epoch: int, score: float) -> bool:
        """Called after each epoch, from 1 on, with its score; says whether the pruner would stop it."""
        self._trial.report(score, epoch)
        return self._trial.should_prune()

    def note(self, name: str, value: Any) -> None:
        """Keeps a plain value, as one of the facts, for a worker that may have to take the training over."""
        self._trial.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        """What a worker that lost this training noted last; None if there is nothing."""
        for other in reversed(self._study.get_trials(deepcopy=False)):
            if job_of(other) == self.job and name in other.user_attrs:
                return other.user_attrs[name]
        return None


class NoStudy(InvalidInput):
    """The storage has no study of this name."""


class _GaveUp(Exception):
    """Ends a trial whose training has failed for good."""


def open_study(
    storage: Storage,
    question: Mapping[str, Any],
    *,
    pruner: optuna.pruners.BasePruner | None = None,
    heartbeat: int = HEARTBEAT_SECONDS,
) -> optuna.Study:
    """The study of this name, made where there is none. question: plain values, all that its trials' scores depend on.

    pruner: stops weak trainings early; None: none is stopped. heartbeat: seconds, at least 1.

    Raises InvalidInput if the storage cannot be reached or read, or if its study of this name asks something else.
    """
    asked = run_id(question)
    with _refused(storage):
        study = _made(storage, pruner, heartbeat)
        if QUESTION not in study.user_attrs:
            study.set_user_attr(QUESTION, {"digest": asked, **question})
    _check_question(study, storage, asked)
    return study


def load_study(storage: Storage, question: Mapping[str, Any]) -> optuna.Study:
    """The study of this name, to be read. Raises InvalidInput as `open_study` does, and NoStudy where there is none."""
    with _refused(storage):
        try:
            study = optuna.load_study(study_name=storage.name, storage=_address(storage))
        except KeyError:
            none = f"storage {shown(storage)}: has no study {storage.name!r}: nothing was trained"
            raise NoStudy(none) from None
    _check_question(study, storage, run_id(question))
    return study


def shown(storage: Storage) -> str:
    """The storage's address without its password."""
    return _PASSWORD.sub(r"\1***@", storage.url)


_PASSWORD = re.compile(r"(://[^/@:]*:)[^/]*@")


def _address(storage: Storage) -> str:
    """PostgreSQL is spoken to by pg8000, which is BSD-licensed and pure Python; SQLAlchemy's default is not."""
    if storage.url.rstrip("/") in ("sqlite:", "sqlite:///:memory:"):
        raise InvalidInput(f"storage {storage.url}: is kept in memory, where nothing would outlive this command")
    return storage.url.replace("postgresql://", "postgresql+pg8000://", 1)


def _made(storage: Storage, pruner: optuna.pruners.BasePruner | None, heartbeat: int) -> optuna.Study:
    """The study, loaded or made; tried again where workers that begin together make the storage's tables at once."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what a training raises is said by whoever called
    for left in reversed(range(OPENED_TIMES)):
        try:
            with _quiet():
                kept = RDBStorage(_address(storage), heartbeat_interval=heartbeat, grace_period=heartbeat * LATE_AFTER)
            return optuna.create_study(
                storage=kept,
                study_name=storage.name,
                direction="maximize",
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),  # asked nothing: a claim brings its trial's parameters
                pruner=pruner or optuna.pruners.NopPruner(),
            )
        except (DatabaseError, optuna.exceptions.StorageInternalError) as error:
            if not left or not any(words in str(error) for words in _AT_ONCE):
                raise
            time.sleep(random.uniform(0.2, 1.0))
    raise AssertionError


OPENED_TIMES = 8

_AT_ONCE = ("already exists", "UNIQUE constraint", "unique constraint", "locked")
"""What databases say where two make the same tables or rows at once."""


@contextlib.contextmanager
def _refused(storage: Storage) -> Iterator[None]:
    """Within it a storage that cannot be used is one line."""
    try:
        yield
    except InvalidInput:
        raise
    except ImportError as error:
        driver = "pip install 'trifold[postgresql]'" if storage.url.startswith("postgresql://") else str(error)
        reason = f"its driver is not installed: {driver}"
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]  # TypeError: an address without a user
    else:
        return
    raise InvalidInput(f"storage {shown(storage)}: cannot be used: {reason}")


def _check_question(study: optuna.Study, storage: Storage, asked: str) -> None:
    found = study.user_attrs.get(QUESTION, {}).get("digest")
    if found != asked:
        raise InvalidInput(
            f"storage {shown(storage)}: its study {storage.name!r} asks something else ({found}, not {asked}): "
            "give another --out, --name or --storage"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without being told that Optuna's heartbeat is experimental: Optuna is held below 6."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def job_of(trial: FrozenTrial) -> Job | None:
    """The training that a trial stands for; None where another worker took the claim that it was to be."""
    given = trial.system_attrs.get("fixed_params")
    return None if given is None else (int(given["candidate"]), int(given["seed"]))


def finished(study: optuna.Study) -> dict[Job, Trained]:
    """What came of every training so far, those stopped early and those that failed included, in the order of jobs."""
    found: dict[Job, Trained] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)):
        curve, job = dict(sorted(trial.intermediate_values.items())), job_of(trial)
        whole, failed = trial.state == TrialState.COMPLETE, trial.user_attrs.get(FAILED, "")
        if job is None or not (whole or failed or (trial.state == TrialState.PRUNED and curve)):
            continue  # a claim that came to nothing
        stopped = found[job].stopped if job in found else 0 if whole or failed else max(curve)
        score = trial.value if whole else math.nan if failed else curve[max(curve)]
        assert score is not None
        facts = {name: value for name, value in trial.user_attrs.items() if name not in (WORKER, FAILED)}
        if job not in found or not found[job].whole:
            found[job] = Trained(score=score, facts=facts, curve=curve, stopped=stopped, whole=whole, failed=failed)
    return {job: found[job] for job in sorted(found)}


def work(
    study: optuna.Study,
    wanted: Callable[[Mapping[Job, Trained]], Sequence[Job]],
    train: Callable[[Claim], Trained],
    *,
    poll_seconds: float = 2.0,
) -> dict[Job, Trained]:
    """Trains until nothing is wanted any more, beside any other workers, and gives back everything that was trained.

    wanted: which trainings are to come, from what is finished so far.

    What `train` raises ends this worker; its trial is failed, and is wanted again. A worker that was silent for so long
    that another has its trial lets it go. Raises Failed if the storage is lost.
    """
    try:
        return _work(study, wanted, train, poll_seconds)
    except _MASKED as error:
        lost = next((one for one in _chain(error) if isinstance(one, _LOST)), None)
        if lost is None:
            raise
        first = str(lost.__cause__ or lost).strip().splitlines()[0]
        raise Failed(f"the study's storage was lost: {first}; the same command goes on when it is back") from None


_LOST = (optuna.exceptions.StorageInternalError, SQLAlchemyError)

_MASKED = (*_LOST, AssertionError, UnboundLocalError)
"""What a lost storage comes as: Optuna 5 looks at it once more in a `finally`, whose error hides the first."""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _work(
    study: optuna.Study,
    wanted: Callable[[Mapping[Job, Trained]], Sequence[Job]],
    train: Callable[[Claim], Trained],
    poll_seconds: float,
) -> dict[Job, Trained]:
    while jobs := wanted(finished(study)):
        _fail_the_dead(study)
        taken, waiting = (
            {job_of(trial) for trial in study.get_trials(deepcopy=False, states=(state,))}
            for state in (TrialState.RUNNING, TrialState.WAITING)
        )
        free = [job for job in jobs if job not in taken]
        if not free:
            time.sleep(poll_seconds)
            continue
        if free[0] not in waiting:  # as one may be of a worker that died between its claim and its training
            study.enqueue_trial({"candidate": free[0][0], "seed": free[0][1]})
        try:
            study.optimize(lambda trial: _score(study, trial, train), n_trials=1, catch=(_GaveUp,))
        except (ValueError, AssertionError) as error:  # so Optuna says that another worker took the trial for dead
            if not any(str(one).startswith("Cannot tell") for one in _chain(error)):
                raise
    return finished(study)


def _fail_the_dead(study: optuna.Study) -> None:
    """Fails the trials of workers that no longer live."""
    with _quiet():
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        host, _, process = trial.user_attrs.get(WORKER, "").partition(" ")
        dead = host == _host() and _started(process.partition(" ")[0]) != process
        began = trial.datetime_start
        if not host and began is not None:  # its worker died, or dies, before it could say who it is
            dead = abs((datetime.now() - began).total_seconds()) > HEARTBEAT_SECONDS * LATE_AFTER
        if dead:
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError):  # another was faster
                study.tell(trial.number, state=TrialState.FAIL)


def _host() -> str:
    """The machine's name, and where Linux tells it the space in which its processes' numbers hold."""
    space = Path()
    with contextlib.suppress(OSError):
        space = Path("/proc/self/ns/pid").readlink()
    return f"{socket.gethostname()}/{space}"


def _started(process: str) -> str:
    """A process's number with the moment it began, where Linux tells that; only its number if it does not live."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return f"{process} {fields[19]}"
    return process


def _score(study: optuna.Study, trial: optuna.Trial, train: Callable[[Claim], Trained]) -> float:
    """The score of a claimed trial; prunes it where it claims nothing, or an earlier one has the same training."""
    (job,) = (job_of(own) for own in study.get_trials(deepcopy=False) if own.number == trial.number)
    if job is None:
        raise optuna.TrialPruned
    trial.set_user_attr(WORKER, f"{_host()} {_started(str(os.getpid()))}")
    for name in ("candidate", "seed"):  # for whoever looks at the storage
        trial.suggest_int(name, 0, 2**31 - 1)
    live = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL)
    for other in study.get_trials(deepcopy=False, states=live):
        lost = other.state == TrialState.FAIL and FAILED not in other.user_attrs
        if other.number < trial.number and job_of(other) == job and not lost:
            raise optuna.TrialPruned

    found = train(Claim(study, trial, job))
    for name, value in found.facts.items():
        trial.set_user_attr(name, value)
    if found.failed:
        trial.set_user_attr(FAILED, found.failed)
        raise _GaveUp(found.failed)
    if not found.whole:
        raise optuna.TrialPruned
    return found.score
