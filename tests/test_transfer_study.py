"""Trained networks carried over to other data: what is trained with which weights, what is said, and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.sittings import NETWORK, make_inputs, make_other
from trifold.cli.study import report
from trifold.cli.transfer import transfer
from trifold.data.sources import open_data
from trifold.errors import InvalidData, InvalidInput
from trifold.study.folder import read_study
from trifold.study.transfer import Transfer, carried, open_sources, transfer_from
from trifold.study.transfer_page import brought, transfer_notes
from trifold.train.recipes import find_recipe
from trifold.train.record import Plan, read_record
from trifold.train.run import train
from trifold.trials import Job, Trained

WIDE = replace(NETWORK, name="wide", stages=(replace(NETWORK.stages[0], channels=12),))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of `sittings`, other data of two classes, and three runs on the first: two seeds of one network."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    make_other(folder)
    recipe = find_recipe("small", NETWORK, {"epochs": 2, "batch_size": 16, "warmup_epochs": 1.0})
    data = open_data(str(folder / "data"))
    for name, network, seed in (("tiny-0", NETWORK, 0), ("tiny-1", NETWORK, 1), ("wide-0", WIDE, 0)):
        train(data, Plan(architecture=network, recipe=recipe, seed=seed), run_folder=folder / name)
    return folder


def call(
    inputs: Path, *more: str, data: str = "other", runs: tuple[str, ...] = ("tiny-0", "tiny-1", "wide-0")
) -> Result:
    words = [str(inputs / data), *(str(inputs / run) for run in runs), "--epochs", "2", "--set", "head_epochs=1"]
    return CliRunner().invoke(transfer, [*words, "--set", "batch_size=16", *more])


def test_the_command_trains_compares_and_reports(inputs: Path, tmp_path: Path) -> None:
    first = call(inputs, "--seeds", "3", "--out", str(tmp_path), "--json")
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert told["networks"] == ["tiny, pretrained", "wide, pretrained", "tiny, random weights", "wide, random weights"]
    assert told["findings"]["trained"] == told["findings"]["full"] == 12
    kept = read_study(tmp_path)
    study = transfer_from(kept.question)
    assert (study.origin, study.seen) == (str(inputs / "data"), 0)
    digests = {run: read_weights(inputs / run) for run in ("tiny-0", "tiny-1", "wide-0")}
    for job, one in kept.found.items():
        record = read_record(tmp_path / one.facts["run"] / "record.json")
        begun = {0: ("tiny-0", "tiny-1", "tiny-0"), 1: ("wide-0",) * 3}.get(job[0])
        assert record.asked["weights"] == ("" if begun is None else digests[begun[job[1]]])
        assert record.asked["recipe"]["name"] == ("small" if begun is None else "finetune")
        assert bool(record.result.loaded) is (begun is not None)
        assert record.asked["recipe"]["padding"] == "symmetric"  # as the weights were trained
        assert record.asked["recipe"]["normalisation"] == "measured"
    assert call(inputs, "--seeds", "3", "--out", str(tmp_path), "--json").stdout == first.stdout
    assert read_study(tmp_path) == kept

    page = (tmp_path / "report.html").read_text("utf-8")
    (tmp_path / "report.html").unlink()
    assert CliRunner().invoke(report, [str(tmp_path)]).exit_code == 0
    assert (tmp_path / "report.html").read_text("utf-8") == page
    for title in ("as Figure 6", "as Table 5", "Pretrained less random weights", "Courses of the trainings"):
        assert title in page
    shown = call(inputs, "--seeds", "3", "--out", str(tmp_path), "--collect")
    assert brought(study, carried(study, kept.found)) in shown.stdout


def read_weights(run: Path) -> str:
    (source,) = open_sources({"it": [run]}).sources
    return source.weights[0]


def test_without_random_weights_and_on_images_that_trained_the_network(inputs: Path, tmp_path: Path) -> None:
    done = call(inputs, "--seeds", "1", "--no-scratch", "--out", str(tmp_path), data="data", runs=("wide-0",))
    assert done.exit_code == 0, done.output
    assert "One seed: a smoke test" in done.stdout
    used = len(read_record(inputs / "wide-0" / "record.json").used)
    assert used > 60
    assert f"{used} of these images trained the networks before" in done.stdout
    assert "random" not in done.stdout
    assert (tmp_path / "report.html").exists()


def test_the_plan_trains_nothing(inputs: Path, tmp_path: Path) -> None:
    done = call(inputs, "--plan", "--out", str(tmp_path / "never"))
    assert done.exit_code == 0, done.output
    assert "12 trainings of 2 epochs (2 networks)" in done.stdout
    assert not (tmp_path / "never").exists()
    told = json.loads(call(inputs, "--plan", "--json").stdout)
    assert [(one["network"], one["runs"]) for one in told["networks"]] == [("tiny", 2), ("wide", 1)]


def study_of(inputs: Path) -> Transfer:
    opened = open_sources({"tiny": [inputs / "tiny-0", inputs / "tiny-1"], "wide": [inputs / "wide-0"]})
    from trifold.claimed import Common

    common = Common(recipe=find_recipe("finetune", NETWORK), split_seed=0, data="other", classes=2, channels=1)
    return Transfer(sources=opened.sources, origin="data", common=common, scratch=opened.recipe, seeds=3)


def results(study: Transfer, pretrained: tuple[float, ...], scratch: tuple[float, ...]) -> Mapping[Job, Trained]:
    found = {}
    for number in range(len(study.networks)):
        for seed, test in enumerate(pretrained if number < len(study.sources) else scratch):
            found[number, seed] = Trained(score=test, facts={"test": test, "seconds": 1.0, "run": "runs/a"})
    return found


def test_what_the_weights_bring_is_the_difference_with_pooled_noise(inputs: Path) -> None:
    study = study_of(inputs)
    assert transfer_from(json.loads(json.dumps(study.question))) == study
    reached = carried(study, results(study, (80.0, 81.0, 82.0), (70.0, 71.0, 72.0)))
    assert [(gain.name, gain.verdict) for gain in reached.gains] == [("tiny", "better"), ("wide", "better")]
    assert [gain.points for gain in reached.gains] == pytest.approx([10, 10])
    # Student's 98.75 % point of 8 degrees of freedom, a noise of 1 point
    assert reached.gains[0].half == pytest.approx(2.7515 * math.sqrt(2 / 3), rel=1e-4)
    same = carried(study, results(study, (80.0, 81.0, 82.0), (82.0, 80.0, 81.0)))
    assert {gain.verdict for gain in same.gains} == {"not told apart"}
    worse = carried(study, results(study, (60.0, 61.0, 62.0), (70.0, 71.0, 72.0)))
    assert "tiny is worse (-10.0 points)" in brought(study, worse)
    single = carried(study, results(study, (80.0,), (70.0,)))
    assert {gain.verdict for gain in single.gains} == {"not judged"}
    assert "8 of 12 trainings are still to come" in transfer_notes(study, single)[-1]
    assert "too few for an answer" in brought(study, carried(study, {}))


def test_the_network_that_is_named_is_chosen_by_minival(inputs: Path) -> None:
    study = study_of(inputs)
    found = dict(results(study, (80.0, 81.0, 82.0), (70.0, 71.0, 72.0)))
    for seed in range(3):
        found[1, seed] = replace(found[1, seed], score=90.0, facts={**found[1, seed].facts, "test": 50.0 + seed})
    assert brought(study, carried(study, found)).startswith("Pretrained on data, wide has 51.00")


@pytest.mark.parametrize(
    ("runs", "more", "message"),
    [
        (("data",), (), "data: holds no finished run: it has no record.json"),
        (("nowhere",), (), "nowhere: holds no finished run"),
        (("tiny-0", "tiny-0"), (), "runs must be different, and one was given twice"),
        (("tiny-0",), ("--seeds", "0"), "0 is not in the range"),
        (("tiny-0",), ("--set", "lr=-1.0"), "recipe: lr must be a number"),
    ],
)
def test_bad_input_is_one_line(
    inputs: Path, tmp_path: Path, runs: tuple[str, ...], more: tuple[str, ...], message: str
) -> None:
    done = call(inputs, *more, "--out", str(tmp_path / "never"), runs=runs)
    assert done.exit_code != 0
    assert message in (str(done.exception) + done.output)
    assert not (tmp_path / "never").exists()


def test_runs_that_do_not_go_together_are_refused(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a run is needed"):
        open_sources({})
    with pytest.raises(InvalidData, match=r"wide-0: has another network than .*tiny-0"):
        open_sources({"both": [inputs / "tiny-0", inputs / "wide-0"]})
    recipe = find_recipe("small", NETWORK, {"epochs": 1, "warmup_epochs": 0.0})
    train(open_data(str(inputs / "other")), Plan(architecture=NETWORK, recipe=recipe), run_folder=tmp_path / "else")
    with pytest.raises(InvalidData, match=r"else: was trained on .*other, and .*tiny-0 on .*data"):
        open_sources({"tiny": [inputs / "tiny-0"], "else": [tmp_path / "else"]})


def test_weights_that_changed_since_the_study_began_are_refused(inputs: Path, tmp_path: Path) -> None:
    recipe = find_recipe("small", NETWORK, {"epochs": 1, "warmup_epochs": 0.0})
    data = open_data(str(inputs / "data"))
    run, study = tmp_path / "run", ("--seeds", "1", "--no-scratch", "--out", str(tmp_path / "study"))
    train(data, Plan(architecture=NETWORK, recipe=recipe), run_folder=run)
    assert call(inputs, *study, runs=(str(run),)).exit_code == 0
    train(data, Plan(architecture=NETWORK, recipe=recipe, seed=1), run_folder=run, overwrite=True)
    done = call(inputs, *study, runs=(str(run),))
    assert isinstance(done.exception, InvalidInput)
    assert "asks something else" in str(done.exception)
