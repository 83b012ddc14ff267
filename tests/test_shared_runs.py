"""Run folders that several studies share: nothing is trained twice, and what another process trains is waited for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tests.sittings import NETWORK, make_inputs
from tests.tiny import TINY
from trifold import claimed
from trifold.architecture import to_toml
from trifold.claimed import train_claimed
from trifold.cli.study import ablate
from trifold.study.folder import PAGE, read_study
from trifold.study.pieces import Found
from trifold.train.folder import InUse, in_use
from trifold.train.recipes import find_recipe
from trifold.train.record import Plan, read_record

PLAN = Plan(architecture=TINY, recipe=find_recipe("small", TINY, {"epochs": 1}))

HOLDER = """
import sys
from pathlib import Path
from trifold.train.folder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def study(inputs: Path, runs: Path, out: Path, *more: str) -> Found:
    words = [str(inputs / "net.toml"), str(inputs / "data"), "--divisor", "1", "--resolution-step", "1", "--seeds", "1"]
    more = ("--epochs", "1", "--set", "batch_size=16", "--runs", str(runs), "--out", str(out), *more)
    done = CliRunner().invoke(ablate, [*words, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return read_study(out).found


def test_studies_of_one_runs_folder_train_nothing_twice(tmp_path: Path) -> None:
    inputs, runs = make_inputs(tmp_path / "inputs"), tmp_path / "all-runs"
    (inputs / "net.toml").write_text(to_toml(replace(NETWORK, resolution=12)))
    first = study(inputs, runs, tmp_path / "one", "--kinds", "width,resolution", "--factors", "2")
    kept = {path.name: (path / "record.json").stat().st_mtime_ns for path in runs.iterdir()}
    second = study(inputs, runs, tmp_path / "deep" / "two", "--kinds", "width", "--factors", "2,4")
    everything = {path.name: (path / "record.json").stat().st_mtime_ns for path in runs.iterdir()}
    assert (len(first), len(second), len(everything)) == (3, 3, 4)
    assert {name: everything[name] for name in kept} == kept

    def results(found: Found) -> dict[str, tuple[float, Any]]:
        return {Path(one.facts["run"]).name: (one.score, one.curve) for one in found.values()}

    shared = results(first).keys() & results(second).keys()
    assert len(shared) == 2
    assert all(results(first)[run] == results(second)[run] for run in shared)
    for out, found in ((tmp_path / "one", first), (tmp_path / "deep" / "two", second)):
        for one in found.values():
            assert 100 * read_record(out / one.facts["run"] / "record.json").result.minival_accuracy == one.score
            assert f'href="{one.facts["run"]}/{PAGE}"' in (out / PAGE).read_text("utf-8")


class Claimed:
    """Stands for a claim whose reports nobody reads."""

    job = (0, 0)

    def report(self, epoch: int, score: float) -> bool:  # noqa: ARG002  as a claim's
        return False


def claim_run(folder: Path, plan: Plan) -> str:
    claim: Any = Claimed()
    dataset: Any = SimpleNamespace(fingerprint="data")
    return str(train_claimed(claim, plan, dataset, folder=folder).facts["run"])


class Trainings:
    """Stands for `run.train`: refuses as often as it is told to, as where another process has the run folder."""

    def __init__(self) -> None:
        self.refuses = self.calls = 0

    def train(self, _: Any, plan: Plan, *, run_folder: Path, **more: Any) -> Any:  # noqa: ARG002  as `run.train`'s
        self.calls += 1
        if self.calls <= self.refuses:
            raise InUse(f"{run_folder}: is being written to")
        more["after_epoch"]([SimpleNamespace(epoch=1, seconds=1.0, minival_accuracy=0.5)])
        result = SimpleNamespace(seconds=1.0, images={}, computed={}, versions={}, minival_accuracy=0.5)
        return SimpleNamespace(result=result, accuracy=0.5)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    made = Trainings()
    monkeypatch.setattr(claimed, "train", made.train)
    monkeypatch.setattr(claimed, "POLL_SECONDS", 0.01)
    return made


def test_a_run_is_named_by_what_it_is(trainings: Trainings, tmp_path: Path) -> None:
    runs = [
        claim_run(tmp_path, plan)
        for plan in (
            PLAN,
            replace(PLAN, architecture=replace(TINY, name="another name")),
            replace(PLAN, seed=1),
            replace(PLAN, recipe=replace(PLAN.recipe, lr=0.01)),
            replace(PLAN, architecture=replace(TINY, resolution=TINY.resolution + 2)),
        )
    ]
    assert runs[0] == runs[1]
    assert len(set(runs)) == 4
    network = runs[0].partition("-seed-")[0]
    assert [run.startswith(network) for run in runs] == [True, True, True, True, False]


def test_a_run_of_another_process_is_waited_for(
    trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.refuses = 2
    folder = tmp_path / claim_run(tmp_path, PLAN)
    assert trainings.calls == 3

    folder.mkdir(parents=True)
    assert not in_use(folder)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    assert in_use(folder)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            holder.communicate()

    monkeypatch.setattr("trifold.claimed.time.sleep", sleep)
    trainings.calls, trainings.refuses = 0, 0
    claim_run(tmp_path, PLAN)
    assert len(waits) == 3
    assert trainings.calls == 1
    assert not in_use(folder)
