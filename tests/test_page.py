"""The page of a run says its numbers, shows names as they are and needs nothing from outside itself."""

from __future__ import annotations

import io
import math
import re
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB

from trifold.report.charts import Frame, course_charts, draw_chart, frame, number_label, share_label
from trifold.report.contents import (
    Calibration,
    CalibrationBin,
    ClassRow,
    ConfusedPair,
    Event,
    Fact,
    Grid,
    Headline,
    KeyFigures,
    Rates,
    Recipe,
    RunPage,
    Setting,
)
from trifold.report.figures import Confusion, Curves
from trifold.report.markup import duration, table, text
from trifold.report.page import draw_page, page_html
from trifold.report.sections import cautions
from trifold.train.evaluate import wilson
from trifold.train.metrics import Quality, most_confused, quality

NASTY = (
    '<script>alert("1")</script>',
    "a\"b'c & <img src=x onerror=alert(2)>",
    "حرف",
    "🦊🐻",
    "\u202ereversed",
    "a\x00b\udcff",
)


def png(pixels: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@cache
def digits() -> tuple[Quality, tuple[ConfusedPair, ...]]:
    """A plain classifier's test results on scikit-learn's digits, and its confusions with their images."""
    data = load_digits()
    model = GaussianNB(var_smoothing=1e-3).fit(data.data[:1200], data.target[:1200])
    images, labels = data.images[1200:], data.target[1200:]
    chances = torch.as_tensor(model.predict_proba(data.data[1200:]))
    names = tuple(map(str, range(10)))
    found, predicted = quality(chances, torch.as_tensor(labels), names), chances.argmax(1).numpy()
    pairs = []
    for pair in most_confused(found.confusion, names):
        where = np.flatnonzero((labels == int(pair.true)) & (predicted == int(pair.predicted)))[:4]
        pictures = tuple(png((images[i] * 15.9).astype(np.uint8)) for i in where)
        pairs.append(ConfusedPair(pair.true, pair.predicted, pair.num, pair.share, pictures))
    return found, tuple(pairs)


def class_rows(found: Quality) -> tuple[ClassRow, ...]:
    images = map(sum, found.confusion)
    return tuple(map(ClassRow, found.classes, images, found.precision, found.recall, found.f1))


def calibration(found: Quality) -> Calibration:
    bins = tuple(
        CalibrationBin(part.confidence, part.accuracy, part.count)
        for part in found.bins
        if part.confidence is not None and part.accuracy is not None
    )
    return Calibration(found.calibration_error, bins)


def course(num: int) -> tuple[Curves, Rates]:
    epochs, steps = tuple(range(1, num + 1)), tuple(range(1, 45 * num + 1, 9))
    curves = Curves(
        epochs=epochs,
        train_loss=tuple(0.55 + 1.9 * math.exp(-epoch / 6) for epoch in epochs),
        minival_loss=tuple(0.06 + 2.2 * math.exp(-epoch / 5) + 0.02 * math.sin(3 * epoch) for epoch in epochs),
        minival_accuracy=tuple(min(1.0, 0.985 - 0.8 * math.exp(-epoch / 4)) for epoch in epochs),
        chosen=max(1, num - 2),
    )
    whole = max(steps)
    rates = tuple(0.004 * min(step / 135, (1 + math.cos(math.pi * step / whole)) / 2) for step in steps)
    return curves, Rates(steps, rates)


SETTINGS = (
    Setting("epochs", "30", "60"),
    Setting("batch_size", "32", "32"),
    Setting("optimizer", "adamw", "adamw"),
    Setting("lr", "0.004", "0.002"),
    *(Setting(f"setting_{i}", "0.0", "0.0") for i in range(26)),
    Setting("precision", "float32", "float32"),
)
COST = Grid(
    columns=("stage", "operator", "channels", "layers", "resolution", "parameters", "multiply-adds"),
    rows=(
        ("stem", "conv 3×3", 16, 1, "16 × 16", 176, 36_864),
        ("1", "mbconv 3×3", 8, 1, "16 × 16", 724, 147_848),
        ("2", "mbconv 3×3", 24, 3, "8 × 8", 31_212, 1_204_480),
        ("head", "conv 1×1, linear", 128, 1, "4 × 4", 4_618, 51_456),
    ),
    total=("total", "", None, 6, "", 36_730, 1_440_648),
)


def make_page(
    *, found: Quality | None = None, pairs: tuple[ConfusedPair, ...] | None = None, epochs: int = 30
) -> RunPage:
    seen, confused = digits()
    found, pairs = found or seen, confused if pairs is None else pairs
    correct = round(found.top1 * found.total)
    low, high = wilson(correct, found.total)
    curves, rates = course(epochs)
    return RunPage(
        headline=Headline(
            data="digits",
            network="mini-1.4M",
            run="9f3c2a77d01be654",
            correct=correct,
            images=found.total,
            low=low,
            high=high,
            note="1,797 handwritten digits of 8 × 8 pixels, shown at 16 × 16.",
            yardstick=("three nearest neighbours by pixel distance", 0.962),
        ),
        key=KeyFigures(36_730, 1_440_648, 0.1642, epochs, 73.4, 1012.7, 0.0123),
        curves=curves,
        rates=rates,
        confusion=Confusion(found.classes, found.confusion),
        pairs=pairs,
        class_rows=class_rows(found),
        calibration=calibration(found),
        cost=COST,
        recipe=Recipe("small", "modern", SETTINGS),
        machine=(Fact("processor", "Example CPU at 2.1 GHz"), Fact("threads", "2"), Fact("memory", "16 GiB")),
        versions=(Fact("python", "3.11.9"), Fact("torch", "2.13.0+cpu"), Fact("trifold", "0.1.0")),
        split=(
            Fact("how", "stratified by class, seed 0"),
            Fact("train", "1,078 images"),
            Fact("minival", "359 images"),
            Fact("test", "360 images"),
        ),
        events=(Event("epoch 3, step 120", "resumed"), Event("epoch 9, step 402", "step skipped: loss was not finite")),
    )


def random_quality(classes: tuple[str, ...], images: int = 2000) -> Quality:
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, len(classes), (images,), generator=generator)
    logits = torch.randn(images, len(classes), generator=generator)
    logits[torch.arange(images), labels] += 3
    return quality(logits.softmax(1), labels, classes)


class Reader(HTMLParser):
    """Collects tags with their attributes and the text that a reader sees; checks that tags close in order."""

    VOID = frozenset({"meta", "img", "br", "path", "circle"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace("\u00a0", " ").split())


@pytest.fixture(scope="module")
def source() -> str:
    return page_html(make_page())


@pytest.fixture(scope="module")
def read(source: str) -> Reader:
    return Reader(source)


@pytest.mark.parametrize(
    "said",
    [
        "mini-1.4M on digits",
        "87.1 % of test images correct 95 % interval 84.2 % to 89.6 % · 520 of 597 images",
        "three nearest neighbours by pixel distance , 96.2 %",
        "One seed: a smoke test, not a result.",
        "parameters 36.7K 36,730",
        "multiply-adds 1.44M",
        "weights 0.164 MiB",
        "epochs 30 kept: 28",
        "wall time 1 min 13 s",
        "speed 1.01K images a second",
        "waiting for data 1.2 %",
        "The weights of epoch 28 were kept, chosen on minival (98.4 % correct there)",
        "Expected calibration error: 12.1 %",
        "total – 6 36,730 1,440,648",
        "Recipe small : 2 of 31 settings differ from its base, modern , and are marked.",
        "lr 0.004 0.002",
        "torch 2.13.0+cpu",
        "stratified by class, seed 0",
        "epoch 9, step 402 step skipped: loss was not finite",
        "difference of less than about 2.7 points",
    ],
)
def test_the_page_says(read: Reader, said: str) -> None:
    assert said in read.text


def test_sections_stand_in_this_order(source: str) -> None:
    assert re.findall("<h2>(.*?)</h2>", source) == [
        "Key figures",
        "Course",
        "Confusion matrix",
        "Most confused",
        "Classes",
        "Calibration",
        "Cost by stage",
        "Recipe",
        "Where it was made",
        "Events",
        "What not to conclude",
    ]


def test_nothing_comes_from_outside_and_the_file_is_small(source: str, read: Reader) -> None:
    for tag, attributes in read.tags:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "srcset", "data", "xlink:href"):
            assert (attributes.get(key) or "data:").startswith(("data:image/png;base64,", "data:"))
    assert not re.search(r"(?i)https?:|@import|url\(", source)
    assert len(source.encode()) < 200_000


def test_the_page_is_accessible(read: Reader) -> None:
    tags = [tag for tag, _ in read.tags]
    assert ("html", {"lang": "en"}) in read.tags
    assert tags.count("h1") == tags.count("title") == tags.count("main") == 1
    assert tags.count("img") == sum(len(pair.thumbnails) for pair in digits()[1]) > 8
    assert all(attributes.get("alt") for tag, attributes in read.tags if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in read.tags if tag == "svg")
    assert all(attributes.get("scope") in {"row", "col"} for tag, attributes in read.tags if tag == "th")
    assert tags.count("svg") == 4
    assert any(attributes.get("name") == "viewport" for _, attributes in read.tags)


def test_curves_are_described_in_words(read: Reader) -> None:
    labels = [attributes["aria-label"] for tag, attributes in read.tags if tag == "svg"]
    assert (
        labels[0] == "Loss (train (augmented), minival) over epochs; train (augmented): from 2.158 to 0.5628; "
        "minival: from 1.864 to 0.08333"
    )
    assert labels[1] == "Accuracy (minival) over epochs; minival: from 36.2\u00a0% to 98.5\u00a0%"
    assert str(labels[2]).startswith("Learning rate (learning rate) over steps; learning rate: from ")


def test_names_and_paths_from_outside_are_shown_and_never_run() -> None:
    found = random_quality(NASTY, 300)
    pairs = tuple(
        ConfusedPair(p.true, p.predicted, p.num, p.share, (b"",)) for p in most_confused(found.confusion, NASTY)
    )
    page = make_page(found=found, pairs=pairs)
    bad = NASTY[0] + NASTY[1]
    head = page.headline._replace(data=bad, network=bad, run=bad, note=bad, yardstick=(bad, 0.5))
    grid = Grid((bad, "n"), ((bad, 1),))
    page = page._replace(
        headline=head, cost=grid, events=(Event(bad, bad),), machine=(Fact(bad, bad),), cautions=(bad,)
    )
    page = page._replace(recipe=Recipe(bad, bad, (Setting(bad, bad, ""), Setting(bad, bad, bad))))
    source = page_html(page)
    read = Reader(source)
    assert "<script" not in source
    assert "<img src=x" not in source
    assert not [1 for tag, attributes in read.tags if tag == "img" and "onerror" in attributes]
    for shown in NASTY[:5]:
        assert shown in read.text
        assert f"<bdi>{text(shown)}</bdi>" in source
    assert "a\ufffdb\\udcff" in source
    alts = [attributes["alt"] for tag, attributes in read.tags if tag == "img"]
    assert alts[0] == f"{pairs[0].true} taken for {pairs[0].predicted}, image 1".translate({0: 0xFFFD}).replace(
        "\udcff", "\\udcff"
    )


def test_a_small_matrix_is_a_table_with_every_count(source: str) -> None:
    matrix = re.search(r'<table class="matrix">.*?</table>', source)
    assert matrix is not None
    rows = re.findall(r"<tr>(.*?)</tr>", matrix[0])[1:]
    counts = [tuple(int(cell or 0) for cell in re.findall(r"<td[^>]*>(\d*)</td>", row)) for row in rows]
    assert tuple(counts) == digits()[0].confusion


@pytest.mark.parametrize(
    ("num", "table_cells", "heat_map", "sentence"),
    [(20, 400, False, False), (21, 0, True, False), (100, 0, True, False), (101, 0, False, True)],
)
def test_the_matrix_suits_its_size(num: int, table_cells: int, heat_map: bool, sentence: bool) -> None:
    page = make_page(found=random_quality(tuple(f"class {i}" for i in range(num))), pairs=())
    source = page_html(page)
    matrix = re.search(r'<table class="matrix">.*?</table>', source)
    assert (matrix[0].count("<td") if matrix else 0) == table_cells
    assert ('<img class="heat"' in source) is heat_map
    assert ("101 classes are too many to draw" in source) is sentence


def test_a_thousand_classes_stay_below_the_size_of_a_photograph(tmp_path: Path) -> None:
    found = random_quality(tuple(f"a class with a long name {i}" for i in range(1000)))
    noise = np.random.default_rng(0).integers(0, 255, (96, 96), dtype=np.uint8)
    names = found.classes
    pairs = tuple(
        ConfusedPair(p.true, p.predicted, p.num, p.share, (png(noise),) * 4)
        for p in most_confused(found.confusion, names)
    )
    draw_page(make_page(found=found, pairs=pairs), tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").stat().st_size < 1_500_000


def test_what_is_not_known_is_a_dash_or_left_out() -> None:
    page = make_page(epochs=1, pairs=())
    head = page.headline._replace(note="", yardstick=None, seeds=3)
    key = page.key._replace(size_mib=None, images_per_second=None, waiting=None)
    bare = page._replace(headline=head, key=key, rates=Rates((), ()), events=(), machine=(), cost=Grid(("stage",), ()))
    read = Reader(page_html(bare._replace(recipe=Recipe("small", "small", SETTINGS[1:3]))))
    for said in (
        "weights – saved",
        "speed – images a second",
        "waiting for data –",
        "Mean of 3 seeds.",
        "The log has none: not resumed, no step skipped, not stopped early.",
        "No test image was given another class than its own.",
        "Recipe small : nothing differs from its base, small .",
    ):
        assert said in read.text
    assert "Learning rate" not in read.text
    assert "For comparison" not in read.text
    assert "Cost by stage" not in read.text
    assert "one seed says nothing" not in read.text


def test_cautions_name_small_classes_and_bad_calibration() -> None:
    page = make_page()._replace(cautions=("The test images are few.",))
    assert not any("Much from single classes" in sentence for sentence in cautions(page))
    assert "off by 12.1 % on average" in " ".join(cautions(page))
    few = page.class_rows[0]._replace(images=29)
    page = page._replace(class_rows=(few, *page.class_rows[1:]), calibration=Calibration(0.049, ()))
    assert "One class has fewer than 30 test images" in " ".join(cautions(page))
    assert "off by" not in " ".join(cautions(page))
    assert cautions(page)[-1] == "The test images are few."


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        draw_page(make_page(), path)
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("page.html", "old")]


def test_axes_hold_every_point() -> None:
    curves, rates = course(30)
    losses, accuracy, rate = map(frame, course_charts(curves, rates))
    assert losses.y_range == (0.0, 2.5)
    assert losses.x_ticks == (5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
    assert accuracy.y_range[1] <= 1
    assert accuracy.y_range[0] <= min(curves.minival_accuracy)
    assert rate.y_ticks == pytest.approx((0, 0.001, 0.002, 0.003, 0.004))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_axes_of_a_constant_accuracy_have_room(value: float) -> None:
    chart = course_charts(Curves((1,), (1.0,), (1.0,), (value,), 1), Rates((), ()))[1]
    axes = frame(chart)
    assert isinstance(axes, Frame)
    assert 0 <= axes.y_range[0] <= value <= axes.y_range[1] <= 1
    assert len(axes.y_ticks) >= 2
    assert draw_chart(chart).count("<circle") == 1


def test_losses_that_are_not_finite_leave_a_gap() -> None:
    curves = Curves((1, 2, 3, 4), (2.0, math.nan, 1.0, 0.5), (math.inf,) * 4, (0.5,) * 4, 4)
    drawn = draw_chart(course_charts(curves, Rates((), ()))[0])
    path = re.search(r'class="line blue" d="([^"]*)"', drawn)
    assert path is not None
    assert (path[1].count("M"), path[1].count("L")) == (2, 1)
    assert not re.search(r"nan|inf", drawn)


def test_a_long_line_is_thinned_and_keeps_its_end() -> None:
    steps = tuple(range(1, 100_001))
    chart = course_charts(course(3)[0], Rates(steps, tuple(1 / step for step in steps)))[2]
    assert len(chart.lines[0].points) == 100_000
    drawn = draw_chart(chart)
    assert 500 < len(re.findall("[ML]", drawn)) < 700
    assert "to 1e-5" in unescape(drawn)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (8.24, "8.2 s"),
        (59.96, "1 min 0 s"),
        (185.0, "3 min 5 s"),
        (822.0, "14 min"),
        (4320.0, "1 h 12 min"),
        (864000.0, "10 d 0 h"),
    ],
)
def test_durations_have_two_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_ticks_have_few_digits() -> None:
    values = (0.0, 0.25, 20.0, 1500.0, 2e4, 5e6, 1.5e-4)
    assert [number_label(value) for value in values] == ["0", "0.25", "20", "1500", "20k", "5M", "1.5e-4"]
    assert share_label(0.975) == "97.5\u00a0%"


def test_columns_of_numbers_stand_to_the_right() -> None:
    made = table(Grid(("name", "n", "word"), (("a", 1200, "x"), ("b", None, "y"))))
    assert '<th scope="col" class="number">n</th>' in made
    assert '<td class="number"><bdi>1,200</bdi></td><td><bdi>x</bdi></td>' in made
