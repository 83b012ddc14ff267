"""Trainings by the command line, each in a process of its own that may be killed or disturbed at a named moment.

The processes are forked from a server that has imported everything once; each runs `trifold.cli.main` as a shell does.
"""

from __future__ import annotations

import errno
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.neighbors  # noqa: F401  imported here once, not by every process
import torch
from PIL import Image

import trifold.report.figures
import trifold.train.run
from trifold import cli
from trifold.architecture import Architecture, Head, Stage, Stem, to_toml
from trifold.train.log import read_log

NETWORK = Architecture(
    name="tiny",
    resolution=8,
    stem=Stem(channels=8, stride=1),
    stages=(Stage(operator="mbconv", channels=8, stride=1, expand_ratio=2, se_ratio=0.25, layers=2),),
    head=Head(channels=16),
)
RECIPE = {
    "epochs": 2, "batch_size": 16, "accumulate": 2, "ema_decay": 0.9, "drop_rate": 0.2, "drop_path_rate": 0.2,
    "label_smoothing": 0.1, "clip_norm": 1.0, "balance": "sampler",
}  # fmt: skip
STEPS = 4
"""Of an epoch."""

Disturb = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sat:
    """How a process ended: its exit status (negative: the signal that killed it) and what it wrote on stderr."""

    status: int
    err: str

    @property
    def line(self) -> str:
        """The one line beside what is said of every run (its recipe); more than one is an AssertionError."""
        lines = [line for line in self.err.splitlines() if not line.startswith("recipe ")]
        assert len(lines) == 1, self.err
        return lines[0]


def make_inputs(folder: Path) -> Path:
    """Writes 90 images of three classes, and the network; gives the folder back."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "grey", "light")):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 120, (8, 8)) + 60 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "data" / name / f"{i:02}.png")
    (folder / "tiny.toml").write_text(to_toml(NETWORK))
    return folder


def make_other(folder: Path) -> Path:
    """Writes 80 images of two other classes below the folder and gives their folder."""
    rng = np.random.default_rng(1)
    for label, name in enumerate(("left", "right")):
        (folder / "other" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 100, (8, 8))
            pixels[:, 4 * label : 4 * label + 4] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "other" / name / f"{i:02}.png")
    return folder / "other"


def arguments(inputs: Path, run: Path, *more: str, held: bool = True) -> list[str]:
    """The command line of the training, whose checkpoints follow each step; `more` comes last and so wins."""
    recipe = [part for name, value in RECIPE.items() for part in ("--set", f"{name}={value}")]
    where = ("--in-memory", "yes") if held else ("--in-memory", "no", "--workers", "2")
    return [
        "train", str(inputs / "data"), "--net", str(inputs / "tiny.toml"), "--out", str(run), "--device", "cpu",
        "--threads", "1", "--checkpoint-every", "0", *recipe, *where, *more,
    ]  # fmt: skip


def sit(command: Sequence[str], *disturbances: Disturb, err: Path | None = None, timeout: float = 120.0) -> Sat:
    """Lets one process run the command line to its end, whatever that is; err: what stderr is written to."""
    err = err or Path(command[command.index("--out") + 1]).with_suffix(".stderr")
    process = begin(command, err, *disturbances)
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"still running after {timeout:g} s: {err.read_text()}")
    return Sat(status=process.exitcode or 0, err=err.read_text())


def begin(command: Sequence[str], err: Path, *disturbances: Disturb) -> Any:
    """A process that runs the command line, just started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.sittings"])
    process = context.Process(target=_run, args=(list(command), str(err), disturbances))
    process.start()
    return process


def _run(command: list[str], err: str, disturbances: Sequence[Disturb]) -> None:
    multiprocessing.set_start_method("fork", force=True)  # of its loader's workers; not what it was itself made by
    for number in (1, 2):
        os.dup2(os.open(err if number == 2 else os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    setattr(trifold.train.run, "draw", _draw_nothing)  # noqa: B010  a second a run, and no part of what is proven
    for disturb in disturbances:
        disturb()
    sys.argv = ["trifold", *command]
    cli.main()


def _draw_nothing(*given: object, **named: object) -> None:
    pass


# ---- disturbances: functions to be given as partial(...) ----


def kill_at(where: str, call: int, *, after: bool = False, named: str = "") -> None:
    """SIGKILL at the call-th call of "module:name.name", before it or after it.

    named: counts only calls on a path of this name.
    """
    _at(where, call, partial(os.kill, os.getpid(), signal.SIGKILL), after=after, named=named)


def signal_at(where: str, call: int, number: int) -> None:
    """The process sends itself a signal before that call."""
    _at(where, call, partial(_send, number))


def fail_at(where: str, call: int, error: Exception) -> None:
    """That call raises the error."""
    _at(where, call, partial(_throw, error))


def do_at(where: str, call: int, act: Callable[[], object]) -> None:
    """Something happens before that call."""
    _at(where, call, act)


def kill_in_average(call: int) -> None:
    """SIGKILL in the call-th update of the average, when half of its tensors are done."""
    original, count = torch._foreach_lerp_, 0

    def halfway(mine: list[torch.Tensor], theirs: list[torch.Tensor], share: float) -> None:
        nonlocal count
        count += 1
        if count == call:
            half = len(mine) // 2
            original(mine[:half], theirs[:half], share)
            os.kill(os.getpid(), signal.SIGKILL)
        original(mine, theirs, share)

    setattr(torch, "_foreach_lerp_", halfway)  # noqa: B010  an overloaded function's type


def large_scale() -> None:
    """float16's loss scale begins so high that its first steps overflow."""
    torch.amp.GradScaler = partial(torch.amp.GradScaler, init_scale=2.0**40)  # type: ignore[misc,assignment]


def ticking(seconds: float) -> None:
    """A clock that goes on by so many seconds each time it is asked."""
    _clock(lambda calls, _: calls * seconds)


def jumping() -> None:
    """A clock that jumps days back and forth."""
    _clock(lambda calls, now: now + (-1e6, 0.0, 1e6, 5e5)[calls % 4])


def without_kernels() -> None:
    """The compiled kernels switched off."""
    os.environ["TRIFOLD_KERNELS"] = "off"


def kill_worker() -> None:
    """SIGKILL to one of the processes that decode images."""
    worker = next(child for child in multiprocessing.active_children() if child.pid)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)


def overwrite(file: Path, content: bytes) -> None:
    """Replaces a file meanwhile."""
    file.write_bytes(content)


def _clock(tell: Callable[[int, float], float]) -> None:
    for name in ("perf_counter", "monotonic", "time"):
        setattr(time, name, _Clock(getattr(time, name), tell))


class _Clock:
    def __init__(self, real: Callable[[], float], tell: Callable[[int, float], float]) -> None:
        self.real, self.tell, self.calls = real, tell, 0

    def __call__(self) -> float:
        self.calls += 1
        return self.tell(self.calls, self.real())


def _at(where: str, call: int, act: Callable[[], object], *, after: bool = False, named: str = "") -> None:
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, count = getattr(owner, name), 0

    def wrapper(*given: Any, **options: Any) -> Any:
        nonlocal count
        count += not named or given[0].name == named
        here = count == call and (not named or given[0].name == named)
        if here and not after:
            act()
        value = original(*given, **options)
        if here and after:
            act()
        return value

    setattr(owner, name, wrapper)


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


def _throw(error: Exception) -> None:
    raise error


# ---- what a run folder says ----


def steps_of(run: Path) -> list[tuple[int, int]]:
    """(epoch, step) of the log's step entries, in their order."""
    return [(entry["epoch"], entry["step"]) for entry in read_log(run / "log.jsonl") if entry["type"] == "step"]


def resumed_at(run: Path) -> list[tuple[int, int]]:
    """(epoch, steps of it that were done) where each later sitting went on."""
    return [(entry["epoch"], entry["step"]) for entry in read_log(run / "log.jsonl") if entry["type"] == "resumed"]


# ---- full disks ----


def fill(folder: Path) -> None:
    """Takes all the room that the folder's file system has left."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def no_longer(file: Path, more: int) -> None:
    """No file of this process may grow beyond what this one has and so many bytes."""
    import resource

    limit = file.stat().st_size + more
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
