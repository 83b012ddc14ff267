"""Trials that workers share: claims, deaths, and what is refused."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests import postgres
from trifold.errors import Failed, InvalidInput
from trifold.study.choose import Score, scores_of
from trifold.trials import Claim, Job, Storage, Trained, finished, job_of, open_study, work

QUESTION = {"kind": "test", "of": [1, 2.5, "three"]}


def storage(folder: Path, name: str = "study") -> Storage:
    return Storage(url=f"sqlite:///{folder / 'trials.db'}", name=name)


def wanted(found: Mapping[Job, Trained]) -> list[Job]:
    return [(candidate, seed) for candidate in range(3) for seed in range(2) if (candidate, seed) not in found]


def test_every_training_is_done_once_and_kept_with_its_facts(tmp_path: Path) -> None:
    study, trained = open_study(storage(tmp_path), QUESTION), []

    def train(claim: Claim) -> Trained:
        job = claim.job
        trained.append(job)
        return Trained(score=10 * job[0] + job[1], facts={"run": f"{job[0]}-{job[1]}"})

    found = work(study, wanted, train)
    assert trained == list(found) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [one.score for one in found.values()] == [0, 1, 10, 11, 20, 21]
    assert found[2, 1].facts == {"run": "2-1"}
    again = open_study(storage(tmp_path), QUESTION)
    assert work(again, wanted, lambda _: pytest.fail("nothing is left")) == found
    assert scores_of(found)[3] == Score(candidate=1, seed=1, score=11)


def test_what_a_training_raises_ends_the_worker_and_the_training_is_wanted_again(tmp_path: Path) -> None:
    study = open_study(storage(tmp_path), QUESTION)

    def fail(claim: Claim) -> Trained:
        if claim.job == (1, 0):
            raise InvalidInput("no such thing")
        return Trained(score=1, facts={})

    with pytest.raises(InvalidInput, match="no such thing"):
        work(study, wanted, fail)
    assert list(finished(study)) == [(0, 0), (0, 1)]
    assert len(work(study, wanted, lambda _: Trained(score=2, facts={}))) == 6


def test_a_waiting_claim_of_a_dead_worker_is_used(tmp_path: Path) -> None:
    study = open_study(storage(tmp_path), QUESTION)
    study.enqueue_trial({"candidate": 0, "seed": 0})
    work(study, wanted, lambda _: Trained(score=1, facts={}))
    assert len(study.trials) == 6
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_claim_whose_worker_died_before_it_could_say_who_it_is_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(storage(tmp_path), QUESTION)
    study.enqueue_trial({"candidate": 0, "seed": 0})
    study.ask()
    monkeypatch.setattr("trifold.trials.HEARTBEAT_SECONDS", 0.1)
    found = work(study, wanted, lambda _: Trained(score=1, facts={}), poll_seconds=0.2)
    assert list(found) == wanted({})
    assert [trial.state for trial in study.trials].count(TrialState.FAIL) == 1


def test_of_two_claims_of_one_training_the_earlier_has_it(tmp_path: Path) -> None:
    study = open_study(storage(tmp_path), QUESTION)
    study.enqueue_trial({"candidate": 0, "seed": 0})
    study.enqueue_trial({"candidate": 0, "seed": 0})
    trained = []

    def train(claim: Claim) -> Trained:
        job = claim.job
        trained.append(job)
        return Trained(score=1, facts={})

    work(study, wanted, train)
    assert len(trained) == len(set(trained)) == 6


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_worker_whose_claim_another_took_claims_anew(tmp_path: Path) -> None:
    study = open_study(storage(tmp_path), QUESTION)
    study.ask()  # as when another worker was faster: no claim is waiting, so that Optuna makes a trial of its own
    trained = []

    def train(claim: Claim) -> Trained:
        job = claim.job
        trained.append(job)
        if len(trained) == 1:  # another worker takes this one's next claim
            study.enqueue_trial({"candidate": 0, "seed": 1})
            study.ask()
            study.tell(study.trials[-1].number, 7.0)
        return Trained(score=1, facts={})

    found = work(study, wanted, train)
    assert list(found) == wanted({})
    assert found[0, 1].score == 7
    assert (0, 1) not in trained


def test_a_weak_training_is_stopped_kept_as_such_and_can_be_finished(tmp_path: Path) -> None:
    pruner = optuna.pruners.PercentilePruner(50.0, n_startup_trials=1, n_warmup_steps=2)
    study, levels, finish = open_study(storage(tmp_path), QUESTION, pruner=pruner), (60.0, 80.0, 40.0), False

    def train(claim: Claim) -> Trained:
        job = claim.job
        curve = {}
        for epoch in range(1, 5):
            curve[epoch] = levels[job[0]] + epoch
            if claim.report(epoch, curve[epoch]) and not finish:
                return Trained(score=curve[epoch], facts={"run": "half"}, curve=curve, stopped=epoch, whole=False)
        return Trained(score=curve[4], facts={"run": "whole"})

    def first(found: Mapping[Job, Trained]) -> list[Job]:
        return [(candidate, 0) for candidate in range(3) if (candidate, 0) not in found]

    found = work(study, first, train)
    assert [(one.whole, one.stopped, one.score) for one in found.values()] == [
        (True, 0, 64.0), (True, 0, 84.0), (False, 2, 42.0),
    ]  # fmt: skip
    assert found[2, 0].curve == {1: 41.0, 2: 42.0}
    assert found[2, 0].facts == {"run": "half"}
    assert [one.candidate for one in scores_of(found)] == [0, 1]
    finish = True
    again = work(study, lambda found: [] if found[2, 0].whole else [(2, 0)], train)
    assert (again[2, 0].whole, again[2, 0].stopped, again[2, 0].score) == (True, 2, 44.0)
    assert list(again[2, 0].curve) == [1, 2, 3, 4]
    assert [again[candidate, 0] for candidate in (0, 1)] == [found[candidate, 0] for candidate in (0, 1)]


def test_a_study_that_asks_something_else_is_refused(tmp_path: Path) -> None:
    open_study(storage(tmp_path), QUESTION)
    with pytest.raises(InvalidInput, match=r"its study 'study' asks something else .* give another --out"):
        open_study(storage(tmp_path), {**QUESTION, "kind": "other"})
    open_study(storage(tmp_path, "second"), {**QUESTION, "kind": "other"})


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////no/such/folder/trials.db",
        "nothing://here",
        "postgresql://me@127.0.0.1:9/none",
        "postgresql://127.0.0.1:9/none",
        "trials.db",
    ],
)
def test_a_storage_that_is_not_there_is_one_line(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"storage .*: cannot be used: ") as caught:
        open_study(Storage(url=url, name="study"), QUESTION)
    assert "\n" not in str(caught.value)


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(InvalidInput, match=r"its driver is not installed: pip install 'trifold\[postgresql\]'"):
        open_study(Storage(url="postgresql://me@127.0.0.1:9/none", name="study"), QUESTION)


WORKER = """
import sys, time
from trifold.trials import *
study = open_study(Storage(url=sys.argv[1], name="study"), {"kind": "shared"}, heartbeat=10)
def train(claim):
    job = claim.job
    print("train", *job, flush=True)
    time.sleep(float(sys.argv[2]))
    return Trained(score=sum(job), facts={"by": sys.argv[3]})
def wanted(found):
    return [(candidate, 0) for candidate in range(8) if (candidate, 0) not in found]
work(study, wanted, train, poll_seconds=0.2)
"""


def worker(url: str, seconds: float, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, url, str(seconds), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A storage that several processes use."""
    if request.param == "sqlite":
        yield storage(tmp_path)
        return
    if not postgres.available():
        pytest.skip("no PostgreSQL server on this machine")
    with postgres.server() as url:
        yield Storage(url=url, name="study")


def test_three_workers_share_one_is_killed_and_its_trial_is_taken_over(shared: Storage) -> None:
    where = shared
    study = open_study(where, {"kind": "shared"}, heartbeat=10)
    workers = [worker(where.url, 600, "killed")]
    assert workers[0].stdout is not None
    line = workers[0].stdout.readline()
    assert line.startswith("train"), workers[0].communicate()
    lost = int(line.split()[1])
    workers += [worker(where.url, 0.3, name) for name in ("second", "third")]
    time.sleep(0.5)
    os.kill(workers[0].pid, signal.SIGKILL)
    said = [one.communicate(timeout=120) for one in workers]
    assert [one.returncode for one in workers[1:]] == [0, 0], said
    done = [line for out, _ in said[1:] for line in out.splitlines()]
    assert sorted(done) == [f"train {candidate} 0" for candidate in range(8)]  # each once, that of the dead one too
    found = finished(study)
    assert [job for job, _ in found.items()] == [(candidate, 0) for candidate in range(8)]
    assert found[lost, 0].facts["by"] in ("second", "third")
    failed = [trial for trial in study.get_trials() if trial.state == TrialState.FAIL]
    assert [job_of(trial) for trial in failed] == [(lost, 0)]
    backend: Any = study._storage
    backend._backend.engine.dispose()  # before the server stops


def test_the_storage_is_optunas_own(tmp_path: Path) -> None:
    work(open_study(storage(tmp_path), QUESTION), wanted, lambda claim: Trained(score=claim.job[0], facts={}))
    loaded = optuna.load_study(study_name="study", storage=storage(tmp_path).url)
    assert loaded.best_trial.params["candidate"] == 2


def test_a_training_that_failed_for_good_is_kept_with_its_reason_and_not_tried_again(tmp_path: Path) -> None:
    study, tried = open_study(storage(tmp_path), QUESTION), []

    def train(claim: Claim) -> Trained:
        tried.append(claim.job)
        if claim.job == (1, 0):
            return Trained(score=0, facts={"of": "it"}, failed="the loss is nan")
        return Trained(score=1, facts={})

    found = work(study, wanted, train)
    assert len(tried) == len(found) == 6
    assert found[1, 0].failed == "the loss is nan"
    assert found[1, 0].facts == {"of": "it"}
    assert found[1, 0].score != found[1, 0].score  # no number
    assert [job for job, one in found.items() if one.failed] == [(1, 0)]
    assert Score(candidate=1, seed=0, score=1) not in scores_of({(1, 0): found[1, 0]})


def test_what_a_lost_worker_noted_is_there_for_the_next(tmp_path: Path) -> None:
    study = open_study(storage(tmp_path), QUESTION)

    def lost(claim: Claim) -> Trained:
        assert claim.noted("tokens") is None
        claim.note("tokens", [1, 2, 3])
        raise InvalidInput("the lights went out")

    with pytest.raises(InvalidInput):
        work(study, wanted, lost)
    seen = []

    def again(claim: Claim) -> Trained:
        seen.append((claim.job, claim.noted("tokens")))
        return Trained(score=1, facts={})

    found = work(study, wanted, again)
    assert seen[0] == ((0, 0), [1, 2, 3])
    assert [noted for _, noted in seen[1:]] == [None] * 5
    assert "tokens" not in found[1, 0].facts


def test_a_worker_whose_trial_another_took_for_dead_lets_it_go_and_goes_on(tmp_path: Path) -> None:
    study, tried = open_study(storage(tmp_path), QUESTION), []

    def train(claim: Claim) -> Trained:
        tried.append(claim.job)
        if len(tried) == 2:  # as another worker's look, where no sign of life came for a minute
            other = optuna.load_study(study_name="study", storage=storage(tmp_path).url)
            other.tell(other.trials[-1].number, state=TrialState.FAIL)
        return Trained(score=1, facts={})

    found = work(study, wanted, train)
    assert len(found) == 6
    assert len(tried) == 7
    assert sorted(set(tried)) == sorted(found)


def test_a_storage_that_is_lost_while_a_training_runs_is_one_line(tmp_path: Path) -> None:
    study = open_study(storage(tmp_path), QUESTION)

    def train(claim: Claim) -> Trained:
        with sqlite3.connect(storage(tmp_path).url.removeprefix("sqlite:///")) as file:
            file.execute("alter table trial_values rename to lost")
        return Trained(score=1, facts={})

    with pytest.raises(Failed, match=r"the study's storage was lost: .*; the same command goes on when it is back"):
        work(study, wanted, train)
