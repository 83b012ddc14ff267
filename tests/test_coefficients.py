"""The search for alpha, beta and gamma from the command line: its answer, going on, sharing, and what is refused."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.sittings import NETWORK, make_inputs
from trifold.architecture import to_toml
from trifold.claimed import Common
from trifold.cli.study import coefficients
from trifold.cost import cost
from trifold.errors import InvalidInput
from trifold.scaling import Rounding
from trifold.study.coefficients import Search, images_to_tell
from trifold.study.directions import Grid, equal_cost
from trifold.study.folder import read_study
from trifold.study.page import draw
from trifold.train.recipes import find_recipe
from trifold.trials import Trained

GRID = ("--divisor", "1", "--resolution-step", "1", "--step", "0.2", "--tolerance", "0.2", "--epochs", "1")
RECIPE = ("--set", "batch_size=16", "--seeds", "2")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety images, and a network whose grid has a few candidates."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    (folder / "net.toml").write_text(to_toml(replace(NETWORK, name="net", resolution=12)))
    return folder


def arguments(inputs: Path, out: Path, *more: str) -> list[str]:
    return [str(inputs / "net.toml"), str(inputs / "data"), "--out", str(out), *GRID, *RECIPE, *more]


def call(*words: str) -> Result:
    return CliRunner().invoke(coefficients, words)


def found(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def test_the_search_answers_goes_on_and_shares_nothing_twice(inputs: Path, tmp_path: Path) -> None:
    first = found(call(*arguments(inputs, tmp_path, "--json")))
    candidates, answer = first["candidates"], first["answer"]
    assert len(candidates) >= 3
    going_on = max(2, len(candidates) // 4)
    assert answer["trained"] == len(candidates) + going_on
    assert answer["full"] == 2 * len(candidates)
    assert len(list((tmp_path / "runs").iterdir())) == answer["trained"]
    standings = answer["choice"]["standings"]
    assert sorted(one["seeds"] for one in standings) == [1] * (len(candidates) - going_on) + [2] * going_on
    assert 0 <= answer["choice"]["best"] < len(candidates)
    assert sum(one["chance"] for one in standings) == pytest.approx(1)
    started = time.monotonic()
    assert found(call(*arguments(inputs, tmp_path, "--json"))) == first
    assert time.monotonic() - started < 10  # nothing was trained

    for out, storage, told in (
        (tmp_path, "", "its study 'study' asks something else"),
        (tmp_path, f"sqlite:///{tmp_path / 'other.db'}", "holds a study that asks something else; give another --out"),
        (tmp_path / "other", f"sqlite:///{tmp_path / 'trials.db'}", "its study 'study' asks something else"),
    ):
        other = call(*arguments(inputs, out, "--epochs", "2", *(("--storage", storage) if storage else ())))
        assert other.exit_code != 0
        assert isinstance(other.exception, InvalidInput)
        assert told in str(other.exception)

    told = call(*arguments(inputs, tmp_path, "--collect")).stdout
    assert f"{answer['trained']} trainings; the full grid has {answer['full']}" in told
    assert "tied with it" in told
    assert answer["images"] > 0
    if answer["needed"] is not None and answer["needed"] > answer["images"]:
        assert f"would take {answer['needed']:,} images; minival has {answer['images']:,}" in told


def test_the_plan_trains_nothing(inputs: Path, tmp_path: Path) -> None:
    done = call(*arguments(inputs, tmp_path / "none", "--plan"))
    assert done.exit_code == 0
    assert "trainings of 1 epochs (the full grid has" in done.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--step", "1", "--tolerance", "0"), "no direction has a network within 3%"),
        (("--step", "0.7", "--tolerance", "0"), "no alpha, beta, gamma in steps of 0.7"),
        (("--factor", "1"), "target must be more than 3% over net's own"),
        (("--epochs", "0"), "epochs must be"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_trained(
    inputs: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    done = call(*arguments(inputs, tmp_path / "none", *more))
    assert done.exit_code != 0
    assert message in str(done.exception)
    assert not (tmp_path / "none").exists()


def test_one_network_is_no_choice() -> None:
    baseline, rounding = replace(NETWORK, resolution=12), Rounding(divisor=1, resolution_step=1)
    target = 2 * cost(baseline).multiply_adds
    plan = equal_cost(baseline, Grid(step=0.2, tolerance=0.2).directions(), target, rounding=rounding)
    recipe = find_recipe("small", baseline, {})
    with pytest.raises(InvalidInput, match="tiny: all directions are one network at this cost"):
        Search(
            baseline=baseline,
            directions=replace(plan, candidates=plan.candidates[:1]),
            common=Common(recipe=recipe, split_seed=0, data="", classes=1000, channels=3),
            seeds=2,
        )


def test_the_recorded_search_gives_the_answer_that_its_readme_tells(tmp_path: Path) -> None:
    results = Path(__file__).parent.parent / "results" / "scaling_cifar"
    shutil.copytree(results / "coefficients", tmp_path / "copy")
    page, told = (
        draw(tmp_path / "copy").read_text(encoding="utf-8"),
        (results / "README.md").read_text(encoding="utf-8"),
    )
    answer = re.search(r"\*\*resolution alone, \(1, 1, 1\.4\)\*\*, (\d+\.\d+ ± \d+\.\d+) %", told)
    assert answer is not None
    assert f"alpha 1, beta 1, gamma 1.4: {answer.group(1)} % on minival by the fit" in page


def test_how_many_images_a_difference_takes() -> None:
    assert images_to_tell(80, 82) == 2955  # 1.96^2 (0.16 + 0.1476) / 0.02^2, rounded up
    assert images_to_tell(82, 80) == images_to_tell(80, 82)
    with pytest.raises(InvalidInput, match="two equal accuracies"):
        images_to_tell(80, 80)


@pytest.mark.slow
def test_a_search_killed_ten_times_ends_as_one_left_alone(inputs: Path, tmp_path: Path) -> None:
    epochs = ("--epochs", "3", "--json")
    alone = found(call(*arguments(inputs, tmp_path / "alone", *epochs)))
    words = [sys.executable, "-m", "trifold", "coefficients", *arguments(inputs, tmp_path / "killed", *epochs)]
    moments = random.Random(0)
    for _ in range(10):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(4, 12))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    last = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(last.stdout) == alone
    records = [read_study(tmp_path / name).found for name in ("alone", "killed")]
    assert [kept_of(one) for one in records[0].values()] == [kept_of(one) for one in records[1].values()]


def kept_of(training: Trained) -> Trained:
    """All of a record but its times."""
    return replace(training, facts={name: value for name, value in training.facts.items() if name != "seconds"})
