"""An architecture search from candidates to answer, its trainings planted; the contest, the page and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from tests.sittings import make_inputs
from tests.test_search_run import MEASURES, SPACE, asked, planted
from trifold import claimed
from trifold.architecture import Architecture, read, to_toml
from trifold.baselines import load
from trifold.cli import search as command
from trifold.cli.study import report
from trifold.cost import cost
from trifold.errors import Failed, InvalidInput
from trifold.search.judges import by_training
from trifold.search.question import EVALUATORS
from trifold.search.reward import Target
from trifold.search.run import Length, ranked, run_search, spent
from trifold.search.samplers import SAMPLERS
from trifold.study.architecture_page import answered, architecture_notes, architecture_page
from trifold.study.contest import (
    BASELINE,
    FOUND,
    RANDOM,
    SAMPLE,
    Rules,
    at_cost,
    contest_from,
    make_contest,
    outcome,
    rank,
)
from trifold.study.folder import read_study, write_study
from trifold.study.page import draw
from trifold.study.searched import Extent, Searched, kept_search
from trifold.study.whole import Sitting
from trifold.train.assemble import Progress
from trifold.train.loop import Diverged, Epoch
from trifold.train.recipes import find_recipe
from trifold.trials import NoStudy, Storage, open_study


class Trainings:
    """Stands for `run.train`: full trainings reach what is planted and a little by the seed, short ones two thirds."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.epochs: list[int] = []
        self.dies_at: int | None = None
        self.failing: frozenset[int] = frozenset()

    def train(
        self, _: Any, plan: Any, *, run_folder: Path, after_epoch: Callable[[Sequence[Epoch]], None], **more: Any
    ) -> Any:
        assert more.keys() == {"machine", "pretrained", "progress"}
        if len(self.names) == self.dies_at:
            raise Failed("the lights went out")
        self.names.append(run_folder.name)
        self.epochs.append(plan.recipe.epochs)
        if len(self.names) - 1 in self.failing:
            raise Diverged("the loss is nan")
        full = planted(plan.architecture) + 0.3 * plan.seed
        share = (full if plan.recipe.epochs > 2 else full / 1.5) / 100
        epoch = Epoch(
            epoch=1, lr=0.1, train_loss=1.0, minival_loss=1.0, minival_accuracy=share, seconds=1.0
        )  # fmt: skip
        after_epoch([epoch])
        result = SimpleNamespace(
            seconds=6.0, images={"minival": 500, "test": 500}, computed={"threads": 1}, versions={"torch": "2"},
            minival_accuracy=share,
        )  # fmt: skip
        return SimpleNamespace(result=result, accuracy=share - 0.01)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    made = Trainings()
    monkeypatch.setattr(claimed, "train", made.train)
    return made


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A finished search, to be looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claimed, "train", Trainings().train)
        return sitting(tmp_path_factory.mktemp("done") / "s").go(ABOUT)


ABOUT = {"data": "photos", "command": "trifold search photos"}
FULL = replace(asked().common.recipe, epochs=6)
SHORT = replace(asked().common, recipe=replace(FULL, epochs=2))


def sitting(
    folder: Path, *, candidates: int = 6, beside: bool = True, rules: Rules | None = None, **changes: Any
) -> Sitting:
    dataset: Any = SimpleNamespace(fingerprint="data")
    return Sitting(
        search=asked(common=SHORT, **changes),
        extent=Extent(
            candidates=candidates, beside=beside, rules=rules or Rules(finalists=2, seeds=2, sample=5), recipe=FULL
        ),
        dataset=dataset,
        storage=Storage(url=f"sqlite:///{folder.resolve()}/trials.db", name="study"),
        folder=folder,
        measures=MEASURES,
    )


def test_a_search_goes_from_candidates_to_its_answer(trainings: Trainings, tmp_path: Path) -> None:
    said: list[str] = []

    def say(line: str) -> AbstractContextManager[Progress | None]:
        said.append(line)
        return nullcontext()

    part = sitting(tmp_path / "s")
    part.say = say
    done = part.go(ABOUT)
    assert len(done.found) == 6
    assert spent(done.beside) >= spent(done.found)
    assert done.contest is not None
    assert done.outcome is not None
    roles = [one.roles for one in done.contest.entrants]
    assert sum(FOUND in own for own in roles) == sum(RANDOM in own for own in roles) == 2
    assert sum(BASELINE in own for own in roles) == 1
    for number, one in enumerate(done.contest.entrants):
        seeds = 1 if one.roles == (SAMPLE,) else 2
        assert [seed for n, seed in done.full if n == number] == list(range(seeds))
    best = done.contest.entrants[done.outcome.chosen[FOUND]].architecture
    of_found = [one.architecture for one in done.contest.entrants if FOUND in one.roles]
    assert best == max(of_found, key=lambda one: worth(one))
    assert read(tmp_path / "s" / "found.toml") == replace(best, name="small-found")
    assert done.outcome.rank is not None
    assert done.outcome.rank.tau == pytest.approx(1)  # the planted short trainings rank as the full ones
    assert "ranks full trainings" in answered(done)
    assert all("test" not in one.facts for one in (*done.found.values(), *done.beside.values()))
    assert any("to come" in line and "the best so far is" in line for line in said)
    assert said[-1].startswith("full training")


def worth(architecture: Architecture) -> float:
    spends = cost(architecture, num_classes=10).multiply_adds
    return float(planted(architecture) * (spends / 900_000) ** -0.07)


@pytest.mark.parametrize("deaths", [(0, 3, 7, 6)])
def test_a_search_that_died_often_gives_the_same_records(
    trainings: Trainings, tmp_path: Path, deaths: tuple[int, ...]
) -> None:
    for death in deaths:
        trainings.names, trainings.dies_at = [], death
        with pytest.raises(Failed, match="the lights"):
            sitting(tmp_path / "often").go(ABOUT)
    trainings.dies_at = None
    sitting(tmp_path / "often").go(ABOUT)
    sitting(tmp_path / "whole").go(ABOUT)
    names = {
        path.name for path in (tmp_path / "whole").iterdir() if path.suffix in (".json", ".jsonl", ".toml", ".html")
    }
    assert len(names) == 6
    for name in names:
        assert (tmp_path / "often" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_other_workers_finished_meanwhile_changes_nothing(trainings: Trainings, tmp_path: Path) -> None:
    done = sitting(tmp_path / "s").go(ABOUT)
    one = sitting(tmp_path / "s")
    beside = replace(one.search, sampler="random")
    trials = open_study(replace(one.storage, name="study-random"), beside.question)
    judge = by_training(beside, one.dataset, folder=one.folder)
    more = run_search(beside, trials, judge, measures=MEASURES, length=Length(candidates=len(done.beside) + 2))
    assert len(more) == len(done.beside) + 2
    trainings.names = []
    again = one.go(ABOUT)
    assert again.contest == done.contest
    assert again.beside == done.beside
    assert not trainings.names


def test_whole_numbers_for_fractions_are_the_same_recipe(trainings: Trainings, tmp_path: Path) -> None:
    part = sitting(tmp_path / "s")
    part.extent = replace(part.extent, recipe=find_recipe("small", part.search.space.baseline, {"rotation": 0}))
    done = part.go(ABOUT)
    kept = kept_search(tmp_path / "s", read_study(tmp_path / "s"))
    assert kept.full.keys() == done.full.keys() != set()


def test_the_page_is_made_of_the_folder_alone(trainings: Trainings, tmp_path: Path) -> None:
    trainings.failing = frozenset({2})
    done = sitting(tmp_path / "s").go(ABOUT)
    kept = kept_search(tmp_path / "s", read_study(tmp_path / "s"))
    assert kept.found.keys() == done.found.keys()
    assert math.isnan(kept.found[2, 0].score)
    assert architecture_page(kept, ABOUT) == architecture_page(done, ABOUT)
    page = draw(tmp_path / "s").read_text("utf-8")
    assert "1 candidates failed and were left out (2: the loss is nan)" in page
    for title in ("Accuracy against cost", "The best so far", "Trained in full", "as Table 1"):
        assert title in page
    again = CliRunner().invoke(report, [str(tmp_path / "s")])
    assert again.exit_code == 0
    assert (tmp_path / "s" / "report.html").read_text("utf-8") == page


def test_what_is_finished_can_be_collected_at_any_time(trainings: Trainings, tmp_path: Path) -> None:
    empty = tmp_path / "none"
    empty.mkdir()
    with pytest.raises(NoStudy, match="nothing was trained"):
        sitting(empty).collect(ABOUT)
    for death, finished in ((0, 0), (3, 3), (8, 6)):
        trainings.names, trainings.dies_at = [], death
        with pytest.raises(Failed):
            sitting(tmp_path / "s").go(ABOUT)
        trainings.dies_at = 0  # collecting trains nothing
        done = sitting(tmp_path / "s").collect(ABOUT)
        assert len(done.found) >= finished
        assert answered(done)
        assert (tmp_path / "s" / "report.html").exists()


def test_a_search_can_be_made_longer(trainings: Trainings, tmp_path: Path) -> None:
    short = sitting(tmp_path / "s", candidates=3, beside=False).go(ABOUT)
    trainings.epochs = []
    longer = sitting(tmp_path / "s", candidates=5, beside=False).go(ABOUT)
    assert dict(list(longer.found.items())[:3]) == dict(short.found)
    assert longer.outcome is not None
    assert longer.outcome.to_come == 0
    assert trainings.epochs.count(2) == 2
    assert json.loads((tmp_path / "s" / "study.json").read_text())["about"]["extent"]["candidates"] == 5


def test_where_everything_fails_there_is_nothing_to_train_in_full(trainings: Trainings, tmp_path: Path) -> None:
    trainings.failing = frozenset(range(6))
    done = sitting(tmp_path / "s").go(ABOUT)
    assert (done.contest, done.chosen, ranked(done.found)) == (None, None, ())
    assert answered(done) == "No candidate has been evaluated yet."
    assert any("6 candidates failed" in note for note in architecture_notes(done))
    with pytest.raises(InvalidInput, match="no candidate was evaluated without failing"):
        make_contest(done.search, done.found, {}, SHORT, Rules())


def test_one_seed_is_a_smoke_test_and_judges_nothing(trainings: Trainings, tmp_path: Path) -> None:
    done = sitting(tmp_path / "s", rules=Rules(finalists=1, seeds=1, sample=0), beside=False).go(ABOUT)
    assert done.outcome is not None
    assert {one.verdict for one in done.outcome.differences} <= {"not judged", "the same network"}
    assert done.outcome.rank is None
    assert any("One seed: a smoke test" in note for note in architecture_notes(done))


def test_a_contest_survives_plain_values(done: Searched) -> None:
    assert done.contest is not None
    assert contest_from(json.loads(json.dumps(done.contest.question))) == done.contest


def test_finalists_are_weighed_by_a_cost_of_ones_own_as_well(done: Searched) -> None:
    assert done.contest is not None
    finalists = [number for number, one in enumerate(done.contest.entrants) if FOUND in one.roles]
    search = replace(done.search, targets=(Target(measure="joules", value=1, below=-10, above=-10),))
    for cheap in finalists:  # whichever costs a tenth of the others is chosen, by costs that only the search knew
        entrants = tuple(
            replace(one, costs={} if BASELINE in one.roles else {"joules": 0.1 if number == cheap else 1.0})
            for number, one in enumerate(done.contest.entrants)
        )
        reached = outcome(search, replace(done.contest, entrants=entrants), done.full)
        assert reached.chosen[FOUND] == cheap
        assert math.isnan(reached.worth[reached.chosen[BASELINE]])
    assert all(one.costs.keys() == MEASURES.keys() for one in done.contest.entrants)


def test_every_finalist_has_a_baseline_of_its_cost_which_it_is_compared_with(done: Searched) -> None:
    assert done.contest is not None
    entrants = done.contest.entrants
    finalists, baselines = (
        {n: one.costs["multiply_adds"] for n, one in enumerate(entrants) if role in one.roles}
        for role in (FOUND, BASELINE)
    )
    chosen = set()
    for best, costs in finalists.items():
        full = {job: replace(one, score=90.0 if job[0] == best else 10.0) for job, one in done.full.items()}
        reached = replace(done, full=full).outcome
        assert reached is not None
        assert reached.chosen[FOUND] == best
        nearest = min(baselines, key=lambda n: abs(baselines[n] - costs))
        assert reached.chosen[BASELINE] == nearest
        made = at_cost(done.search, int(costs))
        assert replace(entrants[nearest].architecture, name=made.name) == made
        chosen.add(nearest)
        unmeasured = replace(done, full={job: one for job, one in full.items() if job[0] != nearest}).outcome
        assert unmeasured is not None
        assert BASELINE not in unmeasured.chosen  # rather than one of another cost
    assert chosen == set(baselines)


def test_finalists_are_chosen_by_minival_and_reward_alone(done: Searched) -> None:
    assert done.outcome is not None
    full = {job: replace(one, facts={**one.facts, "test": 0.0}) for job, one in done.full.items()}
    worse = replace(done, full=full).outcome
    assert worse is not None
    assert worse.chosen == done.outcome.chosen


@pytest.mark.parametrize("factor", [0.4, 0.8, 1.01, 1.5, 3.0])
def test_the_baseline_is_brought_to_a_cost(factor: float) -> None:
    search = asked(space=replace(SPACE, rounding=replace(SPACE.rounding, divisor=1, resolution_step=1)))
    own = cost(search.space.baseline, num_classes=10).multiply_adds
    made = at_cost(search, round(factor * own))
    assert cost(made, num_classes=10).multiply_adds / own == pytest.approx(factor, rel=0.035)
    if factor == 1.01:
        assert made == search.space.baseline


def test_the_rank_correlation_has_an_interval() -> None:
    same = rank(range(10), range(10))
    assert same.tau == pytest.approx(1)
    assert same.verdict == "ranks"
    assert rank(range(10), [-n for n in range(10)]).verdict == "is not shown to rank"
    mixed = rank(range(12), [3, 0, 5, 1, 9, 2, 7, 11, 4, 8, 6, 10])
    assert mixed.low < mixed.tau < mixed.high
    equal = rank([1.0] * 6, range(6))
    assert (equal.tau, equal.low, equal.high) == (0, 0, 0)
    assert equal.verdict == "is not shown to rank"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_the_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    expected = float(kendalltau(first, second).statistic)
    assert rank(first, second).tau == pytest.approx(0 if math.isnan(expected) else expected)


@pytest.mark.parametrize("field", ["finalists", "seeds", "sample"])
def test_rules_out_of_range_are_one_line(field: str) -> None:
    with pytest.raises(InvalidInput, match=f"{field} must be a whole number from"):
        Rules(**{field: -1})


def test_the_commands_choices_are_the_librarys() -> None:
    assert set(command.SAMPLERS) == set(SAMPLERS)
    assert set(command.EVALUATORS) == set(EVALUATORS)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(command.search, list(words))


def test_a_plan_prints_the_space_and_the_hours() -> None:
    done = invoke("digits", "--plan", "--baseline", "efficientnet_mini", "--limit", "multiply-adds=4M")
    assert done.exit_code == 0
    assert "different networks" in done.output
    assert "of random choices are within the limits" in done.output
    assert "100 candidates of 2 epochs: about" in done.output
    assert "then at most 37 full trainings of 25 epochs" in done.output
    asked_json = invoke("digits", "--plan", "--json", "--baseline", "efficientnet_mini")
    assert json.loads(asked_json.output)["choices"] == 648**5


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--target", "multiply-adds"], "--target must have the form COST=VALUE[:W], as multiply-adds=400M, got"),
        (["--target", "multiply-adds=many"], "--target must have the form COST=VALUE[:W]"),
        (["--target", "multiply-adds=1M:0.5"], "weight below must be a number from -10 to 0, got 0.5"),
        (["--target", "multiply-adds=1M:-1", "--hard"], "must have no weight with --hard"),
        (["--limit", "multiply-adds=1M:-1"], "--limit must have the form COST=MOST"),
        (["--limit", "multiply-adds=0"], "limit multiply_adds must be a number above 0, got 0.0"),
        (["--limit", "multiply-adds=10k"], "limit multiply_adds must be one that the space can meet, whose least is"),
        (["--target", "joules=1"], "measure must be multiply_adds or parameters or activations, got 'joules'"),
        (["--measure", "joules"], "--measure must have the form COST=MODULE:FUNCTION, got 'joules'"),
        (["--measure", "joules=no_such_module:f"], "cannot be had: No module named 'no_such_module'"),
        (["--measure", "joules=math:pi"], "must be a function of an Architecture, got 3.14"),
        (["--space", "none.toml"], "none.toml: cannot be read: No such file"),
        (["--baseline", "none.toml"], "none.toml"),
    ],
)
def test_what_makes_no_sense_is_one_line(words: list[str], complaint: str) -> None:
    done = invoke("digits", "--plan", "--baseline", "efficientnet_mini", *words)
    assert isinstance(done.exception, InvalidInput)
    assert complaint in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_measure_of_ones_own_is_weighed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_device.py").write_text("def milliseconds(net):\n    return 0.1 * net.num_blocks\n")
    monkeypatch.chdir(tmp_path)
    words = ("--measure", "latency=my_device:milliseconds", "--limit", "latency=1.0", "--target", "latency=0.8:-0.07")
    done = invoke("digits", "--plan", "--baseline", "efficientnet_mini", *words)
    assert done.exit_code == 0, done.exception
    assert "latency" in done.output


def test_the_command_searches_trains_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.toml").write_text("[every_stage]\nkernel_size = [3, 5]\nexpand_ratio = [1, 2]\n")
    words = [
        "data", "--baseline", "tiny.toml", "--space", "space.toml", "--candidates", "2", "--short-epochs", "1",
        "--epochs", "2", "--finalists", "1", "--seeds", "1", "--sample", "0", "--set", "batch_size=16",
        "--out", "found", "--target", "multiply-adds=100k", "--sampler", "random",
    ]  # fmt: skip
    done = invoke(*words)
    assert done.exit_code == 0, done.exception
    assert "One seed: a smoke test" in done.output
    again = invoke(*words, "--json")
    found = json.loads(again.stdout)
    assert len(found["candidates"]) == 2
    assert (tmp_path / "found" / "found.toml").read_text() == to_toml(load("found/found.toml")[0])
    collected = invoke(*words, "--collect")
    assert collected.exit_code == 0
    assert (tmp_path / "found" / "report.html").exists()


def test_a_supernet_judges_and_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.toml").write_text(
        "[every_stage]\nkernel_size = [3, 5]\nexpand_ratio = [1, 2]\nlayers = [-1, 0]\n"
    )
    words = [
        "data", "--baseline", "tiny.toml", "--space", "space.toml", "--candidates", "3", "--short-epochs", "1",
        "--evaluator", "supernet", "--set", "batch_size=16", "--out", "found", "--no-full", "--no-random", "--json",
    ]  # fmt: skip
    done = invoke(*words)
    assert done.exit_code == 0, done.exception
    supernet = tmp_path / "found" / "supernet"
    weights = (supernet / "weights.safetensors").stat().st_mtime_ns
    found = json.loads(done.stdout)["candidates"]
    assert len(found) == 3
    assert all(0 <= one["accuracy"] <= 100 and "run" not in one for one in found)
    longer = invoke(*words, "--candidates", "4")
    assert json.loads(longer.stdout)["candidates"][:3] == found
    assert (supernet / "weights.safetensors").stat().st_mtime_ns == weights
    assert "their part of a shared network" in (tmp_path / "found" / "report.html").read_text("utf-8")


def test_a_folder_of_another_search_is_refused(trainings: Trainings, tmp_path: Path) -> None:
    write_study(tmp_path / "s", {"kind": "other"}, ABOUT)
    with pytest.raises(InvalidInput, match="holds a study that asks something else"):
        sitting(tmp_path / "s").go(ABOUT)
    assert not trainings.names
