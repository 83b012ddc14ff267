"""A supernet's training from data to a folder; given again, it goes on where it was, bit for bit, or is read."""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from trifold.data.dataset import Dataset
from trifold.data.decode import printable
from trifold.data.loader import Held
from trifold.errors import InvalidData, InvalidInput
from trifold.layers import Numerics
from trifold.search import supernet_file
from trifold.search.space import Space, space_to_dict
from trifold.search.supernet import Supernet, largest_of
from trifold.search.supernet_sandwich import Sandwich, check_recipe
from trifold.train import keeper
from trifold.train.assemble import Progress, assemble, cost_of
from trifold.train.folder import (
    CHECKPOINTS,
    EVENTS,
    LOG,
    WEIGHTS,
    OtherRun,
    begun_run,
    clear,
    clear_unfinished,
    finished_run,
    locked,
    make_folder,
    writing,
)
from trifold.train.keeper import Keeper
from trifold.train.log import LogWriter, read_log
from trifold.train.loop import Training, num_steps, run_epochs
from trifold.train.machine import Machine, check_same, computed, default_threads, keep_freed_memory, torch_threads
from trifold.train.processes import ALONE, from_environment
from trifold.train.randomness import stream_seed
from trifold.train.recipe import Recipe
from trifold.train.record import Plan, run_id, write_atomic
from trifold.train.stop import StopSign, listening
from trifold.train.task import Task
from trifold.train.tensorboard import write_events

logger = logging.getLogger(__name__)

RECORD = "supernet.json"
"""What was asked of a supernet and what came of it; written last."""

SANDWICH = Sandwich()


class TrainedSupernet(NamedTuple):
    """A trained supernet, and the task whose minival its candidates are evaluated on, with the images at hand."""

    supernet: Supernet
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sitting:
    """One process's attempt at a supernet's training, begun or gone on with; plan: of the largest candidate."""

    folder: Path
    dataset: Dataset
    space: Space
    plan: Plan
    sandwich: Sandwich
    machine: Machine
    sign: StopSign
    progress: Progress | None

    @property
    def asked(self) -> dict[str, Any]:
        """Everything that the weights depend on, as plain values."""
        return {
            "supernet": space_to_dict(self.space),
            "sandwich": asdict(self.sandwich),
            "recipe": self.plan.recipe.to_dict(),
            "data": self.dataset.fingerprint,
            "seed": self.plan.seed,
            "split_seed": self.plan.split_seed,
        }

    @property
    def id(self) -> str:
        return run_id(self.asked)

    def told(self, done: int, total: int, what: str) -> None:
        """Shows progress before the first step, and stops if told to."""
        self.sign.check("nothing of this sitting was worth saving yet")
        if self.progress is not None:
            self.progress(done, total, what)

    def new(self) -> Supernet:
        """The supernet at its beginning, on the CPU."""
        recipe = self.plan.recipe
        network = Supernet(
            self.space,
            num_classes=len(self.dataset.classes),
            in_channels=self.dataset.in_channels,
            numerics=Numerics(bn_eps=recipe.bn_eps, bn_momentum=recipe.bn_momentum, padding=recipe.padding),
            drop_rate=recipe.drop_rate,
            drop_path_rate=recipe.drop_path_rate,
            seed=stream_seed(self.plan.seed, "supernet"),
        )
        if recipe.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own idiom
        return network


def train_supernet(
    dataset: Dataset,
    space: Space,
    recipe: Recipe,
    *,
    folder: str | Path,
    seed: int = 0,
    split_seed: int = 0,
    sandwich: Sandwich = SANDWICH,
    machine: Machine | None = None,
    progress: Progress | None = None,
) -> TrainedSupernet:
    """Trains the supernet of a space and leaves a folder: log, weights, `supernet.json`, TensorBoard's events.

    One that was begun there goes on, bit for bit as if it had never stopped; a finished one is read. The weights are
    those of the last epoch, or their average: minival, which the log shows of the largest candidate, chooses nothing.
    Images are as large as the highest resolution of the space; smaller candidates resize them. Test is not looked at.
    seed: of weights, order, augmentation and candidates. progress: called after each image decoded and each step.

    Raises InvalidInput if the recipe or several processes ask for what a supernet has not; InvalidData if the folder
    holds anything but this supernet, or it was begun with other threads or versions; Diverged if the loss stops being
    a finite number; Stopped after SIGTERM or Ctrl-C, when all is saved; Failed if the disk is full.
    """
    check_recipe(recipe)
    if from_environment().count > 1:
        raise InvalidInput(f"processes: a supernet is trained by one process, got {from_environment().count}")
    with listening() as sign:
        sitting = _Sitting(
            folder=Path(folder),
            dataset=dataset,
            space=space,
            plan=Plan(architecture=largest_of(space), recipe=recipe, seed=seed, split_seed=split_seed),
            sandwich=sandwich,
            machine=machine or Machine(),
            sign=sign,
            progress=progress,
        )
        record = _finished(sitting)
        keep_freed_memory()
        if record is None:
            return _train(sitting)
        logger.info("%s holds this supernet already", printable(sitting.folder))
        task = _task(sitting, held=bool(record["result"]["decided"]["held"]))
        return TrainedSupernet(_read(sitting, task), task)


def _finished(sitting: _Sitting) -> dict[str, Any] | None:
    """The record of this supernet where the folder holds it finished, or None where its training may begin or go on."""
    path = sitting.folder / RECORD
    if not path.exists():
        try:
            finished_run(sitting.folder, sitting.id, overwrite=False)
        except OtherRun:
            raise _other(sitting.folder) from None
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        id_, _ = record["id"], record["result"]["decided"]["held"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidData(f"{printable(path)}: not a supernet's record: {printable(error)}") from None
    if id_ != sitting.id:
        raise _other(sitting.folder)
    if not (sitting.folder / WEIGHTS).exists():
        logger.warning("%s has lost its %s: it is trained anew", printable(sitting.folder), WEIGHTS)
        return None
    return record


def _other(folder: Path) -> OtherRun:
    return OtherRun(
        f"{printable(folder)}: holds another training (its space, recipe, data or seed differ); give another folder"
    )


def _task(sitting: _Sitting, *, held: bool | None) -> Task:
    """What the supernet is trained on; held: as for `train.assemble.assemble`."""
    run = assemble(
        sitting.dataset,
        sitting.plan,
        machine=sitting.machine,
        processes=ALONE,
        held=held,
        pretrained=None,
        progress=sitting.told,
    )
    return run.task


def _read(sitting: _Sitting, task: Task) -> Supernet:
    """The supernet with the folder's weights."""
    supernet = sitting.new()
    supernet_file.load(sitting.folder / WEIGHTS, supernet)
    return supernet.to(task.device)


def _train(sitting: _Sitting) -> TrainedSupernet:
    """Trains from wherever the folder stands."""
    folder, machine = sitting.folder, sitting.machine
    begun = begun_run(folder, sitting.id)
    least = default_threads(cost_of(sitting.dataset, sitting.plan)["multiply_adds"], ALONE)
    threads = machine.threads or (int(begun[0]["computed"]["threads"]) if begun else least)
    now = computed(threads, ALONE, machine.torch_device(ALONE))
    if begun is not None and not machine.inexact:
        check_same(folder, begun[0]["computed"], now)
    with torch_threads(threads):
        task = _task(sitting, held=None if begun is None else begun[0]["decided"]["held"])
        make_folder(folder)
        with locked(folder):
            if begun_run(folder, sitting.id) != begun or _finished(sitting) is not None:
                raise InvalidData(f"{printable(folder)}: another process wrote to it meanwhile; give the same again")
            clear_unfinished(folder)
            start, length = begun or _begin(sitting, task, now)
            _run(sitting, task, start, length)
        return TrainedSupernet(_read(sitting, task), task)


def _begin(sitting: _Sitting, task: Task, now: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Writes the log's start entry and gives it back with its length in bytes."""
    decided = {"held": isinstance(task.train, Held)}
    entry = {"type": "start", "id": sitting.id, "asked": sitting.asked, "computed": now, "decided": decided}
    line = json.dumps(entry) + "\n"
    with writing(sitting.folder):
        write_atomic(sitting.folder / LOG, line)
    return entry, len(line.encode())


def _run(sitting: _Sitting, task: Task, start: dict[str, Any], length: int) -> None:
    """Trains from the last checkpoint, or from the beginning, and writes everything, the record last."""
    folder, recipe = sitting.folder, task.recipe
    training = Training(sitting.new().to(task.device), task, sitting.sandwich)
    state = keeper.load(folder)
    if state is not None:
        training.load_state_dict(state["training"])
        length = state["log_bytes"]
    steps = num_steps(len(task.train), recipe)
    with LogWriter(folder / LOG, keep=length) as log:
        if state is not None:
            log.write("resumed", {"epoch": training.epoch + 1, "step": training.step})
        watcher = Keeper(
            folder,
            log=log,
            sign=sitting.sign,
            every=sitting.machine.checkpoint_seconds,
            total=steps * recipe.epochs,
            steps=steps,
            progress=sitting.progress,
        )
        run_epochs(training, task, watcher)
    supernet = training.evaluated
    assert isinstance(supernet, Supernet)
    record = {"id": sitting.id, "asked": sitting.asked, "result": _result(training, start)}
    with writing(folder):
        supernet_file.save(folder / WEIGHTS, supernet)
        write_events(read_log(folder / LOG), folder / EVENTS)
        write_atomic(folder / RECORD, json.dumps(record, indent=2) + "\n")
    clear(folder, CHECKPOINTS)


def _result(training: Training, start: dict[str, Any]) -> dict[str, Any]:
    """What came of it. largest_minival_accuracy: of the last epoch, in [0, 1]. seconds: of steps and evaluations."""
    packages = ("trifold", "torch", "torchvision", "numpy")
    return {
        "epochs": len(training.epochs),
        "largest_minival_accuracy": training.epochs[-1].minival_accuracy,
        "seconds": sum(epoch.seconds for epoch in training.epochs),
        "computed": start["computed"],
        "decided": start["decided"],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }
