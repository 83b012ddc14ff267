from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trifold import cli
from trifold.architecture import read
from trifold.baselines import find
from trifold.cost import cost
from trifold.scaling import PAPER, Multipliers, scale

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command line in an empty folder; returns status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trifold", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


def test_show_json_gives_the_counts_and_every_block(run: Run) -> None:
    status, out, err = run("show", "efficientnet_b0", "--json")
    answer = json.loads(out)
    assert (status, err) == (0, "")
    assert answer["parameters"] == 5_288_548
    assert answer["multiply_adds"] == 385_814_752
    assert answer["activations"] == 6_748_036
    assert answer["resolution"] == 224
    assert len(answer["blocks"]) == 19
    assert answer["blocks"][1]["operator"] == "mbconv"


def test_show_prints_the_papers_table_with_the_cost_of_each_row(run: Run) -> None:
    status, out, _ = run("show", "b0")
    assert status == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["4", "MBConv6,", "k5x5,", "SE", "56x56", "40", "2", "2", "46,640", "37,939,584", "1,003,920"] in rows
    assert ["total", "5,288,548", "385,814,752", "6,748,036"] in rows


def test_show_counts_other_classes_channels_and_resolutions(run: Run) -> None:
    answer = json.loads(run("show", "b0", "--json", "--classes", "10", "--in-channels", "1", "--resolution", "96")[1])
    assert answer["parameters"] == 4_007_548 + 1280 * 10 + 10 - 2 * 9 * 32
    assert answer["blocks"][0]["in_size"] == 96


def test_the_toml_that_show_prints_is_the_same_network(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(run("show", "efficientnet_es", "--toml")[1])
    assert read(tmp_path / "own.toml") == find("efficientnet_es")
    assert json.loads(run("show", "own.toml", "--json")[1])["parameters"] == 5_438_392


def test_scale_by_phi_gives_what_the_formula_gives(run: Run, tmp_path: Path) -> None:
    answer = json.loads(run("scale", "b0", "--phi", "2", "--json", "--out", "b0-2.toml")[1])
    expected = scale(find("b0"), PAPER.multipliers(2))
    assert answer["multiply_adds"] == cost(expected).multiply_adds
    assert answer["multipliers"] == pytest.approx({"depth": 1.44, "width": 1.21, "resolution": 1.3225})
    assert read(tmp_path / "b0-2.toml").stages == expected.stages


def test_scale_by_multipliers_gives_table_7s_compound_network(run: Run) -> None:
    answer = json.loads(
        run("scale", "b0", "--depth-factor", "1.4", "--width-factor", "1.2", "--resolution-factor", "1.3", "--json")[1]
    )
    expected = scale(find("b0"), Multipliers(depth=1.4, width=1.2, resolution=1.3))
    assert answer["multiply_adds"] == cost(expected).multiply_adds
    assert 1.7e9 < answer["multiply_adds"] < 1.9e9


def test_scale_to_a_budget_says_what_binds_and_what_is_unused(run: Run) -> None:
    status, out, _ = run("scale", "b0", "--budget", "multiply-adds=1.5e9,params=8M")
    assert status == 0
    assert "binding: parameters; unused: multiply-adds 54.7 %, parameters 0.9 %" in out
    answer = json.loads(run("scale", "b0", "--budget", "size=30MB", "--fill-width", "--json")[1])
    assert answer["width_adjustment"] > 1
    assert answer["file_bytes"] <= 30e6


def test_a_familys_own_rounding_is_used_and_can_be_changed(run: Run) -> None:
    width = ("--width-factor", "1.2", "--json")
    assert json.loads(run("scale", "v2_b0", *width)[1])["architecture"]["stages"][0]["channels"] == 16
    changed = run("scale", "v2_b0", *width, "--keep-ratio", "0.9")[1]
    assert json.loads(changed)["architecture"]["stages"][0]["channels"] == 24
    assert json.loads(run("scale", "lite0", *width)[1])["architecture"]["stem"]["channels"] == 32


def test_list_filters_by_a_pattern(run: Run) -> None:
    names = [row["name"] for row in json.loads(run("list", "efficientnetv2_b?", "--json")[1])]
    assert names == ["efficientnetv2_b0", "efficientnetv2_b1", "efficientnetv2_b2", "efficientnetv2_b3"]


def test_explain_says_it_in_numbers_and_words(run: Run) -> None:
    status, out, _ = run("explain", "b3")
    assert status == 0
    assert "B3 is B0 with depth x 1.4, width x 1.2 and images of 300" in out
    answer = json.loads(run("explain", "b3", "--json")[1])
    assert [round(row["implied_phi"], 2) for row in answer["dimensions"]] == [1.85, 1.91, 2.09]


def test_paper_prints_a_table_or_all_with_what_needs_training(run: Run) -> None:
    status, out, _ = run("paper", "2")
    assert status == 0
    assert "66,347,960" in out
    everything = json.loads(run("paper", "--json")[1])
    assert {"1", "2", "3", "6", "7", "phi"} <= {table["number"] for table in everything["tables"]}
    assert "Figure 8" in {row["what"] for row in everything["needs_training"]}


def test_the_tiny_rule_rounds_layers_to_nearest_so_that_depth_shrinks(run: Run) -> None:
    tiny = json.loads(run("scale", "b0", "--phi", "-2", "--rule", "tiny", "--json")[1])
    assert [stage.get("layers", 1) for stage in tiny["architecture"]["stages"]] == [1, 2, 2, 2, 2, 3, 1]
    up = json.loads(run("scale", "b0", "--phi", "-2", "--rule", "tiny", "--depth-rounding", "ceil", "--json")[1])
    assert [stage.get("layers", 1) for stage in up["architecture"]["stages"]] == [1, 2, 2, 3, 3, 4, 1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("explain", "b99"), "network 'b99' is not known"),
        (("paper", "9"), "table must be one of 1, 2"),
        (("paper", "4"), "latency is measured"),
        (("show", "b77"), "network 'b77' is not known; did you mean"),
        (("show", "none.toml"), "none.toml: cannot be read: No such file"),
        (("show", "b0", "--classes", "-1"), "num_classes must be a whole number from 0"),
        (("show", "b0", "--classes", "x"), "is not a valid integer"),
        (("show", "b0", "--resolution", "0"), "resolution must be a whole number from 4 to 8192, got 0"),
        (("show",), "Missing argument 'NET'"),
        (("list", "x*"), "no network matches 'x*'"),
        (("scale", "b0"), "scale needs one of --phi, --budget"),
        (("scale", "b0", "--phi", "1", "--width-factor", "2"), "scale needs one of --phi, --budget"),
        (("scale", "b0", "--phi", "1", "--fill-width"), "--fill-width needs --budget"),
        (("scale", "b0", "--width-factor", "2", "--alpha", "3"), "--alpha needs --phi or --budget"),
        (("scale", "b0", "--width-factor", "2", "--rule", "fast"), "--rule needs --phi or --budget"),
        (("scale", "b0", "--phi", "13"), "phi must be a number from -3 to 12, got 13"),
        (("scale", "b0", "--phi", "nan"), "phi must be a number from -3 to 12, got nan"),
        (("scale", "b0", "--phi", "1", "--rule", "wide"), "--rule must be compound or depth"),
        (("scale", "b0", "--phi", "1", "--alpha", "0.5"), "alpha must be a number from 1 to 4, got 0.5"),
        (("scale", "b0", "--phi", "1", "--divisor", "0"), "divisor must be a whole number from 1 to 256, got 0"),
        (("scale", "b0", "--phi", "1", "--depth-rounding", "up"), "depth must be ceil or nearest, got 'up'"),
        (("scale", "b0", "--phi", "9", "--rule", "depth"), "stages row 2: scaling gives layers 1,024; at most 1,000"),
        (("scale", "b0", "--budget", "params=1"), "parameters at most 1 (the smallest network has"),
        (("scale", "b0", "--budget", "flops=1"), "say multiply-adds"),
        (("family", "b0", "--phi", "a..b"), "--phi must be a range such as 0..7"),
        (("family", "b0", "--picture", "curves.gif"), "--picture must end in .png or .svg or .pdf, got 'curves.gif'"),
        (("family", "b0", "--phi", "7..0"), "--phi holds no value"),
        (("fly",), "No such command 'fly'"),
        (("scale", "b0", "--phi", "1", "--out", "scaled.json"), "--out must end in .toml, got 'scaled.json'"),
        (("show", "new\nline.toml"), "line.toml: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run: Run, arguments: tuple[str, ...], says: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_networks_name_never_leads_out_of_the_folder(run: Run, tmp_path: Path) -> None:
    text = run("show", "mini", "--toml")[1].replace('"efficientnet_mini"', '"../../evil/näme"')
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    status, out, _ = run("family", "own.toml", "--phi", "0,1", "--json")
    assert status == 0
    assert json.loads(out)["picture"] == "evil-näme-family.png"
    assert (tmp_path / "evil-näme-family.png").is_file()


def test_a_file_that_cannot_be_written_is_one_line_and_status_1(run: Run) -> None:
    status, _, err = run("scale", "b0", "--phi", "1", "--out", "no/such/folder.toml")
    assert status == 1
    assert err == "trifold: no/such/folder.toml: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments", [["show", "b0"], ["scale", "b0", "--phi", "1"], ["scale", "b0", "--budget", "params=9M"]]
)
def test_describing_and_scaling_load_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from trifold import cli; sys.argv[:] = ['trifold', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print([m for m in ('torch', 'numpy', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
