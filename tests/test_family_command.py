"""`trifold family NET DATA`: which runs it takes, what it prints of them, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t

from tests.tiny import QUICK, TINY
from trifold import cli
from trifold.architecture import Architecture, to_toml
from trifold.cost import cost
from trifold.data.digits import open_digits
from trifold.data.sources import source_of
from trifold.scaling import PAPER, Coefficients, Rounding, family, scale
from trifold.study.family import Line, find_runs, trained_family
from trifold.train.record import Plan
from trifold.train.run import train

Run = Callable[..., tuple[int, str, str]]
FINE = Rounding(divisor=2, resolution_step=2)
LINE = Line(baseline=TINY, coefficients=PAPER, rounding=FINE)
ROUNDED = ("--divisor", "2", "--resolution-step", "2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs: four sizes, one of them twice, another recipe, a foreign network, a damaged record."""
    folder = tmp_path_factory.mktemp("family")
    whole = open_digits()
    data = replace(whole, samples=whole.samples[::6])
    recipe = replace(QUICK, epochs=1)
    (folder / "tiny.toml").write_text(to_toml(TINY))
    foreign = replace(TINY, stages=(replace(TINY.stages[0], kernel_size=5),))
    jobs = [(f"runs/deep/{phi}", member(phi), recipe, 0) for phi in range(4)]
    jobs += [
        ("studies/again", member(2), recipe, 1),
        ("studies/long", member(0), replace(recipe, epochs=2), 0),
        ("studies/long-1", member(1), replace(recipe, epochs=2), 0),
        ("studies/foreign", foreign, recipe, 0),
        ("studies/wide", replace(TINY, head=replace(TINY.head, channels=32)), recipe, 0),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trifold.train.run.draw", _draw_nothing)
        for name, architecture, how, seed in jobs:
            train(data, Plan(architecture=architecture, recipe=how, seed=seed), run_folder=folder / name)
    (folder / "studies" / "damaged").mkdir()
    (folder / "studies" / "damaged" / "record.json").write_text('{"id": "half')
    (folder / "studies" / "copy").mkdir()
    (folder / "studies" / "copy" / "record.json").write_text((folder / "runs/deep/0/record.json").read_text())
    return folder


def _draw_nothing(*given: object) -> None:
    pass


def member(phi: int) -> Architecture:
    return scale(TINY, PAPER.multipliers(phi), FINE)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trained: Path) -> Run:
    """Runs a command line in the folder of the trained networks; returns status, stdout and stderr."""
    monkeypatch.chdir(trained)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trifold", "family", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


def accuracy(trained: Path, name: str) -> float:
    record = json.loads((trained / name / "record.json").read_text())
    return float(record["result"]["test"]["accuracy"])


def test_the_curve_of_the_trained_networks_is_printed(run: Run, trained: Path) -> None:
    status, out, err = run("tiny.toml", "digits", "--phi", "0..9", *ROUNDED, "--json")
    assert (status, err) == (0, "")
    answer = json.loads(out)
    members = {one["phi"]: one for one in answer["members"]}
    assert list(members) == list(range(10))
    shares = [accuracy(trained, f"runs/deep/{phi}") for phi in range(4)]
    again = accuracy(trained, "studies/again")
    means = [*shares[:2], (shares[2] + again) / 2, shares[3]]
    assert [members[phi]["test"] for phi in range(4)] == pytest.approx([100 * one for one in means])
    assert [members[phi]["seeds"] for phi in range(5)] == [1, 1, 2, 1, None]
    assert members[0]["test_interval"] is None
    half = t.ppf(0.975, 1) * np.std([shares[2], again], ddof=1) / math.sqrt(2)
    assert members[2]["test_interval"] == pytest.approx(100 * half)

    costs = [cost(member(phi), num_classes=10, in_channels=1).multiply_adds for phi in range(4)]
    assert [members[phi]["multiply_adds"] for phi in range(4)] == costs
    slope, level = np.polyfit(np.log(costs), np.log([1 - one for one in means]), 1, w=np.sqrt([1, 1, 2, 1]))
    assert answer["curve"]["slope"] == pytest.approx(slope)
    fitted = 100 * (1 - min(1, math.exp(level + slope * math.log(members[4]["multiply_adds"]))))
    assert members[4]["fitted"] == pytest.approx(fitted)
    assert members[4]["interval"][0] <= fitted <= members[4]["interval"][1]
    assert answer["curve"]["runs"] == 5

    for one in members.values():
        assert (one["fitted"] is None) == (one["multiply_adds"] > 8 * costs[3])
    assert members[9]["fitted"] is None
    assert answer["back_test"]["multiply_adds"] == costs[3]
    assert answer["back_test"]["observed"] == pytest.approx(shares[3])
    assert answer["setting"]["recipe"]["epochs"] == 1
    assert answer["left_out"] == [{"runs": 2, "with": "epochs 2"}]
    assert answer["runs"] == (
        "9 runs found: 5 taken, 1 of other networks, 1 off the family's line, 2 of other settings; 1 record passed "
        "over, damaged or too old"
    )
    for picture in (answer["picture"], answer["accuracy_picture"]):
        with Image.open(trained / picture) as image:
            assert image.format == "PNG"
            assert min(image.size) >= 400


def test_the_table_says_what_stands_behind_it(run: Run) -> None:
    status, out, _ = run("tiny.toml", "digits", "--phi", "0,9", *ROUNDED, "--picture", "told.png")
    assert status == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[1][-4:] == ["test-%", "seeds", "fitted-%", "interval"]
    assert len([row for row in rows if row and row[0][0].isdigit() and "multiply-adds" not in row]) >= 5
    assert next(row for row in rows if row[0] == "9.000")[-4:] == ["-", "-", "-", "-"]
    assert "no prediction beyond 8 times the trained networks'" in out
    assert "interval: 95 %, for one run" in out
    assert out.count("back-test: ") == 1
    assert "from the smaller ones: predicted" in out
    assert "runs left out: 2 with epochs 2\n" in out
    assert out.endswith("cost curves: told.png\naccuracy curves: told-accuracy.png\n")


def test_of_three_networks_there_is_a_curve_but_no_back_test(run: Run, trained: Path) -> None:
    three = [word for phi in (0, 1, 3) for word in ("--runs", str(trained / f"runs/deep/{phi}"))]
    status, out, _ = run("tiny.toml", "digits", "--phi", "0..3", *ROUNDED, *three)
    assert status == 0
    assert "through 3 networks (3 runs" in out
    assert "too few for a back-test, 4 networks are needed" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tiny.toml", "digits", *ROUNDED, "--runs", "runs/deep/0", "--runs", "runs/deep/1"), "2 trained networks of"),
        (("tiny.toml", "digits", *ROUNDED, "--runs", "runs/deep/0"), "1 trained network of this family on digits"),
        (("tiny.toml", "digits"), "no curve: 1 trained network of"),  # other rounding: other networks
        (("mini", "digits"), "(9 runs found: 9 of other networks; 1 record passed over, damaged or too old)"),
        (("tiny.toml", "studies"), "0 trained networks of this family on studies, 3 of different "
         "cost are needed (9 runs found: 9 on other data"),
        (("tiny.toml", "digits", "--runs", "studies/damaged"), "0 runs found; 1 record passed over"),
    ],
)  # fmt: skip
def test_too_few_networks_leave_the_plain_table_and_one_line(run: Run, arguments: tuple[str, ...], says: str) -> None:
    status, out, err = run(*arguments, "--phi", "0,1")
    assert (status, err) == (0, "")
    plain = run(*[word for word in arguments if word in ("tiny.toml", "mini") or word in ROUNDED], "--phi", "0,1")[1]
    told = [line for line in out.splitlines() if line not in plain.splitlines()]
    assert len(told) == 1
    assert says in told[0]
    assert [line for line in out.splitlines() if line != told[0]] == plain.splitlines()


def test_where_no_run_folder_is_there_is_no_curve(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("mini", "digits", "--phi", "0,1", "--json")
    assert status == 0
    answer = json.loads(out)
    assert answer["curve"] is None
    assert answer["note"].endswith("3 of different cost are needed (0 runs found)")
    assert "test" not in answer["members"][0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tiny.toml", "nosuch"), "DATA must be there, or what a run was trained on, got 'nosuch'; the 9 runs found"),
        (("tiny.toml", "cifar10:/nosuch"), "DATA must be there"),
        (("tiny.toml", "digits", "--runs", "nosuch"), "--runs must be a folder, got 'nosuch'"),
        (("tiny.toml", "digits", "--runs", "tiny.toml"), "--runs must be a folder, got 'tiny.toml'"),
        (("tiny.toml", "--runs", "runs"), "--runs needs DATA"),
        (("tiny.toml", "digits", *ROUNDED, "--classes", "7"), "--classes must be 10, which the runs on digits have"),
        (("tiny.toml", "digits", *ROUNDED, "--in-channels", "3"), "--in-channels must be 1, which the runs"),
        (("tiny.toml", "digits", "--phi", "x"), "--phi must be a range"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run: Run, arguments: tuple[str, ...], says: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_records_that_do_not_hold_together_are_counted(trained: Path, tmp_path: Path) -> None:
    good = json.loads((trained / "runs/deep/0/record.json").read_text())

    def changed(number: int, change: Callable[[dict[str, Any]], object]) -> None:
        record = json.loads(json.dumps(good))
        change(record)
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "record.json").write_text(json.dumps(record))

    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda record: record["asked"].pop("recipe"),
        lambda record: record["asked"].update(architecture={"name": "x"}),
        lambda record: record["asked"].update(recipe={**QUICK.to_dict(), "unheard_of": 1}),
        lambda record: record["asked"].update(seconds="long"),
        lambda record: record["asked"].pop("weights"),
        lambda record: record["result"].update(cost={"multiply_adds": 1}),
        lambda record: record["result"].update(cost=[]),
        lambda record: record["result"].update(test={"classes": ["a"], "confusion": [[0]]}),
        lambda record: record["result"].update(test={"classes": ["a"], "confusion": [[[]]]}),
        lambda record: record["result"].pop("test"),
        lambda record: record.update(asked=[]),
    ]
    for number, change in enumerate(changes):
        changed(number, change)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "record.json").write_text("[]")
    (tmp_path / "folder" / "record.json").mkdir(parents=True)  # no file, so none to be read
    found = find_runs([tmp_path, tmp_path / "list"])
    assert found.runs == ()
    assert found.unreadable == len(changes) + 1


def test_the_setting_with_most_networks_is_taken(trained: Path) -> None:
    found = find_runs([trained / "runs", trained / "studies"])
    taken = trained_family(found.runs, "digits", LINE)
    assert taken.setting is not None
    assert taken.setting.recipe.epochs == 1
    assert [len(point.errors) for point in taken.points] == [1, 1, 2, 1]
    fewer = [run for run in found.runs if run.setting.recipe.epochs == 2 or run.architecture.resolution > 10]
    other = trained_family(fewer, "digits", LINE)
    assert other.setting is not None
    assert other.setting.recipe.epochs == 2
    assert other.left_out == ((1, "epochs 1"),)


def test_other_pretrained_weights_or_data_are_another_setting(trained: Path) -> None:
    runs = find_runs([trained / "runs"]).runs
    other = runs[0]._replace(id="other", setting=runs[0].setting._replace(weights="abc", data="new"))
    taken = trained_family([*runs, other], "digits", LINE)
    assert taken.left_out == ((1, "images that have changed since, or before, other pretrained weights"),)


def test_a_member_between_the_grids_phis_is_recognised(trained: Path) -> None:
    runs = find_runs([trained / "runs"]).runs
    members = family(TINY, [1.00005], PAPER, FINE)
    taken = trained_family(runs, "digits", replace(LINE, members=members))
    assert 1.00005 in [network.phi for network in taken.networks]
    direct = trained_family(runs, "digits", replace(LINE, coefficients=Coefficients(alpha=1, beta=1, gamma=2)))
    assert [network.architecture for network in direct.networks] == [TINY]


def test_data_are_named_as_records_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert source_of("digits") == "digits"
    assert source_of("./digits") == str(tmp_path.resolve() / "digits")
    assert source_of("link") == source_of("real/") == str(tmp_path.resolve() / "real")
    assert source_of("cifar10:real") == f"cifar10:{tmp_path.resolve() / 'real'}"
    assert source_of("list.csv") == str(Path("list.csv").absolute())


def test_without_data_no_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from trifold import cli; sys.argv[:] = ['trifold', 'family', 'b0', '--phi', '0,1']\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print([m for m in ('torch', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]"
