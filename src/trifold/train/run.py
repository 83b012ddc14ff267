"""One training from data to a run folder; given again, it goes on where it was, bit for bit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trifold.architecture import to_toml
from trifold.data.dataset import Dataset
from trifold.data.decode import printable
from trifold.data.loader import Held
from trifold.errors import Failed
from trifold.train import keeper, recipes
from trifold.train.assemble import Assembled, Progress, assemble, cost_of
from trifold.train.folder import (
    ARCHITECTURE,
    CHECKPOINTS,
    LOG,
    RECIPE,
    RECORD,
    InUse,
    begun_run,
    clear,
    clear_unfinished,
    finished_run,
    locked,
    make_folder,
    writing,
)
from trifold.train.keeper import Keeper
from trifold.train.log import LogWriter
from trifold.train.loop import Epoch, Training, num_steps, run_epochs
from trifold.train.machine import Machine, check_same, computed, default_threads, keep_freed_memory, torch_threads
from trifold.train.outcome import draw, outcome, save_weights, tested
from trifold.train.planning import planned_epochs, step_seconds
from trifold.train.processes import Processes, from_environment, from_first, joined
from trifold.train.range_test import range_test
from trifold.train.record import Plan, Record, Result, asked, run_id, write_atomic, write_record
from trifold.train.stop import StopSign, listening
from trifold.weights.loading import Pretrained


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sitting:
    """One process's attempt at a run, begun or gone on with."""

    folder: Path
    dataset: Dataset
    plan: Plan
    wanted: dict[str, Any]
    machine: Machine
    processes: Processes
    sign: StopSign
    progress: Progress | None
    told_of: Callable[[Sequence[Epoch]], None] | None
    since: float

    @property
    def id(self) -> str:
        return run_id(self.wanted)

    def told(self, done: int, total: int, what: str) -> None:
        """Shows progress before the first step, and stops if told to."""
        self.sign.check("nothing of this sitting was worth saving yet")
        if self.progress is not None:
            self.progress(done, total, what)


def train(
    dataset: Dataset,
    plan: Plan,
    *,
    run_folder: str | Path,
    machine: Machine | None = None,
    overwrite: bool = False,
    pretrained: Pretrained | None = None,
    scaling: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    after_epoch: Callable[[Sequence[Epoch]], None] | None = None,
) -> Record:
    """Trains the plan's network and leaves a run folder.

    A run of this id that was begun there goes on, bit for bit as if it had never stopped; a finished one is read. The
    weights kept are those of the epoch with the least minival loss; test is looked at once, with them.
    overwrite: replace the run that the folder holds, once the data are decoded and the network is built.
    pretrained: what the network begins with; its digest is the plan's `weights`.
    scaling: how the architecture came about, kept in the record (plain values).
    progress: called after each image decoded and each step, in the first process.
    after_epoch: called with all epochs so far when one is saved, and when a begun run goes on; what it raises ends this
    sitting, and the same call goes on from there. For a finished run it is not called.

    Raises InvalidData if the split needs more images, or the folder holds anything but a run, or its run was begun with
    other threads, processes or versions; InUse if another process writes to it; OtherRun if it holds another run and
    overwrite is not asked for; Stopped after SIGTERM or Ctrl-C, when all is saved; Failed if the disk is full or a
    process is lost.
    """
    machine, processes = machine or Machine(), from_environment()
    overwrite = overwrite and not processes.restarts  # torchrun gives the first start's command again
    wanted = asked(plan, dataset.fingerprint)
    with joined(processes, machine.torch_device(processes)), listening() as sign:
        sitting = _Sitting(
            folder=Path(run_folder),
            dataset=dataset,
            plan=plan,
            wanted=wanted,
            machine=machine,
            processes=processes,
            sign=sign,
            progress=progress if processes.first else None,
            told_of=after_epoch,
            since=machine.began or time.monotonic(),
        )
        finished = from_first(processes, lambda: finished_run(sitting.folder, sitting.id, overwrite=overwrite))
        return finished or _sit(sitting, overwrite=overwrite, pretrained=pretrained, scaling=dict(scaling or {}))


def _sit(sitting: _Sitting, *, overwrite: bool, pretrained: Pretrained | None, scaling: dict[str, Any]) -> Record:
    """The record of the run, from wherever it stands."""
    folder, processes, machine = sitting.folder, sitting.processes, sitting.machine
    begun = from_first(processes, lambda: None if overwrite else begun_run(folder, sitting.id))
    threads = _threads(sitting, None if begun is None else begun[0])
    now = computed(threads, processes, machine.torch_device(processes))
    if begun is not None and not machine.inexact:
        check_same(folder, begun[0]["computed"], now)
    keep_freed_memory()
    with torch_threads(threads), _watching_workers(sitting.sign), ExitStack() as stack:
        run = assemble(
            sitting.dataset,
            sitting.plan,
            machine=machine,
            processes=processes,
            held=None if begun is None else begun[0]["decided"]["held"],
            pretrained=pretrained,
            progress=sitting.told,
        )
        if processes.first:
            make_folder(folder)
            stack.enter_context(locked(folder))
            if not overwrite:
                _check_unchanged(sitting, begun)
            clear_unfinished(folder)
        start, length = begun or _begin(sitting, run, now)
        decided = start["decided"]
        recipe = replace(run.task.recipe, epochs=decided["epochs"], lr=decided["lr"], lr_batch=0)
        run = replace(run, task=replace(run.task, recipe=recipe))
        return _run(sitting, run, start, length, scaling)


def _check_unchanged(sitting: _Sitting, begun: tuple[dict[str, Any], int] | None) -> None:
    """Raises InvalidData if another process began or ended a run in the folder before this one had the lock."""
    finished = finished_run(sitting.folder, sitting.id, overwrite=False)
    if finished is not None or begun_run(sitting.folder, sitting.id) != begun:
        raise InUse(f"{printable(sitting.folder)}: another process wrote to it meanwhile; give the same command again")


@contextmanager
def _watching_workers(sign: StopSign) -> Iterator[None]:
    """Within it a lost worker is one line: torch says so from a signal handler, wherever the training stands."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
    else:
        return
    sign.check("its workers with it; the last checkpoint stands")
    raise Failed(
        "a worker that decodes images was lost (killed, or out of memory); the same command goes on from the last "
        "checkpoint"
    )


def _threads(sitting: _Sitting, start: Mapping[str, Any] | None) -> int:
    """As asked for, or as the run was begun, or by the network's size."""
    if sitting.machine.threads:
        return sitting.machine.threads
    if start is not None:
        return int(start["computed"]["threads"])
    return default_threads(cost_of(sitting.dataset, sitting.plan)["multiply_adds"], sitting.processes)


def _begin(sitting: _Sitting, run: Assembled, now: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Decides what is decided once, writes the log's start entry and gives it back with its length in bytes.

    An older run is whole until here, where nothing of the new one can be refused any more.
    """
    epochs, rate = sitting.plan.recipe.epochs, sitting.plan.recipe.highest_lr
    if sitting.plan.find_lr:
        rate = range_test(run.network, run.task).suggested
    if sitting.plan.seconds:
        step = step_seconds(run.network, run.task)
        spent = time.monotonic() - sitting.since
        epochs = from_first(sitting.processes, lambda: planned_epochs(sitting.plan.seconds, spent, step, run.task))

    def write() -> tuple[dict[str, Any], int]:
        clear(sitting.folder)
        decided = {"held": isinstance(run.task.train, Held), "epochs": epochs, "lr": rate}
        entry = {"type": "start", "id": sitting.id, "asked": sitting.wanted, "computed": now, "decided": decided}
        line = json.dumps(entry) + "\n"
        with writing(sitting.folder):  # whole or not at all: half a line would make it no run folder
            write_atomic(sitting.folder / LOG, line)
        return entry, len(line.encode())

    return from_first(sitting.processes, write)


def _note_beginning(sitting: _Sitting, training: Training, log: LogWriter, *, resumed: bool) -> None:
    """Logs how the sitting begins."""
    if resumed:
        log.write("resumed", {"epoch": training.epoch + 1, "step": training.step})
        return
    plan = sitting.plan
    recipe = recipes.to_toml(plan.recipe, recipes.base_of(plan.recipe, plan.architecture))
    with writing(sitting.folder):
        write_atomic(sitting.folder / ARCHITECTURE, to_toml(plan.architecture))
        write_atomic(sitting.folder / RECIPE, recipe)
    for bad in sitting.dataset.skipped:
        log.write("skipped", bad._asdict())


def _run(sitting: _Sitting, run: Assembled, start: dict[str, Any], length: int, scaling: dict[str, Any]) -> Record:
    """Trains from the last checkpoint, or from the beginning, tests once, and writes everything, the record last."""
    folder, processes, recipe = sitting.folder, sitting.processes, run.task.recipe
    training = Training(run.network, run.task)
    state = from_first(processes, lambda: keeper.load(folder))
    if state is not None:
        training.load_state_dict(state["training"])
        length = state["log_bytes"]
    steps = num_steps(len(run.task.train), recipe, processes)
    with ExitStack() as open_log:
        log = open_log.enter_context(LogWriter(folder / LOG, keep=length)) if processes.first else None
        if log is not None:
            _note_beginning(sitting, training, log, resumed=state is not None)
        watcher = Keeper(
            folder,
            log=log,
            sign=sitting.sign,
            every=sitting.machine.checkpoint_seconds,
            total=steps * recipe.epochs,
            steps=steps,
            progress=sitting.progress,
            told=sitting.told_of,
        )
        if sitting.told_of is not None and training.epochs:
            sitting.told_of(training.epochs)
        run_epochs(training, run.task, watcher)
        chances = tested(run, training)
        result = outcome(
            sitting.dataset, sitting.plan, run, training, chances=chances, computed=start["computed"] | start["decided"]
        )
        record = _record(sitting, run, replace(result, scaling=scaling))
        if log is not None:
            log.write("test", {"epoch": result.epoch, "accuracy": result.test.accuracy, "images": result.test.total})
            with writing(folder):
                save_weights(folder, run, result, sitting.wanted)
                draw(folder, run, record, chances)
                write_record(folder / RECORD, record)
            clear(folder, CHECKPOINTS)
    return record


def _record(sitting: _Sitting, run: Assembled, result: Result) -> Record:
    samples = sitting.dataset.samples
    return Record(
        id=sitting.id,
        asked=sitting.wanted,
        result=result,
        source=sitting.dataset.source,
        used=tuple(sorted({samples[i].digest for i in (*run.parts.train, *run.parts.minival)})),
    )
