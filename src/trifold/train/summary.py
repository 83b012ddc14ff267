"""A finished run as its page: what the report needs, taken from record, log and test images."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import torch

from trifold._torchvision import v2
from trifold.architecture import from_dict as architecture_from_dict
from trifold.data.loader import Files, Held
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
from trifold.stages import StageRow, stage_rows
from trifold.train import metrics
from trifold.train.loop import Epoch
from trifold.train.machine import processor
from trifold.train.recipe import from_dict as recipe_from_dict
from trifold.train.recipes import base_of
from trifold.train.record import Record

THUMBNAILS, THUMBNAIL_SIDE = 4, 96
"""Images of each confused pair that are shown, and their longest side in pixels."""

MOST_RATES = 2_000


def run_page(
    record: Record, entries: Sequence[Mapping[str, Any]], *, test: Held | Files, chances: torch.Tensor, size_mib: float
) -> RunPage:
    """What the page of a run says. entries: of its log; chances: (images, classes), what it gave for test."""
    result, quality = record.result, metrics.from_dict(record.result.quality)
    architecture = architecture_from_dict(record.asked["architecture"])
    epochs = [Epoch(**_fields(entry)) for entry in entries if entry["type"] == "epoch"]
    rows = stage_rows(architecture, num_classes=len(quality.classes), in_channels=_channels(test))
    low, high = result.test.interval
    return RunPage(
        headline=Headline(
            data=PurePath(result.data).name or result.data,
            network=architecture.name,
            run=record.id,
            correct=result.test.correct,
            images=result.test.total,
            low=low,
            high=high,
            note=result.note,
            yardstick=(_yardstick(record), result.nearest.accuracy),
            scores=_scores(quality),
        ),
        key=KeyFigures(
            parameters=result.cost["parameters"],
            multiply_adds=result.cost["multiply_adds"],
            size_mib=size_mib,
            epochs=result.epochs,
            seconds=result.seconds,
            images_per_second=result.images["train"] * result.epochs / max(result.seconds, 1e-9),
            waiting=result.waiting,
        ),
        curves=curves(epochs, chosen=result.epoch),
        rates=_rates(entries),
        confusion=Confusion(quality.classes, quality.confusion),
        pairs=_pairs(quality, test, chances),
        class_rows=tuple(
            map(ClassRow, quality.classes, map(sum, quality.confusion), quality.precision, quality.recall, quality.f1)
        ),
        calibration=Calibration(
            quality.calibration_error,
            tuple(
                CalibrationBin(share.confidence, share.accuracy, share.count)
                for share in quality.bins
                if share.confidence is not None and share.accuracy is not None
            ),
        ),
        cost=Grid(
            tuple(name.replace("_", "-") for name in StageRow._fields),
            tuple(tuple(row) for row in rows),
            ("", "total", "", "", sum(row.layers for row in rows), "", *result.cost.values()),
        ),
        recipe=_recipe(record),
        machine=(Fact("processor", processor()), *_facts(result.computed)),
        versions=_facts(result.versions),
        split=(
            Fact("how", f"by class and seed {record.asked['split_seed']}, where the data do not say it themselves"),
            *(Fact(name, f"{number:,} images") for name, number in result.images.items()),
        ),
        events=_events(entries, result.epochs, int(record.asked["recipe"]["epochs"])),
    )


def curves(epochs: Sequence[Epoch], *, chosen: int) -> Curves:
    """The figure data of a run's epochs."""
    return Curves(
        epochs=tuple(entry.epoch for entry in epochs),
        train_loss=tuple(entry.train_loss for entry in epochs),
        minival_loss=tuple(entry.minival_loss for entry in epochs),
        minival_accuracy=tuple(entry.minival_accuracy for entry in epochs),
        chosen=chosen,
    )


def _channels(test: Held | Files) -> int:
    """1 for grey images, else 3."""
    return test.images.pixels.shape[1] if isinstance(test, Held) else test.preprocessing.channels


def _yardstick(record: Record) -> str:
    asked, total = record.result.nearest.total, record.result.test.total
    images = "the same images" if asked == total else f"{asked:,} of them"
    return f"three nearest neighbours by pixel distance on {images}"


def _scores(quality: metrics.Quality) -> tuple[Fact, ...]:
    """What else was measured on test."""
    top5 = () if quality.top5 is None else (Fact("Top-5", f"{quality.top5:.2%}"),)
    return (
        *top5,
        Fact("balanced accuracy" if top5 else "Balanced accuracy", f"{quality.balanced_accuracy:.2%}"),
        Fact("macro F1", f"{quality.macro_f1:.2%}"),
        Fact("cross-entropy", f"{quality.loss:.3f}"),
        Fact("expected calibration error", f"{quality.calibration_error:.2%}"),
    )


def _fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "type"}


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _facts(values: Mapping[str, object]) -> tuple[Fact, ...]:
    return tuple(Fact(name.replace("_", " "), _plain(value)) for name, value in values.items())


def _rates(entries: Iterable[Mapping[str, Any]]) -> Rates:
    """The learning rate over the run's steps, thinned."""
    values = [float(entry["lr"]) for entry in entries if entry["type"] == "step"]
    every = -(-len(values) // MOST_RATES) or 1
    return Rates(tuple(range(1, len(values) + 1, every)), tuple(values[::every]))


def _recipe(record: Record) -> Recipe:
    recipe = recipe_from_dict(record.asked["recipe"])
    base = base_of(recipe, architecture_from_dict(record.asked["architecture"]))
    before = base.to_dict()
    settings = (
        Setting(name, _plain(value), _plain(before[name])) for name, value in recipe.to_dict().items() if name != "name"
    )
    return Recipe(recipe.name, base.name, tuple(settings))


def _events(entries: Iterable[Mapping[str, Any]], trained: int, asked: int) -> tuple[Event, ...]:
    """What in the log is out of the ordinary."""
    events = []
    for entry in entries:
        if entry["type"] == "resumed":
            events.append(
                Event(f"epoch {entry['epoch']}, after step {entry['step']}", "the run was stopped and went on")
            )
        elif entry["type"] == "step" and entry.get("skipped"):
            what = "float16 gradients overflowed: the step was skipped and the loss scale halved"
            events.append(Event(f"epoch {entry['epoch']}, step {entry['step']}", what))
        elif entry["type"] == "skipped":
            events.append(Event("before training", f"left out: {entry['reason']}"))
    if trained < asked:
        events.append(Event(f"epoch {trained}", f"stopped before the {asked} epochs that the recipe has"))
    return tuple(events)


def _pairs(quality: metrics.Quality, test: Held | Files, chances: torch.Tensor) -> tuple[ConfusedPair, ...]:
    """The most confused pairs of classes, each with some of its images."""
    predicted, pairs = chances.argmax(1), []
    for pair in metrics.most_confused(quality.confusion, quality.classes):
        true, other = quality.classes.index(pair.true), quality.classes.index(pair.predicted)
        indices = ((test.labels == true) & (predicted == other)).nonzero()[:THUMBNAILS, 0]
        images = next(test.batches([indices]))
        pairs.append(ConfusedPair(pair.true, pair.predicted, pair.num, pair.share, tuple(map(_png, images))))
    return tuple(pairs)


def _png(pixels: torch.Tensor) -> bytes:
    """An image of (channels, height, width) bytes as a PNG file, no side above THUMBNAIL_SIDE."""
    image = v2.functional.to_pil_image(pixels)  # type: ignore[no-untyped-call]  # it has no annotations
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
