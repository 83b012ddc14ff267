"""One training from data to a run folder: architecture, weights, log, record and pictures."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trifold import weights
from trifold.architecture import to_toml
from trifold.cost import cost
from trifold.data.dataset import Dataset
from trifold.data.decode import MIN_SIDE
from trifold.data.images import Images, check_memory, load, measured
from trifold.data.preprocessing import plain
from trifold.data.split import Split, split
from trifold.errors import InvalidInput
from trifold.layers import Numerics
from trifold.network import Network, build
from trifold.report.figures import Confusion, Curves, draw_confusion, draw_curves
from trifold.train.evaluate import Evaluation, evaluation, nearest_neighbours, probabilities
from trifold.train.folder import (
    ARCHITECTURE,
    CONFUSION,
    CURVES,
    LOG,
    RECORD,
    WEIGHTS,
    clear,
    finished_run,
    make_folder,
)
from trifold.train.log import LogWriter
from trifold.train.loop import Epoch, Task, run_epochs
from trifold.train.randomness import stream_seed
from trifold.train.record import Plan, Record, Result, asked, run_id, write_atomic, write_record

YARDSTICK_SIDE = 32
"""Pixels at which nearest neighbours compare images, where they are not smaller themselves."""

SMALL_MULTIPLY_ADDS = 10_000_000

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done)."""


def train(
    dataset: Dataset,
    plan: Plan,
    *,
    run_folder: str | Path,
    overwrite: bool = False,
    scaling: Mapping[str, Any] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Record:
    """Trains the plan's network and leaves a run folder; a run of this id that is already finished there is read.

    The weights kept are those of the epoch with the least minival loss, which on a small minival is steadier than its
    accuracy; test is looked at once, with them.
    scaling: how the architecture came about, kept in the record (plain values).
    threads: of torch while training; None takes `default_threads`. Bits of the result depend on it; it is recorded.
    progress: called after each image decoded and each step.
    overwrite: replace the run that the folder holds, once the data are decoded and the network is built.

    Raises InvalidInput if threads is under 1; InvalidData if the split needs more images, or the folder holds anything
    but a run; OtherRun if it holds another run and overwrite is not asked for.
    """
    folder = Path(run_folder)
    wanted = asked(plan, dataset.fingerprint)
    finished = finished_run(folder, run_id(wanted), overwrite=overwrite)
    if finished is not None:
        return finished
    with _torch_threads(default_threads(plan, dataset) if threads is None else threads):
        result = _run(folder, dataset, plan, wanted, progress)
    record = Record(
        id=run_id(wanted),
        asked=wanted,
        result=replace(result, scaling=dict(scaling or {})),
        source=dataset.source,
        used=_used(dataset, plan),
    )
    write_record(folder / RECORD, record)
    return record


def default_threads(plan: Plan, dataset: Dataset) -> int:
    """1 for networks under 10 M multiply-adds, else what torch has.

    A step of so small a network is hundreds of operations of microseconds each: on two cores a second thread was
    measured to gain a third at best, and to cost a factor of three to fifty where another process wants the core.
    """
    return 1 if _cost(plan, dataset)["multiply_adds"] < SMALL_MULTIPLY_ADDS else torch.get_num_threads()


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """torch computes with so many threads. Raises InvalidInput if that is under 1."""
    if type(threads) is not int or not 1 <= threads <= 1024:
        raise InvalidInput(f"threads must be a whole number from 1 to 1024, got {threads!r}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(folder: Path, dataset: Dataset, plan: Plan, wanted: dict[str, Any], progress: Progress | None) -> Result:
    """Everything but the record: loads, trains, tests once, writes weights, log and pictures."""
    parts, network = split(dataset, seed=plan.split_seed), _network(dataset, plan)
    sizes = plan.architecture.resolution, min(YARDSTICK_SIDE, max(MIN_SIDE, dataset.median_side))
    preprocessings = tuple(plain(size, dataset.mode) for size in sizes)
    check_memory(dataset, *preprocessings)
    make_folder(folder)
    images, small = load(dataset, *preprocessings, progress=progress)
    task = _task(dataset, plan, images, parts)
    clear(folder)  # an older run is whole until here, where nothing of the new one can be refused any more
    with LogWriter(folder / LOG) as log:
        log.write("start", {"id": run_id(wanted), "asked": wanted, "threads": torch.get_num_threads()})
        write_atomic(folder / ARCHITECTURE, to_toml(plan.architecture))
        for bad in dataset.skipped:
            log.write("skipped", bad._asdict())
        started = time.perf_counter()
        epochs, best, kept = _train_epochs(network, task, log, progress)
        seconds = time.perf_counter() - started
        network.load_state_dict(kept)
        tested = _test(network, task, dataset, images[parts.test])
        log.write("test", {"epoch": best.epoch, "accuracy": tested.accuracy, "images": tested.total})
    result = Result(
        data=dataset.name,
        note=dataset.note,
        images={name: len(part) for name, part in parts._asdict().items()},
        skipped=tuple(bad.reason for bad in dataset.skipped),
        cost=_cost(plan, dataset),
        epoch=best.epoch,
        minival_accuracy=best.minival_accuracy,
        test=tested,
        nearest=nearest_neighbours(small[parts.train], small[parts.test], dataset.classes),
        seconds=seconds,
        threads=torch.get_num_threads(),
        versions=_versions(),
        scaling={},
    )
    _save_weights(folder, network, task, result, wanted)
    draw_curves(curves(epochs, chosen=best.epoch), folder / CURVES)
    draw_confusion(Confusion(tested.classes, tested.confusion), folder / CONFUSION)
    return result


def _used(dataset: Dataset, plan: Plan) -> tuple[str, ...]:
    """The digests of the samples that train or choose, sorted."""
    parts = split(dataset, seed=plan.split_seed)
    return tuple(sorted({dataset.samples[i].digest for i in (*parts.train, *parts.minival)}))


def _network(dataset: Dataset, plan: Plan) -> Network:
    """The network before its first step."""
    recipe = plan.recipe
    network: Network = build(
        plan.architecture,
        num_classes=len(dataset.classes),
        in_channels=dataset.in_channels,
        numerics=Numerics(bn_eps=recipe.bn_eps, bn_momentum=recipe.bn_momentum, padding=recipe.padding),
        drop_rate=recipe.drop_rate,
        drop_path_rate=recipe.drop_path_rate,
        seed=stream_seed(plan.seed, "weights"),
    )
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own idiom
    return network


def _task(dataset: Dataset, plan: Plan, images: Images, parts: Split) -> Task:
    """What is trained on, its mean and std measured on train alone."""
    training = images[parts.train]
    return Task(
        train=training,
        minival=images[parts.minival],
        preprocessing=measured(plain(plan.architecture.resolution, dataset.mode), training),
        recipe=plan.recipe,
        seed=plan.seed,
        flip=dataset.mirror,
    )


def _train_epochs(
    network: Network, task: Task, log: LogWriter, progress: Progress | None
) -> tuple[list[Epoch], Epoch, dict[str, Tensor]]:
    """All epochs, the best of them by minival, and a copy of its weights."""
    epochs: list[Epoch] = []
    best: Epoch | None = None
    kept: dict[str, Tensor] = {}
    for epoch in run_epochs(network, task, progress):
        log.write_epoch(epoch)
        epochs.append(epoch)
        if best is None or epoch.minival_loss < best.minival_loss:
            best = epoch
            kept = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    assert best is not None  # a recipe has at least one epoch
    return epochs, best, kept


def _test(network: Network, task: Task, dataset: Dataset, held_out: Images) -> Evaluation:
    chances = probabilities(network, held_out.pixels, task.preprocessing)
    return evaluation(dataset.classes, chances.argmax(1), held_out.labels)


def _cost(plan: Plan, dataset: Dataset) -> dict[str, int]:
    spent = cost(plan.architecture, num_classes=len(dataset.classes), in_channels=dataset.in_channels)
    return {name: getattr(spent, name) for name in ("parameters", "multiply_adds", "activations")}


def _versions() -> dict[str, str]:
    packages = ("trifold", "torch", "torchvision", "numpy", "pillow", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _save_weights(folder: Path, network: Network, task: Task, result: Result, wanted: dict[str, Any]) -> None:
    metadata = {
        "classes": result.test.classes,
        "preprocessing": task.preprocessing.to_dict(),
        "recipe": task.recipe.to_dict(),
        "data": {"fingerprint": wanted["data"], "split_seed": wanted["split_seed"]},
        "accuracy": {"test": result.test.accuracy, "minival": result.minival_accuracy},
    }
    weights.save(folder / WEIGHTS, network, {name: json.dumps(value) for name, value in metadata.items()})


def curves(epochs: list[Epoch], *, chosen: int) -> Curves:
    """The figure data of a run's epochs."""
    return Curves(
        epochs=tuple(entry.epoch for entry in epochs),
        train_loss=tuple(entry.train_loss for entry in epochs),
        minival_loss=tuple(entry.minival_loss for entry in epochs),
        minival_accuracy=tuple(entry.minival_accuracy for entry in epochs),
        chosen=chosen,
    )
