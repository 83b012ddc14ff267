"""A search at work, its candidates' accuracies planted: costs, limits, failures, going on, and what a worker leaves."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trifold.architecture import Architecture, Head, Stage, Stem
from trifold.claimed import Common
from trifold.cost import cost
from trifold.errors import InvalidInput
from trifold.search.question import Search, question_from
from trifold.search.reward import Limit, Target, reward
from trifold.search.run import Evaluate, Length, first_for, front, proposal, ranked, run_search, spent
from trifold.search.samplers import SAMPLERS
from trifold.search.space import around
from trifold.search.survey import measures_of, survey, within
from trifold.train.assemble import Progress
from trifold.train.loop import Diverged
from trifold.train.recipes import find_recipe
from trifold.trials import Claim, Job, Storage, Trained, finished, open_study, work

BASELINE = Architecture(
    name="small",
    resolution=16,
    stem=Stem(channels=8, stride=1),
    stages=(
        Stage(operator="mbconv", channels=8, layers=1),
        Stage(operator="mbconv", channels=16, layers=2, stride=2, expand_ratio=6),
        Stage(operator="mbconv", channels=24, layers=2, stride=2, expand_ratio=6),
    ),
    head=Head(channels=32),
)
SPACE = around(BASELINE, {"kernel_size": (3, 5, 7), "expand_ratio": (3, 6), "width": (0.75, 1, 1.25), "layers": (0, 1)})
COMMON = Common(recipe=find_recipe("small", BASELINE, {}), split_seed=0, data="data", classes=10, channels=3)
MEASURES = measures_of(10, 3)


def asked(**changes: Any) -> Search:
    search = Search(
        space=SPACE,
        targets=(Target(measure="multiply_adds", value=900_000),),
        limits=(Limit(measure="multiply_adds", most=1_200_000),),
        sampler="evolution",
        evaluator="training",
        common=COMMON,
    )
    return replace(search, **changes)


def planted(architecture: Architecture) -> float:
    """Percent: more with larger kernels and more layers, in differing amounts."""
    return 50 + sum(i * row.kernel_size + 2 * row.layers for i, row in enumerate(architecture.stages))


class Planted:
    """Evaluates by `planted`; some numbers fail."""

    def __init__(self, failing: Mapping[int, BaseException] | None = None) -> None:
        self.failing, self.numbers = dict(failing or {}), list[int]()

    def __call__(self, claim: Claim, network: Architecture, _: Progress | None) -> Trained:
        number = claim.job[0]
        self.numbers.append(number)
        assert network.name == f"small-{number}"
        if number in self.failing:
            raise self.failing[number]
        return Trained(score=planted(network), facts={"run": f"run-{number}", "seconds": 1.0})


def go(search: Search, folder: Path, evaluate: Evaluate, length: Length, *, name: str = "study") -> dict[Job, Trained]:
    trials = open_study(Storage(url=f"sqlite:///{folder}/trials.db", name=name), search.question)
    return run_search(search, trials, evaluate, measures=MEASURES, length=length)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_candidate_is_within_the_limits_and_worth_its_reward(sampler: str, tmp_path: Path) -> None:
    search = asked(sampler=sampler)
    found = go(search, tmp_path, Planted(), Length(candidates=8))
    assert list(found) == [(number, 0) for number in range(8)]
    for one in found.values():
        network = SPACE.architecture(tuple(one.facts["tokens"]))
        counted = cost(network, num_classes=10)
        assert one.facts["costs"] == {
            "multiply_adds": counted.multiply_adds,
            "parameters": counted.parameters,
            "activations": counted.activations,
        }
        assert counted.multiply_adds <= 1_200_000
        assert one.facts["accuracy"] == planted(network)
        assert one.score == pytest.approx(reward(planted(network), one.facts["costs"], search.targets))


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_search_in_many_sittings_is_one_in_one(sampler: str, tmp_path: Path) -> None:
    search = asked(sampler=sampler)
    (tmp_path / "parts").mkdir()
    (tmp_path / "whole").mkdir()
    for candidates in (1, 3, 8):
        parts = go(search, tmp_path / "parts", Planted(), Length(candidates=candidates))
    whole = go(search, tmp_path / "whole", Planted(), Length(candidates=8))
    assert [one.facts["tokens"] for one in parts.values()] == [one.facts["tokens"] for one in whole.values()]


def test_a_lost_candidate_is_taken_over_with_its_choices(tmp_path: Path) -> None:
    search, begun = asked(sampler="random"), list[Any]()

    def lost(claim: Claim, network: Architecture, progress: Progress | None) -> Trained:
        begun.append(network)
        raise InvalidInput("the lights went out")

    with pytest.raises(InvalidInput, match="the lights"):
        go(search, tmp_path, lost, Length(candidates=3))
    # By then another seed would have been asked for something else: what was begun is kept by the storage.
    trials = open_study(Storage(url=f"sqlite:///{tmp_path}/trials.db", name="study"), search.question)
    other = replace(search, seed=99)
    found = run_search(other, trials, Planted(), measures=MEASURES, length=Length(candidates=3))
    assert SPACE.architecture(tuple(found[0, 0].facts["tokens"])) == replace(begun[0], name="small")


def test_a_candidate_that_fails_is_kept_with_its_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    failing = {
        0: Diverged("lr 1 is too high: the loss is nan"),
        2: MemoryError(),
        3: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more"),
        4: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    }
    evaluate = Planted(failing)
    found = go(asked(), tmp_path, evaluate, Length(candidates=8))
    assert evaluate.numbers == list(range(8))  # none twice
    said = {number: one.failed for (number, _), one in found.items() if one.failed}
    assert said[0] == "lr 1 is too high: the loss is nan"
    assert said[2] == "out of memory"
    assert said[3] == "CUDA out of memory. Tried to allocate 2 GiB"
    assert sorted(said) == [0, 2, 3, 4]
    assert all("tokens" in one.facts and "costs" in one.facts for one in found.values())
    assert not {(number, 0) for number in said} & {*ranked(found), *front(found, ["multiply_adds"])}
    again = Planted(failing)
    assert len(go(asked(), tmp_path, again, Length(candidates=9))) == 9
    assert again.numbers == [8]


def test_any_other_error_is_not_a_candidates(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        go(asked(), tmp_path, Planted({0: RuntimeError("a bug")}), Length(candidates=2))


def test_an_equal_network_is_not_trained_twice(tmp_path: Path) -> None:
    # The shortcut of a single strided block makes no difference: half of the choices are the other half's networks.
    two = around(
        replace(BASELINE, stages=BASELINE.stages[:2]), {"skip": (True, False), "layers": (-1,), "kernel_size": (3, 5)}
    )
    search = asked(space=two, sampler="random", limits=())
    evaluate = Planted()
    found = go(search, tmp_path, evaluate, Length(candidates=16))
    networks = {two.architecture(tokens) for tokens in itertools.product(*map(range, two.sizes))}
    assert len(evaluate.numbers) == len(networks) < 16
    for (number, _), one in found.items():
        if "same" in one.facts:
            first = found[one.facts["same"], 0]
            assert one.facts["same"] < number
            assert (one.score, one.facts["accuracy"], one.failed) == (first.score, first.facts["accuracy"], "")
    assert len(ranked(found)) == len(networks)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_other_choices_of_a_known_network_are_proposed_when_nothing_else_is_left(sampler: str, tmp_path: Path) -> None:
    two = around(
        replace(BASELINE, stages=BASELINE.stages[:2]), {"skip": (True, False), "layers": (-1,), "kernel_size": (3, 5)}
    )
    networks = {two.architecture(tokens) for tokens in itertools.product(*map(range, two.sizes))}
    found = go(asked(space=two, sampler=sampler, limits=()), tmp_path, Planted(), Length(candidates=len(networks) + 2))
    assert ["same" in one.facts for one in found.values()] == [False] * len(networks) + [True] * 2


def test_a_search_may_end_by_what_it_has_spent(tmp_path: Path) -> None:
    search = asked(sampler="random")
    whole = go(search, tmp_path, Planted(), Length(candidates=10))
    other = go(replace(search, seed=5), tmp_path, Planted(), Length(candidates=0, spend=spent(whole)), name="other")
    assert spent(other) >= spent(whole) > spent(dict(list(other.items())[:-1]))


def test_two_workers_share_a_search(tmp_path: Path) -> None:
    search = asked(sampler="random")
    url = f"sqlite:///{tmp_path}/trials.db"
    trials = open_study(Storage(url=url, name="study"), search.question)

    def with_another(claim: Claim, network: Architecture, progress: Progress | None) -> Trained:
        if claim.job[0] == 0:  # while this one is at work, another worker does all the others
            other = open_study(Storage(url=url, name="study"), search.question)
            allowed = within(SPACE, search.limits, MEASURES)

            def one(other_claim: Claim) -> Trained:
                tokens = proposal(search, other_claim.job[0], finished(other), allowed)
                facts = {"tokens": list(tokens), "costs": {"multiply_adds": 1}, "accuracy": 1.0, "seconds": 1.0}
                return Trained(score=1.0, facts=facts)

            work(other, lambda done: [(n, 0) for n in range(1, 5) if (n, 0) not in done], one)
        return Trained(score=planted(network), facts={"seconds": 1.0})

    found = run_search(search, trials, with_another, measures=MEASURES, length=Length(candidates=6))
    assert len(found) == 6
    assert len({tuple(one.facts["tokens"]) for one in found.values()}) == 6


def test_the_front_is_that_of_all_pairs() -> None:
    def one(accuracy: float, multiply_adds: float, parameters: float) -> Trained:
        costs = {"multiply_adds": multiply_adds, "parameters": parameters}
        return Trained(score=0, facts={"accuracy": accuracy, "costs": costs, "tokens": []})

    found = {
        (0, 0): one(60, 100, 10),
        (1, 0): one(61, 100, 20),  # better, and no larger by what counts first
        (2, 0): one(59, 90, 10),
        (3, 0): one(58, 95, 5),
        (4, 0): replace(one(99, 1, 1), failed="nan", whole=False),
        (5, 0): one(61, 100, 20),  # equal to another on the front
    }
    assert front(found, ["multiply_adds"]) == ((1, 0), (2, 0), (5, 0))
    assert front(found, ["multiply_adds", "parameters"]) == ((0, 0), (1, 0), (2, 0), (3, 0), (5, 0))


def test_a_question_survives_plain_values() -> None:
    search = asked(limits=(), targets=(Target(measure="latency", value=3.0, below=0, above=-1),))
    assert question_from(json.loads(json.dumps(search.question))) == search
    others = [replace(search, seed=1), replace(search, sampler="random"), replace(search, targets=())]
    assert all(other.question != search.question for other in others)


def test_another_search_of_the_same_name_is_refused(tmp_path: Path) -> None:
    go(asked(), tmp_path, Planted(), Length(candidates=1))
    with pytest.raises(InvalidInput, match="its study 'study' asks something else"):
        go(asked(targets=()), tmp_path, Planted(), Length(candidates=1))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sampler": "annealing"}, "sampler must be random or evolution or policy or tpe, got 'annealing'"),
        ({"evaluator": "guess"}, "evaluator must be training or supernet, got 'guess'"),
        ({"limits": (Limit(measure="m", most=1), Limit(measure="m", most=2))}, "limit must be given once"),
    ],
)
def test_a_search_that_makes_no_sense_is_one_line(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        asked(**changes)


def test_a_survey_says_what_the_limits_leave() -> None:
    limits = (Limit(measure="multiply_adds", most=1_000_000),)
    seen = survey(SPACE, (), limits, MEASURES)
    low, high = seen.spans["multiply_adds"]
    assert low < 1_000_000 < high
    assert 0 < seen.share < 1
    assert low < seen.mean <= 1_000_000
    assert survey(SPACE, (), (), MEASURES).share == 1
    everything = [
        MEASURES["multiply_adds"](SPACE.architecture(tokens)) <= 1_000_000
        for tokens in itertools.product(*map(range, SPACE.sizes))
    ]
    assert seen.share == pytest.approx(sum(everything) / len(everything), abs=0.03)


@pytest.mark.parametrize(
    ("limits", "own", "complaint"),
    [
        ([("multiply_adds", 1e3)], {}, r"limit multiply_adds must be one that the space can meet, whose least is \d"),
        ([("latency", 1.0)], {}, "measure must be multiply_adds or parameters or activations, got 'latency'"),
        ([("latency", 1.0)], {"latency": lambda _: 2.0}, "limit latency must be one that .* whose least is 2, got 1"),
        ([("latency", 1.0)], {"latency": lambda _: 0.0}, "measure latency must give a number above 0 .* got 0.0"),
        ([("latency", 1.0)], {"latency": lambda _: None}, "measure latency must give a number above 0 .* got None"),
        # Each of the two can be met, but by no candidate at once.
        ([("wide", 1.0), ("narrow", 1.0)],
         {"wide": lambda one: 2.0 if one.stages[0].channels > 8 else 0.5,
          "narrow": lambda one: 0.5 if one.stages[0].channels > 8 else 3.0},
         "limits: none of .* looked at meets all; the nearest has 2 wide, 0.5 narrow"),
    ],
)  # fmt: skip
def test_limits_that_nothing_meets_name_the_nearest(
    limits: list[tuple[str, float]], own: dict[str, Callable[[Architecture], float]], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint) as caught:
        survey(SPACE, (), [Limit(measure=name, most=most) for name, most in limits], measures_of(10, 3, own))
    assert "\n" not in str(caught.value)


def test_a_measure_of_ones_own_takes_no_counted_ones_name() -> None:
    with pytest.raises(InvalidInput, match="measure parameters is counted"):
        measures_of(10, 3, {"parameters": lambda _: 1.0})


def test_looking_at_a_space_needs_no_torch() -> None:
    program = """
import sys
from trifold.baselines import MOBILENET_V2
from trifold.search.space import around, size
from trifold.search.survey import measures_of, survey
space = around(MOBILENET_V2)
survey(space, (), (), measures_of(10, 3), looked_at=50)
print(size(space).choices == 648**7, "torch" in sys.modules, "numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 40), st.sets(st.integers(0, 7)), st.data())
def test_what_has_cost_enough_is_the_first_candidates_whoever_finished_when(
    costs: list[int], spend: int, absent: set[int], data: st.DataObject
) -> None:
    everything = {
        (number, 0): Trained(score=1, facts={"costs": {"multiply_adds": cost}}) for number, cost in enumerate(costs)
    }
    order = data.draw(st.permutations(sorted(everything)))
    found = {job: everything[job] for job in order if job[0] not in absent}
    sums = list(itertools.accumulate(costs))
    needed = next((place + 1 for place, total in enumerate(sums) if total >= spend), None)
    if needed is None or absent & set(range(needed)):
        assert first_for(found, spend) is None
    else:
        taken = first_for(found, spend)
        assert taken is not None
        assert [number for number, _ in taken] == list(range(needed))
