"""The paper in miniature, at smoke size: every step real, one command, one page; killed and collected."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.sittings import NETWORK, make_inputs, make_other
from trifold.architecture import Stage, from_dict, to_toml
from trifold.claimed import train_claimed
from trifold.cli.miniature import miniature
from trifold.cli.study import report
from trifold.cost import cost
from trifold.errors import Failed, InvalidInput
from trifold.study.ablation import findings
from trifold.study.contest import SAMPLE, rank
from trifold.study.directions import EQUAL
from trifold.study.measured import measure
from trifold.study.miniature import COEFFICIENTS, FAMILY, MAPS, SEARCH, TRANSFER, kept_miniature
from trifold.study.pieces import plus_minus
from trifold.study.transfer import carried
from trifold.train.record import read_record
from trifold.trials import Job

BASELINE = replace(
    NETWORK,
    name="small",
    resolution=12,
    stages=(
        *NETWORK.stages,
        Stage(operator="mbconv", channels=8, stride=2, expand_ratio=3, layers=2),
    ),
)
SPACE = """
[every_stage]
kernel_size = [3, 5]
expand_ratio = [2, 3]
width = [0.5, 1, 1.5]
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    make_other(folder)
    (folder / "small.toml").write_text(to_toml(BASELINE))
    (folder / "space.toml").write_text(SPACE)
    return folder


def call(inputs: Path, out: Path, *more: str) -> Result:
    words = [str(inputs / "data"), str(inputs / "other"), "--baseline", str(inputs / "small.toml")]
    words += ["--space", str(inputs / "space.toml"), "--target", "multiply-adds=150k", "--out", str(out)]
    words += [
        "--candidates",
        "3",
        "--short-epochs",
        "1",
        "--finalists",
        "1",
        "--sample",
        "2",
        "--seeds",
        "1",
        "--divisor",
        "2",
        "--step",
        "0.2",
    ]
    words += ["--resolution-step", "2", "--factors", "2", "--kinds", "width", "--epochs", "1", "--transfer-epochs", "1"]
    words += ["--set", "batch_size=16", "--set", "warmup_epochs=0.0", "--transfer-set", "head_epochs=0"]
    return CliRunner().invoke(miniature, [*words, *more])


@pytest.fixture(scope="module")
def done(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished miniature."""
    out = tmp_path_factory.mktemp("studies") / "miniature"
    made = call(inputs, out, "--json")
    assert made.exit_code == 0, (made.output, made.exception)
    (out / "told.json").write_text(made.stdout)
    return out


def test_every_step_builds_on_the_one_before(done: Path) -> None:
    told = json.loads((done / "told.json").read_text())
    kept = kept_miniature(done)
    assert kept.searched is not None
    assert kept.grid is not None
    assert kept.family is not None
    assert kept.carriage is not None
    found = from_dict(told["found"])
    assert found == kept.searched.chosen
    assert replace(kept.grid.search.baseline, name=found.name) == found
    assert replace(kept.family.ablation.comparison.baseline.architecture, name=found.name) == found
    own = cost(found, num_classes=3, in_channels=1).multiply_adds
    coefficients = kept.grid.coefficients
    assert coefficients is not None
    assert told["coefficients"] == {"alpha": coefficients.alpha, "beta": coefficients.beta, "gamma": coefficients.gamma}
    point = next(one for one in kept.family.ablation.comparison.points if one.kind == "found")
    assert point.candidate.cost.multiply_adds == pytest.approx(2 * own, rel=EQUAL)
    transfer = kept.carriage.transfer
    assert [source.name for source in transfer.sources] == ["1x", "2x"]
    for source, (name, number) in zip(transfer.sources, kept.family.sizes.items(), strict=True):
        assert source.name == name
        trained = kept.family.found[number, 0]
        assert source.accuracy == pytest.approx(trained.facts["test"])
    begun = read_record(done / TRANSFER / kept.carriage.found[0, 0].facts["run"] / "record.json")
    assert begun.asked["weights"] == transfer.sources[0].weights[0]


def test_what_one_step_trained_the_next_reads(done: Path) -> None:
    kept = kept_miniature(done)
    assert kept.searched is not None
    assert kept.searched.outcome is not None
    assert kept.family is not None
    named = kept.searched.outcome.chosen["found"]
    assert Path(kept.searched.full[named, 0].facts["run"]).name == Path(kept.family.found[0, 0].facts["run"]).name
    folders = list((done / "runs").iterdir())
    trainings = [
        one
        for name in (SEARCH, COEFFICIENTS, FAMILY, TRANSFER)
        for path in (done / name).glob("*.jsonl")
        for one in path.read_text().splitlines()
    ]
    assert len(folders) < len(trainings)
    used = {json.loads(line)["run"].rpartition("/")[2] for line in trainings if "run" in json.loads(line)}
    assert used == {folder.name for folder in folders}


def test_the_page_has_every_figure_and_leads_to_every_step(done: Path) -> None:
    page = (done / "report.html").read_text("utf-8")
    for title in (
        "as Figure 1", "as Table 1", "as Table 3", "as Table 5", "as Figure 6", "as Figure 7", "as Figure 8",
        "Coefficients: accuracy on minival, the best first", "Search: accuracy against cost", "Search: the best so far",
    ):  # fmt: skip
        assert title in page, title
    for link in re.findall(r'href="([^"]+)"', page):
        assert (done / link).exists(), link
    for name in (SEARCH, COEFFICIENTS, FAMILY, TRANSFER):
        assert f'href="{name}/report.html"' in page
    assert "One seed: a smoke test" in page
    (done / "report.html").unlink()
    assert CliRunner().invoke(report, [str(done)]).exit_code == 0
    assert (done / "report.html").read_text("utf-8") == page
    with Image.open(done / MAPS) as picture:
        assert min(picture.size) > 100


def test_given_again_it_trains_nothing(inputs: Path, done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / "runs").glob("*/record.json")}
    again = call(inputs, done, "--json")
    assert again.stdout == (done / "told.json").read_text()
    assert {path: path.stat().st_mtime_ns for path in (done / "runs").glob("*/record.json")} == before
    collected = call(inputs, done, "--collect")
    assert collected.exit_code == 0, collected.output
    assert json.loads(again.stdout)["answer"] in collected.stdout


def test_a_miniature_that_died_can_be_collected_and_goes_on(
    inputs: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Job] = []
    real = train_claimed

    def dies(claim, plan, *args, **more):  # type: ignore[no-untyped-def]  # as the real one's
        if isinstance(plan.weights, str) and plan.weights:
            raise Failed("the lights went out")
        trained.append(claim.job)
        return real(claim, plan, *args, **more)

    monkeypatch.setattr("trifold.study.run.train_claimed", dies)
    runs = ("--runs", str(done / "runs"))  # of the one that is finished: nothing is trained here
    stopped = call(inputs, tmp_path / "died", *runs)
    assert isinstance(stopped.exception, Failed)
    assert trained
    page = (tmp_path / "died" / "report.html").read_text("utf-8")
    assert "as Figure 8" in page
    assert "as Figure 6" not in page
    partly = call(inputs, tmp_path / "died", *runs, "--collect")
    assert partly.exit_code == 0, (partly.output, partly.exception)
    monkeypatch.undo()
    assert call(inputs, tmp_path / "died", *runs, "--json").stdout == (done / "told.json").read_text()


def test_nothing_is_collected_where_nothing_was_trained(inputs: Path, tmp_path: Path) -> None:
    empty = call(inputs, tmp_path / "never", "--collect")
    assert isinstance(empty.exception, InvalidInput)


def test_the_plan_names_all_four_steps_and_trains_nothing(inputs: Path, tmp_path: Path) -> None:
    planned = call(inputs, tmp_path / "never", "--plan")
    assert planned.exit_code == 0, planned.output
    for step in ("1 of 4: search", "2 of 4: coefficients", "3 of 4: family", "4 of 4: transfer"):
        assert step in planned.stdout
    assert "2 networks, 4 trainings" in planned.stdout
    assert not (tmp_path / "never").exists()


def test_other_data_that_are_not_there_are_refused_before_anything_is_trained(inputs: Path, tmp_path: Path) -> None:
    words = [str(inputs / "data"), str(inputs / "nowhere"), "--out", str(tmp_path / "never")]
    refused = CliRunner().invoke(miniature, words)
    assert isinstance(refused.exception, InvalidInput)
    assert "nowhere" in str(refused.exception)
    assert not (tmp_path / "never").exists()


def test_the_recorded_miniature_gives_the_numbers_that_its_readme_tells() -> None:
    folder = Path(__file__).parent.parent / "results" / "miniature"
    kept, told = kept_miniature(folder), (folder / "README.md").read_text(encoding="utf-8")
    searched, grid, family, carriage = kept.searched, kept.grid, kept.family, kept.carriage
    assert searched is not None
    assert grid is not None
    assert family is not None
    assert carriage is not None

    def row(*cells: str) -> None:
        assert re.search(r" [^\n]*\| ".join(map(re.escape, cells)), told), cells

    outcome, contest = searched.outcome, searched.contest
    assert outcome is not None
    assert contest is not None
    assert outcome.to_come == 0
    for number, entrant in enumerate(contest.entrants):
        if entrant.roles != (SAMPLE,):
            one = outcome.measured[number]
            spent, worth = f"{entrant.costs['multiply_adds']:,.0f}", f"{outcome.worth[number]:.2f}"
            row(spent, worth, plus_minus(*one.minival), plus_minus(*one.test))
    for lead in outcome.differences:
        assert f"{lead.points:+.2f} ± {lead.half:.2f}" in told
    assert outcome.rank is not None
    assert f"tau {outcome.rank.tau:.2f} ({outcome.rank.low:.2f} to {outcome.rank.high:.2f})" in told
    for number, tested in grid.answer.test.items():
        candidate, minival = grid.search.directions.candidates[number], measure(grid.found)[number].minival
        row(f"{candidate.cost.multiply_adds:,}", plus_minus(*minival), plus_minus(*tested))
    reached = findings(*family)
    assert reached.trained == reached.full == 30
    for point, number in zip(family.ablation.comparison.points, family.ablation.numbers, strict=True):
        one = reached.measured[number]
        row(
            point.kind,
            f"{point.factor:g}",
            f"{point.candidate.cost.multiply_adds:,}",
            plus_minus(*one.minival),
            plus_minus(*one.test),
        )
    gone = carried(*carriage)
    assert gone.trained == gone.full == 18
    for number, source in enumerate(carriage.transfer.sources):
        own, other = (gone.measured[number + i * len(carriage.transfer.sources)] for i in range(2))
        row(source.name, plus_minus(*own.test), plus_minus(*other.test))
    for gain in gone.gains:
        assert f"{gain.points:+.2f} ± {gain.half:.2f}" in told
    lines = [json.loads(line) for line in (folder / "supernet" / "ranks.jsonl").read_text().splitlines()]
    for kind in ("supernet", "short"):
        known = [line for line in lines if line[kind] is not None]
        found = rank([line[kind] for line in known], [line["full"] for line in known])
        assert found.networks >= 20
        assert f"{found.tau:.2f} ({found.low:.2f} to {found.high:.2f})" in told
