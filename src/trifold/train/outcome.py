"""What came of a training: tested once, weights saved, pictures drawn, all of it a Result."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from trifold import weights
from trifold.data.dataset import Dataset
from trifold.data.decode import printable
from trifold.errors import Failed
from trifold.report.figures import draw_confusion, draw_curves
from trifold.report.page import draw_page
from trifold.train.assemble import Assembled, cost_of
from trifold.train.evaluate import evaluation, nearest_neighbours, predictions
from trifold.train.folder import CONFUSION, CURVES, EVENTS, LOG, PAGE, WEIGHTS
from trifold.train.log import read_log
from trifold.train.loop import Training
from trifold.train.metrics import quality
from trifold.train.record import Plan, Record, Result, run_id
from trifold.train.summary import run_page
from trifold.train.tensorboard import write_events
from trifold.weights.loading import Loaded

PACKAGES = ("trifold", "torch", "torchvision", "numpy", "pillow", "scikit-learn", "timm")


def tested(run: Assembled, training: Training) -> torch.Tensor:
    """The probabilities of the test images by the kept weights, which the run's network then holds."""
    run.network.load_state_dict(training.kept)
    return predictions(run.network, run.test, run.task)


def outcome(
    dataset: Dataset, plan: Plan, run: Assembled, training: Training, *, chances: torch.Tensor, computed: dict[str, Any]
) -> Result:
    """The result of a finished training. chances: what `tested` gave."""
    best, labels = training.best, run.test.labels
    steps_seconds = sum(epoch.seconds for epoch in training.epochs)
    return Result(
        data=dataset.name,
        note=dataset.note,
        images={name: len(part) for name, part in run.parts._asdict().items()},
        skipped=tuple(bad.reason for bad in dataset.skipped),
        cost=cost_of(dataset, plan),
        epoch=best.epoch,
        minival_accuracy=best.minival_accuracy,
        test=evaluation(dataset.classes, chances.argmax(1), labels),
        nearest=nearest_neighbours(run.known, run.asked, dataset.classes),
        quality=quality(chances, labels, dataset.classes).to_dict(),
        seconds=steps_seconds,
        waiting=sum(epoch.waiting * epoch.seconds for epoch in training.epochs) / max(steps_seconds, 1e-9),
        epochs=len(training.epochs),
        computed=computed,
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        scaling={},
        loaded={} if run.loaded is None else _plain(run.loaded),
    )


def _plain(loaded: Loaded) -> dict[str, Any]:
    """As JSON gives it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(loaded).items()}


def save_weights(folder: Path, run: Assembled, result: Result, wanted: dict[str, Any]) -> None:
    """Writes the network with what is needed to use it and to know how it came about, so that one file is the model."""
    metadata = {
        "classes": result.test.classes,
        "preprocessing": run.task.preprocessing.to_dict(),
        "recipe": run.task.recipe.to_dict(),
        "data": {"fingerprint": wanted["data"], "split_seed": wanted["split_seed"]},
        "accuracy": {"test": result.test.accuracy, "minival": result.minival_accuracy},
        "training": {
            "run": run_id(wanted),
            "data": Path(result.data).name,  # not where it lies: files are given away
            "images": result.images,
            "tested": {"correct": result.test.correct, "total": result.test.total, "interval": result.test.interval},
            "epochs": result.epochs,
            "epoch": result.epoch,
            "seed": wanted["seed"],
            "pretrained": wanted["weights"],
            "versions": result.versions,
        },
    }
    network = run.network.cpu()
    weights.save(folder / WEIGHTS, network, {name: json.dumps(value) for name, value in metadata.items()})


def draw(folder: Path, run: Assembled, record: Record, chances: torch.Tensor) -> None:
    """Writes the run's pictures, its page and TensorBoard's events. Raises Failed if one cannot be written."""
    entries = read_log(folder / LOG)
    size_mib = (folder / WEIGHTS).stat().st_size / 2**20
    page = run_page(record, entries, test=run.test, chances=chances, size_mib=size_mib)
    try:
        draw_curves(page.curves, folder / CURVES)
        draw_confusion(page.confusion, folder / CONFUSION)
        draw_page(page, folder / PAGE)
        write_events(entries, folder / EVENTS)
    except OSError as error:
        raise Failed(f"{printable(folder)}: cannot be written: {error.strerror or error}") from None
