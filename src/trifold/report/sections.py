"""The sections of a run's page as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from trifold.report.charts import Chart, course_charts, data_uri, draw_chart, draw_heat_map, draw_reliability
from trifold.report.contents import (
    Calibration,
    ClassRow,
    ConfusedPair,
    Event,
    Grid,
    Headline,
    KeyFigures,
    Recipe,
    RunPage,
    Setting,
)
from trifold.report.figures import MAX_NUMBERED, Confusion, percent, short_number
from trifold.report.markup import duration, fact_table, name, scroll, section, share, table, text

MOST_DRAWN = 100
"""With more classes the matrix is left out."""

FEW_IMAGES = 30
MOST_THUMBNAILS = 4
_TINY = 64
"""Thumbnails of fewer pixels a side are enlarged without smoothing."""


def headline(head: Headline) -> str:
    """Data, network, accuracy with its interval, and what one seed is worth."""
    accuracy = head.correct / head.images
    seeds = "One seed: a smoke test, not a result." if head.seeds == 1 else f"Mean of {head.seeds} seeds."
    yardstick = ""
    if head.yardstick is not None:
        yardstick = f"<p>For comparison: {name(head.yardstick[0])}, {share(head.yardstick[1])}.</p>"
    return (
        f'<header><h1>{name(head.network)} on {name(head.data)}</h1><p class="soft small">run '
        f"<code>{name(head.run)}</code></p>"
        f'<div class="headline"><strong>{share(accuracy)}</strong><span>of test images correct<br>95 % interval '
        f"{share(head.low)} to {share(head.high)} · {head.correct:,} of {head.images:,} images</span></div>{yardstick}"
        + (f"<p>{', '.join(f'{name(s.name)} {name(s.value)}' for s in head.scores)}.</p>" if head.scores else "")
        + (f"<p>{name(head.note)}</p>" if head.note else "")
        + f'<p class="note">{seeds}</p></header>'
    )


def key_figures(key: KeyFigures, chosen: int) -> str:
    """The run in numbers."""
    items = [
        ("parameters", short_number(key.parameters), f"{key.parameters:,}"),
        ("multiply-adds", short_number(key.multiply_adds), "for one image"),
        ("weights", "–" if key.size_mib is None else f"{key.size_mib:.3g} MiB", "saved"),
        ("epochs", f"{key.epochs:,}", f"kept: {chosen}"),
        ("wall time", duration(key.seconds), "training"),
        ("speed", "–" if key.images_per_second is None else short_number(key.images_per_second), "images a second"),
        ("waiting for data", share(key.waiting), "of the time"),
    ]
    cells = "".join(f"<div><dt>{label}</dt><dd>{value}<small>{note}</small></dd></div>" for label, value, note in items)
    return section("Key figures", f'<dl class="key">{cells}</dl>')


def course(page: RunPage) -> str:
    """Losses, accuracy on minival and learning rate."""
    figures = "".join(_figure(chart) for chart in course_charts(page.curves, page.rates))
    best = page.curves.minival_accuracy[page.curves.epochs.index(page.curves.chosen)]
    said = (
        f"<p>The weights of epoch {page.curves.chosen} were kept, chosen on minival ({share(best)} correct there). The "
        "training loss is of augmented images and smoothed labels, so it may lie above minival's.</p>"
    )
    return section("Course", f'{said}<div class="panels">{figures}</div>')


def confusion_matrix(confusion: Confusion) -> str:
    """A table with numbers up to 20 classes, a heat map up to 100, beyond that a sentence."""
    num = len(confusion.classes)
    if num > MOST_DRAWN:
        inside = f"<p>{num:,} classes are too many to draw; the pairs most often confused follow.</p>"
    elif num > MAX_NUMBERED:
        legend = (
            f"{num} × {num} cells: rows are true classes from the top, columns predicted classes from the left, both "
            "in the order of the table of classes. Blue: correct. Orange: wrong, the stronger the larger its share of "
            "the true class."
        )
        alt = f"Confusion matrix of {num} classes; the pairs most often confused follow as text"
        inside = (
            f'<figure><img class="heat" src="{draw_heat_map(confusion)}" alt="{alt}">'
            f"<figcaption>{legend}</figcaption></figure>"
        )
    else:
        inside = _matrix(confusion)
    return section("Confusion matrix", inside)


def confused_pairs(pairs: Sequence[ConfusedPair]) -> str:
    """The pairs most often confused, each with some of its images."""
    if not pairs:
        return section("Most confused", "<p>No test image was given another class than its own.</p>")
    return section("Most confused", f'<ul class="pairs">{"".join(map(_pair, pairs))}</ul>')


def class_table(rows: Sequence[ClassRow]) -> str:
    """Images, precision, recall and F1 of each class."""
    cells = tuple((row.name, row.images, share(row.precision), share(row.recall), share(row.f1)) for row in rows)
    said = (
        "<p>Precision: of the images given the class, the share that are of it. Recall: of its own images, the share "
        "given the class. F1: their harmonic mean.</p>"
    )
    made = table(Grid(("class", "images", "precision", "recall", "F1"), cells))
    return section("Classes", said + scroll(made, "Classes", tall=len(rows) > 30))


def reliability(calibration: Calibration) -> str:
    """How far stated probabilities are to be believed."""
    images = sum(part.images for part in calibration.bins)
    stated = sum(part.images * part.confidence for part in calibration.bins) / max(1, images)
    correct = sum(part.images * part.accuracy for part in calibration.bins) / max(1, images)
    lean = "just as" if abs(stated - correct) < 0.005 else "more" if stated > correct else "less"
    than = "as" if lean == "just as" else "than"
    said = (
        f"<p>Expected calibration error: <strong>{share(calibration.error)}</strong>. The network states a probability "
        f"of {share(stated)} on average and {share(correct)} are correct: it is {lean} sure of itself {than} it should "
        "be. Points below the dotted line: too sure; a point's area grows with its number of images.</p>"
    )
    rows = tuple((share(part.confidence), share(part.accuracy), part.images) for part in calibration.bins)
    numbers = scroll(table(Grid(("stated", "correct", "images"), rows)), "Calibration as numbers")
    figure = f"<figure><h3>Correct, over stated probability</h3>{draw_reliability(calibration)}</figure>"
    return section("Calibration", f'{said}<div class="panels">{figure}{numbers}</div>')


def cost_table(cost: Grid) -> str:
    """What each stage of the network costs; nothing where it is not given."""
    if not cost.rows:
        return ""
    said = "<p>For one image; multiply-adds as the paper counts them.</p>"
    return section("Cost by stage", said + scroll(table(cost), "Cost by stage"))


def recipe_table(recipe: Recipe) -> str:
    """Every setting, those marked that differ from the base."""
    changed = [setting for setting in recipe.settings if setting.value != setting.base]
    same = [setting for setting in recipe.settings if setting.value == setting.base]
    base = f"<code>{name(recipe.base)}</code>"
    if not changed:
        said = f"<p>Recipe <code>{name(recipe.name)}</code>: nothing differs from its base, {base}.</p>"
    else:
        fields = f"{len(changed)} of {len(recipe.settings)} settings"
        said = f"<p>Recipe <code>{name(recipe.name)}</code>: {fields} differ from its base, {base}, and are marked.</p>"
        said += _changes(changed)
    half = -(-len(same) // 2)
    halves = [part for part in (same[:half], same[half:]) if part]
    tables = "".join(f"<div>{_settings(part)}</div>" for part in halves)
    return section("Recipe", f'{said}<div class="panels">{tables}</div>')


def facts(page: RunPage) -> str:
    """Machine, versions and split, side by side."""
    tables = (("Machine", page.machine), ("Versions", page.versions), ("How the data were split", page.split))
    inside = "".join(f"<div><h3>{title}</h3>{fact_table(rows)}</div>" for title, rows in tables if rows)
    return section("Where it was made", f'<div class="panels">{inside}</div>')


def events(found: Sequence[Event]) -> str:
    """What the log has out of the ordinary."""
    if not found:
        return section("Events", "<p>The log has none: not resumed, no step skipped, not stopped early.</p>")
    items = "".join(f"<li><b>{name(event.when)}</b>{name(event.what)}</li>" for event in found)
    return section("Events", f'<ul class="events">{items}</ul>')


def cautions(page: RunPage) -> tuple[str, ...]:
    """What the reader should not conclude from these numbers, as plain sentences."""
    head, found = page.headline, []
    half = 50 * (head.high - head.low)
    if head.seeds == 1:
        found.append(
            "That this network is better or worse than another: one seed says nothing about the spread between seeds. "
            "Train at least three of each."
        )
    found.append(
        f"That a difference of less than about {half:.1f} points means anything: the interval comes from "
        f"{head.images:,} test images alone."
    )
    found.append(
        "That the test accuracy stays fair when it is used to choose: compare on minival, and look at test once."
    )
    few = [row.name for row in page.class_rows if row.images < FEW_IMAGES]
    if few:
        who = f"{len(few)} of {len(page.class_rows)} classes have" if len(few) > 1 else "One class has"
        found.append(f"Much from single classes: {who} fewer than {FEW_IMAGES} test images.")
    if page.calibration.error >= 0.05:
        found.append(
            f"That a stated probability is a chance: they are off by {percent(page.calibration.error)} on average."
        )
    found.append("That images from elsewhere fare alike: test images come from the same source as those trained on.")
    return (*found, *page.cautions)


def caution_list(page: RunPage) -> str:
    """What the reader should not conclude."""
    items = "".join(f"<li>{name(sentence)}</li>" for sentence in cautions(page))
    return section("What not to conclude", f'<ul class="cautions">{items}</ul>')


def _figure(chart: Chart) -> str:
    keys = "".join(f'<span><i class="{line.style}"></i>{text(line.label)}</span>' for line in chart.lines)
    legend = f'<figcaption class="legend">{keys}</figcaption>' if len(chart.lines) > 1 else ""
    return f"<figure><h3>{chart.title}</h3>{draw_chart(chart)}{legend}</figure>"


def _matrix(confusion: Confusion) -> str:
    turned = ' class="turned"' if max(map(len, confusion.classes)) > 4 else ""
    heads = "".join(f'<th scope="col"{turned}><span>{name(_short(item))}</span></th>' for item in confusion.classes)
    rows = []
    for i, (own, row) in enumerate(zip(confusion.classes, confusion.counts, strict=True)):
        cells = "".join(_cell(count, sum(row), right=i == j) for j, count in enumerate(row))
        rows.append(f'<tr><th scope="row">{name(_short(own))}</th>{cells}</tr>')
    said = "<p>Test images; rows: true class, columns: predicted class. Colour: share of the row.</p>"
    matrix = (
        '<table class="matrix"><thead><tr><th class="side" scope="col">true \\ predicted</th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return said + scroll(matrix, "Confusion matrix")


def _cell(count: int, whole: int, *, right: bool) -> str:
    if not count:
        return "<td></td>"
    strength = 0.75 * count / whole if right else 0.2 + 0.55 * count / whole  # beyond 0.75 the text would lack contrast
    return f'<td class="{"right" if right else "wrong"}" style="--a:{strength:.2f}">{count}</td>'


def _short(label: str, most: int = 16) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _pair(pair: ConfusedPair) -> str:
    pictures = "".join(_thumbnail(pair, i, png) for i, png in enumerate(pair.thumbnails[:MOST_THUMBNAILS], start=1))
    shown = f'<div class="thumbnails">{pictures}</div>' if pictures else ""
    images = "1 image" if pair.num == 1 else f"{pair.num:,} images"
    return (
        f"<li><p><strong>{name(pair.true)}</strong> taken for <strong>{name(pair.predicted)}</strong><br>"
        f'<span class="soft small">{images}, {share(pair.share)} of the class</span></p>{shown}</li>'
    )


def _thumbnail(pair: ConfusedPair, number: int, png: bytes) -> str:
    side = int.from_bytes(png[16:20], "big")  # the width in a PNG's header
    tiny = ' class="tiny"' if side < _TINY else ""
    alt = f"{text(pair.true)} taken for {text(pair.predicted)}, image {number}"
    return f'<img{tiny} src="{data_uri(png)}" alt="{alt}">'


def _changes(settings: Sequence[Setting]) -> str:
    rows = "".join(
        f'<tr class="changed"><th scope="row">{name(item.name)}</th><td>{name(item.value)}</td>'
        f"<td>{name(item.base)}</td></tr>"
        for item in settings
    )
    head = '<tr><th scope="col">changed</th><th scope="col">here</th><th scope="col">base</th></tr>'
    return f'<table class="wide settings"><thead>{head}</thead><tbody>{rows}</tbody></table><p></p>'


def _settings(settings: Sequence[Setting]) -> str:
    rows = "".join(f'<tr><th scope="row">{name(item.name)}</th><td>{name(item.value)}</td></tr>' for item in settings)
    head = '<tr><th scope="col">as in the base</th><th scope="col">value</th></tr>'
    return f'<table class="wide settings"><thead>{head}</thead><tbody>{rows}</tbody></table>'
