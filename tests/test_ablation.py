"""Scaling alone and together at equal cost: which networks are compared, what is told apart, and the command."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.stats import t as student

from tests.sittings import NETWORK, make_inputs
from trifold.architecture import to_toml
from trifold.baselines import find
from trifold.claimed import Common
from trifold.cli.study import ablate, report
from trifold.errors import InvalidData, InvalidInput
from trifold.scaling import PAPER, RULES
from trifold.study.ablation import Ablation, ablation_from, findings
from trifold.study.comparison import (
    FOUND,
    KINDS,
    Comparison,
    compare,
    comparison_from_dict,
    comparison_to_dict,
    width_sweep,
)
from trifold.study.directions import EQUAL
from trifold.study.folder import RECORDS, STUDY, read_study
from trifold.train.recipes import find_recipe
from trifold.trials import Job, Trained

B0 = find("efficientnet_b0")
EMPTY = '{"question": {"kind": "ablation"}, "about": {}}'


def comparison(factors: tuple[float, ...] = (2, 4), kinds: tuple[str, ...] = KINDS) -> Comparison:
    return compare(B0, factors, {kind: RULES[kind] for kind in kinds})


def ablation(seeds: int = 3, *, of: Comparison | None = None) -> Ablation:
    common = Common(recipe=find_recipe("small", B0, {}), split_seed=0, data="data", classes=1000, channels=3)
    return Ablation(comparison=of or comparison(), common=common, seeds=seeds)


def test_every_kind_scales_what_it_says_at_equal_cost() -> None:
    made = comparison()
    assert not made.unreachable
    assert [(one.kind, one.factor) for one in made.points] == [(kind, factor) for factor in (2, 4) for kind in KINDS]
    own = made.baseline.cost.multiply_adds
    for one in made.points:
        assert abs(one.candidate.cost.multiply_adds / (one.factor * own) - 1) <= EQUAL
        scaled = one.candidate.architecture
        deeper = [s.layers for s in scaled.stages] != [s.layers for s in B0.stages]
        larger = scaled.resolution != B0.resolution
        assert deeper == (one.kind in ("depth", "compound", "fast"))
        assert larger == (one.kind in ("resolution", "compound", "fast"))
        if one.kind in ("width", "compound", "fast"):
            assert scaled.stages[-1].channels > B0.stages[-1].channels


def test_a_network_out_of_reach_is_listed_and_the_others_stay() -> None:
    made = compare(find("efficientnet_mini"), [2], {kind: RULES[kind] for kind in KINDS})
    reached = {one.kind for one in made.points}
    missed = {kind for kind, _, _ in made.unreachable}
    assert reached | missed == set(KINDS)
    assert missed
    assert all(abs(off) > EQUAL for _, _, off in made.unreachable)


@pytest.mark.parametrize(
    ("factors", "kinds", "message"),
    [
        ([], {"depth": PAPER}, "factors must be different numbers over 1, at most 1,000,000, got none"),
        ([2, 2], {"depth": PAPER}, "factors must be different numbers over 1, at most 1,000,000, got 2, 2"),
        ([2], {}, "kinds must name at least one of compound, depth"),
        ([1.01], {"depth": PAPER}, "target must be more than 3% over efficientnet_b0's own"),
        ([math.nan], {"depth": PAPER}, "factors must be different numbers over 1, at most 1,000,000, got nan"),
    ],
)
def test_what_cannot_be_compared_is_refused(factors: list[float], kinds: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compare(B0, factors, kinds)


def test_the_width_sweep_is_figure_4s() -> None:
    points = width_sweep(B0, [1, 1.4, 1.8], depth=2, resolution=1.3)
    assert [one.sweep for one in points] == [(1, 1)] * 3 + [(1, 1.3)] * 3 + [(2, 1)] * 3 + [(2, 1.3)] * 3
    layers = {one.sweep: sum(s.layers for s in one.candidate.architecture.stages) for one in points}
    assert layers == {(1, 1): 16, (1, 1.3): 16, (2, 1): 32, (2, 1.3): 32}
    assert {one.candidate.architecture.resolution for one in points} == {224, 292}
    assert points[0].candidate.architecture == B0
    assert points[0].factor == 1
    costs = [one.candidate.cost.multiply_adds for one in points]
    assert all(costs[i] < costs[i + 1] for i in range(11) if i % 3 != 2)
    for depth, resolution in ((1.0, 1.3), (2.0, 1.0)):
        with pytest.raises(InvalidInput, match="needs a depth and a resolution over 1"):
            width_sweep(B0, [1], depth=depth, resolution=resolution)
    for widths in ([], [0.5], [1, 1]):
        with pytest.raises(InvalidInput, match="widths must be different numbers from 1 on"):
            width_sweep(B0, widths, depth=2, resolution=1.3)


def test_a_comparison_and_its_question_survive_json() -> None:
    made = replace(comparison(), unreachable=(("width", 8.0, 0.05),))
    made = replace(made, points=(*made.points, *width_sweep(B0, [1, 2], depth=2, resolution=1.3)))
    plain = json.loads(json.dumps(comparison_to_dict(made)))
    assert comparison_from_dict(plain, num_classes=1000, in_channels=3) == made
    study = ablation(of=made)
    assert ablation_from(json.loads(json.dumps(study.question))) == study


def test_equal_networks_are_trained_once() -> None:
    swept = width_sweep(B0, [1, 2], depth=2, resolution=1.3)
    study = ablation(seeds=2, of=replace(comparison(), points=(*comparison().points, *swept, *comparison().points)))
    assert study.networks[0] == replace(B0, name="efficientnet_b0-0")
    assert study.numbers[: len(comparison().points)] == study.numbers[-len(comparison().points) :]
    assert study.numbers[len(comparison().points)] == 0  # the sweep begins with the baseline
    assert len(study.networks) == len(set(study.numbers) | {0})
    assert study.to_come({}) == 2 * len(study.networks)
    wanted = study.wanted({})
    assert len(wanted) == len(set(wanted)) == study.to_come({})
    assert [seed for _, seed in wanted] == sorted(seed for _, seed in wanted)  # one seed of all before the next


def test_any_kind_is_compared_and_the_same_one_from_the_beginning() -> None:
    study = ablation(of=comparison(factors=(2,), kinds=("uniform", "tiny")))
    assert [one.other for one in findings(study, trained({1: [5.0, 6.0], 2: [7.0, 8.0]})).differences] == ["tiny"]
    study = ablation(of=comparison(factors=(2,), kinds=("depth", "width", "compound")))
    assert findings(study, trained({1: [5.0, 6.0], 2: [7.0, 8.0]})).differences == ()  # compound is still to come


def trained(tests: Mapping[int, list[float]]) -> dict[Job, Trained]:
    return {
        (number, seed): Trained(score=test - 1, facts={"test": test, "seconds": 2.0, "run": "run"})
        for number, values in tests.items()
        for seed, test in enumerate(values)
    }


def test_differences_have_the_pooled_noise_and_hold_together() -> None:
    study = ablation(of=comparison(factors=(2,), kinds=("depth", "width", "compound")))
    middles = {0: 51.0, 1: 56.0, 2: 61.5, 3: 62.0}
    reached = findings(study, trained({number: [one - 1, one, one + 1] for number, one in middles.items()}))
    assert reached.noise == pytest.approx(1)
    assert reached.measured[0].test[0] == 51
    assert reached.measured[0].minival[0] == 50
    half = student.ppf(1 - 0.025 / 2, 8) * np.sqrt(2 / 3)
    assert [(one.kind, one.other, one.points) for one in reached.differences] == [
        ("compound", "depth", 6), ("compound", "width", 0.5),
    ]  # fmt: skip
    assert [one.half for one in reached.differences] == pytest.approx([half, half])
    assert [one.verdict for one in reached.differences] == ["better", "not told apart"]


def test_without_seeds_nothing_is_told_apart() -> None:
    study = ablation(seeds=1, of=comparison(factors=(2,), kinds=("depth", "compound")))
    reached = findings(study, trained({0: [10.0], 1: [20.0], 2: [90.0]}))
    assert reached.noise is None
    assert [one.verdict for one in reached.differences] == ["not judged"]
    assert findings(study, {}).differences == ()
    assert findings(study, trained({0: [10.0]})).differences == ()


def test_chance_is_seldom_taken_for_a_finding() -> None:
    """Equal networks, three seeds: any of six differences is called one in at most about 5 % of 400 repetitions."""
    study = ablation(of=comparison(factors=(2, 4), kinds=("depth", "width", "resolution", "compound")))
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        tests = {number: list(random.normal(60, 0.5, 3)) for number in range(len(study.networks))}
        differences = findings(study, trained(tests)).differences
        assert len(differences) == 6
        wrong += any(one.verdict != "not told apart" for one in differences)
    assert wrong <= 0.08 * 400


def test_the_same_network_is_no_difference() -> None:
    made = comparison(factors=(2,), kinds=("depth", "compound"))
    same = replace(made, points=(made.points[0], replace(made.points[0], kind="compound")))
    study = ablation(of=same)
    reached = findings(study, trained({0: [50.0, 51.0, 52.0], 1: [55.0, 56.0, 57.0]}))
    assert [(one.verdict, one.points, one.half) for one in reached.differences] == [("the same network", 0, 0)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    (folder / "net.toml").write_text(to_toml(replace(NETWORK, name="net", resolution=12)))
    return folder


def call(inputs: Path, *more: str) -> Result:
    words = [
        str(inputs / "net.toml"),
        str(inputs / "data"),
        "--divisor",
        "1",
        "--resolution-step",
        "1",
        "--epochs",
        "1",
    ]
    return CliRunner().invoke(ablate, [*words, "--set", "batch_size=16", *more])


def test_the_command_trains_compares_and_reports(inputs: Path, tmp_path: Path) -> None:
    asked = ("--factors", "2", "--kinds", "depth,width", "--found", "1.2,1.1,1.2", "--seeds", "2")
    first = call(inputs, *asked, "--out", str(tmp_path), "--json")
    assert first.exit_code == 0, first.output
    values = json.loads(first.stdout)
    networks = len(set(values["numbers"]) | {0})
    assert values["findings"]["trained"] == values["findings"]["full"] == 2 * networks
    assert {one["kind"] for one in values["findings"]["differences"]} == {FOUND}
    kept = read_study(tmp_path)
    assert len(kept.found) == 2 * networks
    assert json.loads(call(inputs, *asked, "--out", str(tmp_path), "--json").stdout) == values
    assert read_study(tmp_path) == kept

    page = tmp_path / "report.html"
    text = page.read_text(encoding="utf-8")
    page.unlink()
    (tmp_path / "trials.db").unlink()  # the page needs the two tracked files alone
    assert CliRunner().invoke(report, [str(tmp_path)]).exit_code == 0
    assert page.read_text(encoding="utf-8") == text
    for run in (one.facts["run"] for one in kept.found.values()):
        assert f'href="{run}/report.html"' in text
        assert (tmp_path / run / "report.html").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--kinds", "depht"), "--kinds must be some of compound, depth"),
        (("--factors", "two"), "--factors must be numbers with commas between them, got 'two'"),
        (("--found", "1,2"), "--found must be alpha,beta,gamma, got '1,2'"),
        (("--found", "1,2,9"), "gamma must be"),
        (("--widths", "1", "--sweep-depth", "1"), "needs a depth and a resolution over 1"),
        (("--kinds", "depth,depth"), "each once, with commas between them, got 'depth'"),
        (("--found", "1,1,1"), "found: alpha, beta and gamma must not all be 1"),
        (("--factors", "inf"), "factors must be different numbers over 1, at most 1,000,000, got inf"),
        (("--name", ""), "--name must be 1 to 100 printable characters, got ''"),
        (("--storage", ""), "storage : cannot be used"),
        (("--storage", "sqlite://"), "is kept in memory, where nothing would outlive this command"),
        (
            ("--storage", "postgresql://me:secret@127.0.0.1:9/none"),
            "storage postgresql://me:***@127.0.0.1:9/none: cannot",
        ),
        (("--kinds", ""), "kinds must name at least one"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_trained(
    inputs: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    done = call(inputs, *more, "--out", str(tmp_path / "none"))
    assert isinstance(done.exception, InvalidInput)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("more", [("--seeds", "0"), ("--seeds", "101"), ("--threads", "0")])
def test_a_number_out_of_range_is_refused_also_for_a_plan(inputs: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    done = call(inputs, *more, "--plan", "--out", str(tmp_path / "none"))
    assert done.exit_code == 2
    assert f"Invalid value for '{more[0]}'" in done.output


def test_collecting_what_was_never_begun_is_refused(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    done = call(inputs, "--kinds", "depth", "--factors", "2", "--out", str(tmp_path / "study"), "--collect")
    assert isinstance(done.exception, InvalidInput)
    assert "has no study 'study': nothing was trained" in str(done.exception)


def test_a_plan_as_json_is_json(inputs: Path) -> None:
    done = call(inputs, "--factors", "2", "--plan", "--json")
    assert {one["kind"] for one in json.loads(done.stdout)["points"]} <= set(KINDS)


@pytest.mark.parametrize(
    ("study", "records", "message"),
    [
        (None, None, "study.json: cannot be read"),
        ("{", "", "study.json: must hold a study's question"),
        ("[]", "", "study.json: must hold a study's question"),
        (
            '{"question": {"kind": "other"}, "about": {}}',
            "",
            "kind must be coefficients, ablation, transfer, search or miniature, got 'other'",
        ),
        ('{"question": {}, "about": {}}', "", "the study's question is none of this version"),
        ('{"question": {"kind": "ablation"}, "about": {}}', "", "the study's question is none of this version"),
        (
            '{"question": {"kind": "ablation"}, "about": {}}',
            "{}\n",
            "records.jsonl: line 1 must be a training's record",
        ),
    ],
)
def test_a_folder_that_is_no_study_is_one_line(
    tmp_path: Path, study: str | None, records: str | None, message: str
) -> None:
    for name, text in ((STUDY, study), (RECORDS, records)):
        if text is not None:
            (tmp_path / name).write_text(text)
    done = CliRunner().invoke(report, [str(tmp_path)])
    assert isinstance(done.exception, InvalidData)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize(("name", "trainings"), [("ablation", 33), ("mobilenet", 15)])
def test_the_recorded_comparisons_give_the_numbers_that_their_readme_tells(name: str, trainings: int) -> None:
    results = Path(__file__).parent.parent / "results" / "scaling_cifar"
    kept = read_study(results / name)
    study = ablation_from(kept.question)
    reached, told = findings(study, kept.found), (results / "README.md").read_text(encoding="utf-8")
    assert reached.trained == reached.full == trainings
    rows = [("baseline", 1.0, study.comparison.baseline, 0)]
    rows += [
        (one.kind, one.factor, one.candidate, number)
        for one, number in zip(study.comparison.points, study.numbers, strict=True)
    ]
    for kind, factor, candidate, number in rows:
        mean, half = reached.measured[number].test
        spent = candidate.cost.multiply_adds
        row = rf"\| {kind} \| {factor:g} \| .* \| {spent:,} \| .* \| {mean:.2f} ± {half:.2f} \|"
        assert re.search(row, told), row
    for lead in reached.differences:
        assert f"{lead.points:+.2f} ± {lead.half:.2f}, {lead.verdict}" in told
