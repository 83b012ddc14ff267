from __future__ import annotations

import doctest
import math
import re
from pathlib import Path

import pytest

from trifold.architecture import Architecture
from trifold.baselines import EFFICIENTNET_MULTIPLIERS, find
from trifold.explain import HAND_STEP, HAND_STEP_PIXELS, as_table, explain
from trifold.paper import table
from trifold.published import PAPER_GROWTH, TINYNETS
from trifold.scaling import PAPER, RULES, Rounding, round_channels, round_layers
from trifold.table import Table, lines

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
TEXT = PAGE.read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def fences(language: str) -> list[str]:
    return [body for found, body in FENCE.findall(TEXT) if found == language]


def test_every_example_on_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-net.toml").write_text(fences("toml")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestParser().get_doctest("\n".join(fences("pycon")), {}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    results = doctest.DocTestRunner().run(example, out=said.append)
    assert results.failed == 0, "".join(said)
    assert results.attempted > 20


def shown(name: str) -> Table:
    return as_table(explain(name.removeprefix("explain "))) if name.startswith("explain ") else table(name)


def test_every_table_on_the_page_is_the_computed_one() -> None:
    tables = re.findall(r"^<!-- table: (.+?) -->\n```text\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in tables] == ["phi", "explain b4"]
    assert len(tables) == len(fences("text"))
    for name, text in tables:
        assert text == "\n".join(lines(shown(name))) + "\n"


def test_every_claim_about_the_formula_holds() -> None:
    at_1, at_2 = PAPER.multipliers(1), find("b2")
    assert (at_1.depth, at_1.width, round(224 * at_1.resolution)) == (1.2, 1.1, 258)
    assert EFFICIENTNET_MULTIPLIERS[at_2.name] == (1.1, 1.2, 260)
    assert (round(PAPER.growth, 2), PAPER_GROWTH) == (1.92, 2)
    assert (HAND_STEP, HAND_STEP_PIXELS) == (0.1, 20)
    assert [explain(f"b{i}").nominal_phi for i in (1, 2, 3)] == [0.5, 1, 2]
    assert all(explain(f"b{i}").single_phi for i in (1, 2, 3))
    for i in (4, 5, 6, 7):
        explanation = explain(f"b{i}")
        ordered = sorted(explanation.dimensions, key=lambda dimension: dimension.implied_phi)
        assert explanation.single_phi is None
        assert (ordered[-1].name, ordered[0].name) == ("resolution" if i < 6 else "width", "depth")
    assert all(explain(f"b{i}").multiply_adds_ratio > explain(f"b{i}").product for i in range(1, 8))


def total_stride(architecture: Architecture) -> int:
    return math.prod(block.stride for block in architecture.blocks())


def test_every_claim_about_rounding_and_small_networks_holds() -> None:
    defaults = Rounding()
    assert (defaults.divisor, defaults.keep_ratio, defaults.resolution_step) == (8, 0.9, 4)
    assert (round_channels(16, 1.2, defaults), round(16 * 1.2, 1), round_layers(1, 1.1, defaults)) == (24, 19.2, 2)
    tiny = RULES["tiny"]
    assert 2 * math.log2(tiny.beta) == pytest.approx(1 / 2, abs=0.02)
    assert math.log2(tiny.alpha) == pytest.approx(1 / 8, abs=0.01)
    assert len(TINYNETS) == 5
    assert (total_stride(find("b0")), total_stride(find("mini"))) == (32, 8)


def test_the_prose_has_no_other_number_than_these_tests_recompute() -> None:
    prose = FENCE.sub("", TEXT)
    prose = re.sub(r"`[^`]*`|arXiv [\d.]+|equation \d+|Table \d+", "", prose)
    numbers = set(re.findall(r"(?<![\w.])\d[\d.]*\d|(?<![\w.])\d", prose))
    assert numbers == set("2 1.92 1.2 1.1 1.15 1 258 0.5 20 0.1 8 0.9 16 19.2 24 4 64 32".split())  # noqa: SIM905  a list of words
