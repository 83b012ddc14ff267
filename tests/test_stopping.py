"""Weak trainings of a search that stop early: which, what that saves, what it changes; the trainings are planted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trifold import claimed
from trifold.baselines import load
from trifold.claimed import Common
from trifold.cost import cost
from trifold.study.choose import spread
from trifold.study.coefficients import Search, answer, search_from
from trifold.study.directions import Grid, equal_cost
from trifold.study.folder import read_study, write_records, write_study
from trifold.study.page import page
from trifold.study.run import run_study
from trifold.study.search_page import search_notes, sentence
from trifold.train.loop import Epoch
from trifold.train.recipes import find_recipe
from trifold.trials import Job, Storage, Trained, open_study

EPOCHS = 4
BASELINE, ROUNDING = load("efficientnet_b0")
GRID = equal_cost(BASELINE, Grid().directions(), 2 * cost(BASELINE).multiply_adds, rounding=ROUNDING)
PLAN = replace(GRID, candidates=GRID.candidates[::2])
NETWORKS = [replace(one.architecture, name=BASELINE.name) for one in PLAN.candidates]
WEAK = (1, 3, 6)
"""Candidates that end far below the others."""


def search(**changes: Any) -> Search:
    recipe = find_recipe("small", BASELINE, {"epochs": EPOCHS})
    common = Common(recipe=recipe, split_seed=0, data="data", classes=1000, channels=3)
    return replace(Search(baseline=BASELINE, directions=PLAN, common=common, seeds=2), **changes)


class Planted:
    """Stands for `run.train`: epochs that end at 80, of weak candidates at 40; a run that was stopped goes on."""

    def __init__(self) -> None:
        self.done: dict[Path, int] = {}
        self.trained = 0

    def train(
        self, _: Any, plan: Any, *, run_folder: Path, after_epoch: Callable[[Sequence[Epoch]], None], **more: Any
    ) -> Any:
        assert more.keys() == {"machine", "pretrained", "progress"}
        number = NETWORKS.index(replace(plan.architecture, name=BASELINE.name))
        end = (40 if number in WEAK else 80) + 0.1 * number + 0.01 * plan.seed
        epochs = [
            Epoch(
                epoch=i, lr=0.1, train_loss=1.0, minival_loss=1.0, minival_accuracy=(end - 2 * (EPOCHS - i)) / 100,
                seconds=1.0,
            )
            for i in range(1, EPOCHS + 1)
        ]  # fmt: skip
        begun = self.done.get(run_folder, 0)
        if begun:
            after_epoch(epochs[:begun])
        for i in range(begun, EPOCHS):
            self.done[run_folder], self.trained = i + 1, self.trained + 1
            after_epoch(epochs[: i + 1])
        result = SimpleNamespace(
            seconds=6.0, images={"minival": 500, "test": 500}, computed={}, versions={}, minival_accuracy=end / 100
        )
        return SimpleNamespace(result=result, accuracy=end / 100 - 0.01)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    made = Planted()
    monkeypatch.setattr(claimed, "train", made.train)
    return made


def go(study: Search, folder: Path) -> dict[Job, Trained]:
    folder.mkdir(exist_ok=True)
    trials = open_study(Storage(url=f"sqlite:///{folder}/trials.db", name="study"), study.question, pruner=study.pruner)
    dataset: Any = SimpleNamespace(fingerprint="data")
    return run_study(study, dataset, trials, folder=folder)


def test_the_weak_are_stopped_finished_when_asked_for_and_change_nothing_here(planted: Planted, tmp_path: Path) -> None:
    study = search()
    found = go(study, tmp_path)
    stopped = {number for (number, _), one in found.items() if not one.whole}
    first_four = set(spread(study.points)[:4])
    assert set(WEAK) <= stopped | first_four
    assert not stopped & first_four
    assert len(PLAN.candidates) - 1 not in stopped  # the best one
    assert all(one.stopped == len(one.curve) < EPOCHS for one in found.values() if not one.whole)
    assert planted.trained == sum(one.stopped or EPOCHS for one in found.values())
    reached = answer(study, found)
    assert (reached.early.applied, reached.early.known, reached.to_come) == (True, False, 0)
    assert set(reached.early.stopped) == stopped
    left = EPOCHS * len(found) - planted.trained
    assert reached.early.saved == pytest.approx(left / (EPOCHS * len(found)))
    assert reached.candidates == tuple(i for i in range(len(PLAN.candidates)) if i not in stopped)
    assert f"{len(stopped)} were stopped early" in sentence(study, reached)
    assert "--finish-stopped" in search_notes(study, reached)[-1]

    last = search(finish=True)
    assert last.question == study.question
    again = go(last, tmp_path)
    assert planted.trained == EPOCHS * len(found)  # what was stopped went on where it was
    assert all(one.whole for one in again.values())
    assert {number for (number, _), one in again.items() if one.stopped} == stopped
    whole = answer(last, again)
    assert (whole.early.known, whole.early.without) == (True, reached.choice and reached.choice.best)
    assert whole.choice is not None
    assert whole.choice.best not in stopped
    assert search_notes(last, whole)[-1].endswith("With them stopped the answer is the same.")


def test_finishing_from_the_start_stops_as_well(planted: Planted, tmp_path: Path) -> None:
    found = go(search(finish=True), tmp_path)
    assert any(one.stopped for one in found.values())
    assert all(one.whole for one in found.values())
    assert planted.trained == EPOCHS * len(found)


def test_where_none_is_stopped_it_is_worked_out_what_would_have_been(planted: Planted, tmp_path: Path) -> None:
    study = search(stops=False)
    found = go(study, tmp_path / "all")
    assert planted.trained == EPOCHS * len(found)
    reached = answer(study, found)
    assert (reached.early.applied, reached.early.known) == (False, True)
    assert set(reached.early.stopped) == {number for (number, _), one in go(search(), tmp_path / "some").items()
                                          if not one.whole}  # fmt: skip
    assert reached.choice is not None
    assert reached.early.without in (None, reached.choice.best)  # other seeds than there are may have been asked for
    assert "would have saved" in search_notes(study, reached)[-1]


def test_a_study_stopped_at_any_moment_ends_as_one_left_alone(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time another worker's number of epochs, in the middle of a training as well."""

    class Killed(Exception):
        pass

    alone = go(search(), tmp_path / "alone")
    planted.done.clear()
    train, random = planted.train, np.random.default_rng(0)

    def dies(dataset: Any, plan: Any, *, after_epoch: Callable[[Sequence[Epoch]], None], **more: Any) -> Any:
        def told(epochs: Sequence[Epoch]) -> None:
            before = random.random()
            if before < 0.08:
                raise Killed
            after_epoch(epochs)
            if before < 0.16:
                raise Killed

        return train(dataset, plan, after_epoch=told, **more)

    monkeypatch.setattr(claimed, "train", dies)
    deaths = 0
    for _ in range(100):
        try:
            found = go(search(), tmp_path / "killed")
        except Killed:
            deaths += 1
        else:
            break
    assert deaths >= 5
    assert found == alone


def test_a_partial_search_is_reported_and_its_folder_read_again(planted: Planted, tmp_path: Path) -> None:
    study = search()
    found = go(study, tmp_path)
    about = {"data": "data", "command": "trifold coefficients b0 data"}
    write_study(tmp_path, study.question, about)
    for count in (0, 1, 2, 5, len(found)):
        part: Mapping[Job, Trained] = dict(list(found.items())[:count])
        made = page(study, about, part)
        assert made.answer == sentence(study, answer(study, part))
        assert ("Not finished" in " ".join(made.notes)) == (count < len(found))
        write_records(tmp_path, part)
    write_records(tmp_path, {})  # a slower worker's
    kept = read_study(tmp_path)
    assert kept.found == found
    assert search_from(kept.question).question == study.question
    assert json.loads(json.dumps(study.question)) == kept.question
