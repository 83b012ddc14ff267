"""The page of a study says its numbers, sorts and shows points in a browser, and lets nothing from outside run."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import browser
from tests.test_page import NASTY, Reader
from trifold.report import study_style
from trifold.report.contents import Fact
from trifold.report.markup import text
from trifold.report.study_axes import make_axis
from trifold.report.study_charts import draw_dots, draw_plot
from trifold.report.study_contents import Dots, Plot, Point, Row, Series, StudyPage, Table, Value
from trifold.report.study_markup import address, look, text_width, wrapped
from trifold.report.study_page import draw_study, study_html
from trifold.report.study_points import shade_colour

RUN = "runs/00-seed-0-ab12cd34/report.html"


def row(direction: str, accuracy: float, *, link: str = "") -> tuple[Value, ...]:
    shown = "" if math.isnan(accuracy) else f"{accuracy:.1f} %"
    return Value(direction, direction, link), Value(shown, accuracy)


TABLE = Table(
    "Candidates",
    ("direction", "accuracy"),
    (row("width", 61.5, link=RUN), row("depth", 63.2), row("failed", math.nan), row("Compound", 64.0)),
    "Marked: the best.",
    marked=(3,),
)
PLOT = Plot(
    "Ablation",
    "multiply-adds",
    "accuracy (%)",
    (
        Series("depth", tuple(Point(x * 1e6, 60 + x, f"{x}x, mean of 3", 59.5 + x, 60.5 + x) for x in (1, 2, 4))),
        Series("width", tuple(Point(x * 1e6, 60 + x, f"{x}x, one seed", math.nan, math.inf) for x in (1, 2, 4))),
        Series("law", (Point(1e6, 61, ""),), dashed=True, band=((1e6, 60, 62), (4e6, 63, 66))),
    ),
    "Bars: 95 % over seeds.",
    log_x=True,
)
DOTS = Dots(
    "Means",
    "accuracy (%)",
    ("fitted", "raw"),
    (Row("depth", (Point(0, 63.2, "", 62, 64), Point(0, 62.9, ""))), Row("width", (Point(0, 61, ""),), marked=True)),
)
SHARES = Plot(
    "Map",
    "depth's share",
    "width's share",
    (Series("", (Point(0, 1, "wide", shade=0.0, link=RUN), Point(1, 0, "deep", shade=1.0)), joined=False),),
    shade_low="61.5 %",
    shade_high="64.0 %",
)
PAGE = StudyPage(
    title="alpha, beta, gamma for cifar16 on cifar10",
    question="Where should a doubled budget go?",
    answer="Into all three: 64.0 %.",
    notes=("One seed is a smoke test.",),
    blocks=(TABLE, PLOT, DOTS, SHARES),
    command="trifold study --seeds 3 \\\n  --out results",
    machine=(Fact("threads", "2"),),
    versions=(Fact("torch", "2.13.0"),),
)


def hrefs(source: str) -> list[str]:
    return re.findall(r'href="([^"]*)"', source)


def titles(drawn: str) -> list[str]:
    return re.findall(r"(?s)<title>(.*?)</title>", drawn)


@pytest.mark.parametrize(
    "said",
    [
        "alpha, beta, gamma for cifar16 on cifar10",
        "Where should a doubled budget go? Into all three: 64.0 %. One seed is a smoke test.",
        "Candidates Marked: the best. direction accuracy width 61.5 % depth 63.2 % failed – Compound 64.0 %",
        "depth 1x, mean of 3 multiply-adds: 1M accuracy (%): 61 (60.5 to 61.5)",
        "width 4x, one seed multiply-adds: 4M accuracy (%): 64",
        "depth fitted accuracy (%): 63.2 (62 to 64)",
        "Bars: 95 % over seeds.",
        "61.5 % 64.0 %",
        "To repeat it trifold study --seeds 3 \\ --out results",
        "Machine threads 2 Versions torch 2.13.0",
    ],
)
def test_the_page_says(said: str) -> None:
    assert said in Reader(study_html(PAGE)).text


def test_only_the_one_script_may_run_and_nothing_be_loaded() -> None:
    source = study_html(PAGE)
    scripts = re.findall(r"(?s)<script>(.*?)</script>", source)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', source)
    assert policy is not None
    assert policy[1].startswith("default-src 'none';")
    assert re.findall(r"script-src ([^;]*)", policy[1]) == [f"'sha256-{digest}'"]
    assert len(scripts) == source.count("<script") == 1
    assert not re.search(r"(?i)https?:|@import|url\(|<link|<iframe", source)
    assert set(hrefs(source)) == {RUN}


@pytest.mark.parametrize(
    ("link", "found"),
    [
        (RUN, RUN),
        ("../runs/a b/ß#1?.html", "../runs/a%20b/%C3%9F%231%3F.html"),
        ("runs/12:30/report.html", "runs/12%3A30/report.html"),
        ('runs/"><script>', "runs/%22%3E%3Cscript%3E"),
        *((link, "") for link in ("javascript:alert(1)", " javascript:alert(1)", "java\nscript:alert(1)", "data:,x")),
        *((link, "") for link in ("", "/etc/passwd", "//host/x", "https://host", "\\\\host\\x", "a\udcff", "C:\\x")),
    ],
)
def test_links_are_relative_paths_or_dropped(link: str, found: str) -> None:
    assert address(link) == found


@pytest.mark.parametrize(
    ("orders", "ranks"),
    [
        ((3.0, 1, 2.5), ("2", "0", "1")),
        ((1.0, 1.0, 0.0), ("1", "1", "0")),
        (("b", "A", 7.0), ("2", "1", "0")),
        ((math.nan, "", -math.inf), ("", "", "0")),
    ],
)
def test_cells_hold_their_place_in_the_order(orders: tuple[float | str, ...], ranks: tuple[str, ...]) -> None:
    rows = tuple((Value("x", 0.0), Value("y", order)) for order in orders)
    source = study_html(PAGE._replace(blocks=(Table("t", ("a", "b"), rows),)))
    cells = re.findall(r"<td([^>]*)>", source.split("</thead>")[1].split("</table>")[0])
    assert tuple("".join(re.findall(r'data-rank="(\d+)"', cell)) for cell in cells) == ranks


def test_marked_rows_stand_out() -> None:
    assert re.findall(r'<tr class="marked"><th[^>]*><bdi>(\w+)', study_html(PAGE)) == ["Compound"]
    assert draw_dots(DOTS).count('<g class="row marked"><title>width</title><rect') == 1


def test_intervals_are_drawn_where_both_ends_are_known() -> None:
    assert draw_plot(PLOT).count('class="interval"') == 3
    assert draw_dots(DOTS).count('class="interval"') == 1
    assert "nan" not in draw_plot(PLOT)


def test_points_of_several_series_at_one_place_stand_beside_each_other() -> None:
    places = [float(x) for x in re.findall(r"translate\(([\d.]+) ", draw_plot(PLOT))]
    assert [round(b - a, 1) for a, b in zip(places[:3], places[3:6], strict=True)] == [9.0, 9.0, 9.0]


def test_a_line_runs_in_order_of_x_and_leaves_gaps() -> None:
    ys = {3.0: 1.0, 1.0: 1.0, 2.0: math.nan, 4.0: 2.0, math.inf: 1.0}
    drawn = draw_plot(Plot("t", "x", "y", (Series("s", tuple(Point(x, y, "") for x, y in ys.items())),)))
    path = re.search(r'class="line" d="([^"]*)"', drawn)
    assert path is not None
    assert re.findall("[ML]", path[1]) == ["M", "M", "L"]
    assert [re.findall("x: (.*)", title) for title in titles(drawn)] == [["1"], ["3"], ["4"]]


def test_shades_run_along_the_scale_and_have_a_key() -> None:
    assert [shade_colour(share) for share in (-1.0, 0.0, 0.2, 0.3, 1.0, 2.0)] == [
        "#00224e", "#00224e", "#35456c", "#4e576e", "#fee838", "#fee838",
    ]  # fmt: skip
    source = study_html(PAGE._replace(blocks=(SHARES,)))
    assert re.findall(r"<path [^>]*fill:(#\w+)", source) == ["#00224e", "#fee838"]
    assert '<span><bdi>61.5 %</bdi></span><i class="ramp"></i><span><bdi>64.0 %</bdi></span>' in source


def test_the_first_64_series_have_looks_of_their_own() -> None:
    assert len({look(i) for i in range(64)}) == 64
    assert len({look(i)[0] for i in range(8)}) == len({look(i)[1] for i in range(8)}) == 8


def test_a_legend_of_many_series_is_folded_away() -> None:
    def plot(num: int) -> str:
        series = tuple(Series(f"run {i}", (Point(1, i, ""), Point(2, i, ""))) for i in range(num))
        return study_html(PAGE._replace(blocks=(Plot("t", "x", "y", series),)))

    assert "<details" not in plot(8)
    assert "<details><summary>20 series</summary>" in plot(20)


VISIONS = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deuteranopia": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "tritanopia": ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
}
"""What is left of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1)."""
PALETTES = pytest.mark.parametrize(
    ("colours", "page"), [(study_style.LIGHT, "#ffffff"), (study_style.DARK, "#15181c")], ids=["light", "dark"]
)


def linear(colour: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def xyz(rgb: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """CIE XYZ of linear sRGB, white being 1, 1, 1."""
    to_xyz = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0178, 0.1095, 0.8727]])
    return to_xyz @ np.clip(rgb, 0, 1)


@PALETTES
def test_colours_are_seen_on_their_page(colours: tuple[str, ...], page: str) -> None:
    for colour in colours:
        dark, light = sorted(xyz(linear(each))[1] for each in (colour, page))
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


@PALETTES
@pytest.mark.parametrize("vision", VISIONS)
def test_colours_differ_for_colour_blind_readers(colours: tuple[str, ...], page: str, vision: str) -> None:
    def lab(colour: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        x, y, z = np.cbrt(xyz(np.array(VISIONS[vision]) @ linear(colour)))  # the straight part near black is left out
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    for one, other in combinations(colours, 2):
        assert np.linalg.norm(lab(one) - lab(other)) > 20, (one, other)


@pytest.mark.parametrize(
    ("values", "log", "labels"),
    [
        ((1e6, 2e6, 4e6, 8e6), True, ("1M", "2M", "4M", "8M")),
        ((1.003e6, 8.1e6), True, ("1M", "2M", "4M", "8M")),
        ((1.5e6, 3e6), True, ("1.5M", "3M")),
        ((1e3, 1e9), True, ("1000", "10k", "100k", "1M", "10M", "100M", "1e9")),
        ((60.4, 64.9), False, ("61", "62", "63", "64", "65")),
        ((0.0, 1.0), False, ("0", "0.2", "0.4", "0.6", "0.8", "1")),
        ((123456.0, 123457.0), False, ("123456", "123456.2", "123456.4", "123456.6", "123456.8", "123457")),
    ],
)
def test_ticks_are_round(values: tuple[float, ...], log: bool, labels: tuple[str, ...]) -> None:
    assert make_axis(values, most=7, log=log).labels == labels


@given(st.lists(st.floats(), max_size=5), st.booleans())
def test_axes_hold_any_values(values: list[float], log: bool) -> None:
    axis = make_axis(values, most=6, log=log)
    assert axis.low < axis.high
    assert len(axis.ticks) == len(set(axis.labels)) >= 2
    kept = [value for value in values if abs(value) < 1e100 and (not log or value > 1e-100)]
    assert all(0 <= axis.place(value) <= 1 for value in (*kept, *axis.ticks))


def test_long_names_take_two_lines_and_lose_their_middle() -> None:
    assert wrapped("short", 200, 15) == ("short",)
    assert wrapped("alpha 1.20, beta 1.10, gamma 1.15", 200, 15) == ("alpha 1.20, beta 1.10,", "gamma 1.15")
    for lines in (wrapped("深" * 99 + "7", 200, 15), wrapped("W" * 99 + "7", 200, 15)):
        assert lines[1].startswith("…")
        assert lines[1].endswith("7")
        assert all(text_width(line, 15) <= 200 for line in lines)


NAMES = st.text(max_size=20) | st.sampled_from([*NASTY, "word " * 60, "x" * 500, "\u2066\u2067\u200f", "]]><!--"])
VALUES = st.builds(Value, NAMES, st.floats() | NAMES, NAMES)
POINTS = st.builds(Point, *[st.floats()] * 2, NAMES, *[st.none() | st.floats()] * 3, NAMES)
POINT_LISTS = st.lists(POINTS, max_size=3).map(tuple)
BANDS = st.lists(st.tuples(*[st.floats()] * 3), max_size=3).map(tuple)
SERIES = st.builds(Series, NAMES, POINT_LISTS, st.booleans(), st.booleans(), BANDS)
TABLES = st.builds(
    Table, NAMES, st.tuples(NAMES, NAMES), st.lists(st.tuples(VALUES, VALUES), max_size=3).map(tuple), NAMES
)
PLOTS = st.builds(
    Plot, NAMES, NAMES, NAMES, st.lists(SERIES, max_size=3).map(tuple), NAMES, st.booleans(), NAMES, NAMES
)
DOT_PLOTS = st.builds(
    Dots,
    NAMES,
    NAMES,
    st.lists(NAMES, max_size=2).map(tuple),
    st.lists(st.builds(Row, NAMES, POINT_LISTS, st.booleans()), max_size=3).map(tuple),
    NAMES,
)
FACTS = st.tuples(st.builds(Fact, NAMES, NAMES))
PAGES = st.builds(
    StudyPage, NAMES, NAMES, NAMES, st.tuples(NAMES), st.tuples(TABLES, PLOTS, DOT_PLOTS), NAMES, FACTS, FACTS
)
DRAWN = r'\s(?:d|x|y|width|height|viewBox|transform)="([^"]*)"'


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PAGES)
def test_whatever_comes_from_outside_is_shown_and_never_run(page: StudyPage) -> None:
    source = study_html(page)
    read = Reader(source)  # checks that tags close in order
    source.encode("utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", source)
    assert [tag for tag, _ in read.tags].count("script") == 1
    assert {tag for tag, _ in read.tags}.isdisjoint({"img", "link", "iframe", "object", "base", "form"})
    assert not [key for _, attributes in read.tags for key in attributes if key.startswith("on")]
    assert all(link and not re.match(r"/|[^/]*:", link) for link in hrefs(source))
    assert not re.search("nan|inf", "".join(re.findall(DRAWN, source)))
    for said in (page.title, page.question, page.answer, page.blocks[0].title):
        assert f"<bdi>{text(said)}</bdi>" in source


@pytest.mark.parametrize("num", [0, 1, 2, 200])
def test_any_number_of_rows_and_points_is_drawn(num: int) -> None:
    rows = tuple(row(f"a rather long name of a candidate, number {i}", 60.0) for i in range(num))
    points = tuple(Point(1.0, 60.0, "") for _ in range(num))
    dots = tuple(Row(cells[0].shown, (point,)) for cells, point in zip(rows, points, strict=True))
    blocks = (
        Table("t", ("a", "b"), rows),
        Plot("p", "x", "y", (Series("s", points),), log_x=True),
        Dots("d", "x", ("mean",), dots),
    )
    source = study_html(PAGE._replace(blocks=blocks))
    assert source.count('class="point') == 2 * num
    assert source.count("<tr><th") == num + (num > 0) + 2  # the heads, machine and versions too
    assert source.count("Nothing to") == (3 if num == 0 else 0)


def test_a_study_is_written_whole(tmp_path: Path) -> None:
    draw_study(PAGE, tmp_path / "study.html")
    assert [(item.name, item.read_text("utf-8")) for item in tmp_path.iterdir()] == [("study.html", study_html(PAGE))]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    if browser.PROGRAM is None:
        pytest.skip(f"none of {', '.join(browser.NAMES)} is installed")
    with browser.open_browser(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture
def opened(tab: browser.Tab, tmp_path: Path) -> browser.Tab:
    run = tmp_path / RUN
    run.parent.mkdir(parents=True)
    run.write_text("<title>a run</title>")
    draw_study(PAGE, tmp_path / "study.html")
    tab.open(tmp_path / "study.html")
    return tab


def shown_rows(tab: browser.Tab) -> list[str]:
    return list(tab.run("[...document.querySelectorAll('.sorts tbody th')].map((cell) => cell.textContent)"))


def tip(tab: browser.Tab, block: int) -> list[str]:
    """What the tooltip of a chart says, nothing where it is hidden."""
    found = f"document.querySelectorAll('.tip')[{block}]"
    return list(tab.run(f"{found}.hidden ? [] : [...{found}.children].map((line) => line.textContent)"))


def test_a_browser_opens_the_file_without_complaint_or_request(opened: browser.Tab) -> None:
    assert opened.run("document.querySelector('button.copy').hidden") is False
    assert [address for address in opened.requests if not address.startswith("file:")] == []
    assert len(opened.requests) == 1
    assert opened.complaints == []


def test_a_click_on_a_head_sorts_and_a_second_reverses(opened: browser.Tab) -> None:
    assert shown_rows(opened) == ["width", "depth", "failed", "Compound"]
    opened.click(".sorts th:nth-child(2) button")
    assert shown_rows(opened) == ["width", "depth", "Compound", "failed"]
    assert opened.run("document.querySelector('[aria-sort]').ariaSort") == "ascending"
    opened.press("Enter")
    assert shown_rows(opened) == ["Compound", "depth", "width", "failed"]
    assert opened.run("document.querySelector('[aria-sort]').ariaSort") == "descending"
    opened.click(".sorts th:first-child button")
    assert shown_rows(opened) == ["Compound", "depth", "failed", "width"]
    assert opened.run("document.querySelectorAll('[aria-sort]').length") == 1
    assert opened.complaints == []


def test_a_point_tells_what_it_is_on_hover_and_by_keyboard(opened: browser.Tab) -> None:
    assert tip(opened, 0) == []
    opened.hover("[data-series='0'] .point:nth-of-type(2) .mark")
    said = ["depth", "2x, mean of 3", "multiply-adds: 2M", "accuracy (%): 62 (61.5 to 62.5)"]
    assert tip(opened, 0) == said
    assert opened.run("document.querySelector('.series.on').dataset.series") == "0"
    opened.hover("h1")
    assert tip(opened, 0) == []
    opened.press("Tab")
    opened.run("document.querySelector('svg.chart').focus()")
    assert tip(opened, 0)[:2] == ["depth", "1x, mean of 3"]
    opened.press("ArrowRight")
    assert tip(opened, 0) == said
    opened.press("ArrowDown")
    assert tip(opened, 0)[:2] == ["width", "2x, one seed"]
    opened.press("Escape")
    assert tip(opened, 0) == []
    assert opened.complaints == []


def test_the_legend_hides_a_series(opened: browser.Tab) -> None:
    hidden = "[...document.querySelectorAll('.series')].map((group) => getComputedStyle(group).display === 'none')"
    opened.click(".legend [data-series='1'] button")
    assert opened.run(hidden)[:3] == [False, True, False]
    assert opened.run("document.querySelector(\".legend [data-series='1'] button\").ariaPressed") == "false"
    opened.press("Enter")
    assert opened.run(hidden)[:3] == [False, False, False]


def test_a_click_on_a_point_opens_its_run(opened: browser.Tab) -> None:
    before = opened.loaded
    opened.click(".point .mark[style]")
    while opened.loaded == before:
        opened.run("new Promise((done) => setTimeout(done, 20))")
    assert opened.run("document.title") == "a run"


def test_a_browser_refuses_any_other_script(tab: browser.Tab, tmp_path: Path) -> None:
    other = "<script>document.title = 'ran'</script>"
    (tmp_path / "study.html").write_text(study_html(PAGE).replace("</main>", f"</main>{other}"))
    tab.open(tmp_path / "study.html")
    assert tab.run("document.title") == PAGE.title
    assert "Content Security Policy" in "".join(tab.complaints)
