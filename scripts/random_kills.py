"""Trainings killed at random moments and started again, until each is bit for bit what it is without kills.

python scripts/random_kills.py --kills 100 --seed 0 --folder runs/kills --record docs/resume.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "held": ("--in-memory", "yes"),
    "files, 2 workers": ("--in-memory", "no", "--workers", "2", "--set", "balance=sampler"),
    "EMA, accumulate 2": ("--in-memory", "yes", "--set", "ema_decay=0.99", "--set", "accumulate=2"),
}
COMMON = (
    "--threads", "1", "--device", "cpu", "--checkpoint-every", "0.1", "--set", "batch_size=16",
    "--set", "drop_rate=0.2", "--set", "drop_path_rate=0.2", "--set", "label_smoothing=0.1", "--set", "clip_norm=1.0",
)  # fmt: skip
EPOCHS = 50
KILLS_A_RUN = 6
"""After so many a run is let finish."""

PHASES = ("start", "training", "evaluation", "end")
MARKS = ("<!-- random kills: begin -->", "<!-- random kills: end -->")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill. run: its run's number, from 1. seconds: after the process began. phase: one of PHASES."""

    run: int
    configuration: str
    seconds: float
    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished run. differences: from the uninterrupted one; none if every bit is the same."""

    configuration: str
    kills: int
    differences: tuple[str, ...]


# ---- comparing two runs ----


def differences(one: Path, other: Path) -> tuple[str, ...]:
    """What differs between two finished runs, in words: weights, losses, epochs, counts on test."""
    found = _different_weights(one / "weights.safetensors", other / "weights.safetensors")
    logs = [read_entries(folder / "log.jsonl") for folder in (one, other)]
    for kind in ("step", "epoch", "test"):
        first, second = (_timeless(log, kind) for log in logs)
        if first != second:
            where = next((i for i, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
            what = f"{len(first)} and {len(second)} entries" if where is None else f"entry {where + 1} of them differs"
            found.append(f"log, {kind}: {what}")
    results = [json.loads((folder / "record.json").read_text())["result"] for folder in (one, other)]
    for name in ("test", "nearest", "quality", "epoch", "epochs", "minival_accuracy", "images"):
        if results[0][name] != results[1][name]:
            found.append(f"record: {name}")
    return tuple(found)


def _different_weights(one: Path, other: Path) -> list[str]:
    import torch
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    if first.keys() != second.keys():
        return ["weights: other names"]
    raw = torch.uint8  # so that a NaN equals itself and -0 differs from 0
    return [
        f"weights: {name}"
        for name, tensor in first.items()
        if tensor.dtype != second[name].dtype
        or not torch.equal(tensor.view(-1).view(raw), second[name].view(-1).view(raw))
    ]


def _timeless(entries: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The entries of a kind, without what the clock says."""
    clocks = ("seconds", "waiting")
    return [{k: v for k, v in entry.items() if k not in clocks} for entry in entries if entry["type"] == kind]


def read_entries(log: Path) -> list[dict[str, Any]]:
    """A log's whole lines; a killed run may have left half of one at the end."""
    data = log.read_bytes() if log.exists() else b""
    return [json.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


def phase(before: list[dict[str, Any]], after: list[dict[str, Any]], *, epochs: int) -> str:
    """What a killed process was at, as far as the log shows: before and after it."""
    if after == before or not any(entry["type"] in ("step", "resumed") for entry in after):
        return "start"
    last = after[-1]
    if last["type"] == "test" or (last["type"] == "epoch" and last["epoch"] == epochs):
        return "end"
    steps = max((entry["step"] for entry in after if entry["type"] == "step"), default=0)
    whole = any(entry["type"] == "epoch" for entry in after)  # then the highest step seen is an epoch's last
    return "evaluation" if whole and last["type"] in ("step", "resumed") and last["step"] == steps else "training"


# ---- running ----


def command(configuration: str, folder: Path, run: Path) -> list[str]:
    """The command line of one training; the same each time it is given."""
    return [
        sys.executable, "-m", "trifold", "train", str(folder / "data"), "--net", str(folder / "tiny.toml"),
        "--epochs", str(EPOCHS), "--out", str(run), *COMMON, *CONFIGURATIONS[configuration],
    ]  # fmt: skip


def make_inputs(folder: Path) -> None:
    """Writes 600 digits as image files, and the network."""
    from trifold.architecture import Architecture, Head, Stage, Stem, to_toml
    from trifold.data.digits import open_digits

    digits = open_digits()
    for number, sample in enumerate(digits.samples[:600]):
        target = folder / "data" / digits.classes[sample.label] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        sample.open().save(target)
    stage = Stage(operator="mbconv", channels=8, stride=2, expand_ratio=2, se_ratio=0.25, layers=2)
    network = Architecture(
        name="tiny", resolution=8, stem=Stem(channels=8, stride=1), stages=(stage,), head=Head(channels=16)
    )
    (folder / "tiny.toml").write_text(to_toml(network))


def whole(arguments: Sequence[str]) -> float:
    """Lets a command finish and gives back its seconds. Raises RuntimeError with its last words if it fails."""
    began = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        raise RuntimeError(f"status {done.returncode}: {done.stderr[-2000:]}")
    return time.monotonic() - began


def killed(arguments: Sequence[str], seconds: float) -> bool:
    """Whether a command was still running after so many seconds, and was killed with all its children."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, words = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise RuntimeError(f"status {process.returncode}: {words[-2000:]}")
    return False


class Hunt:
    """Kills until there were enough of them. folder: of everything; seed: of the moments."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.kills: list[Kill] = []
        self.runs: list[Run] = []
        self.seconds: dict[str, float] = {}

    def prepare(self) -> None:
        """Writes the inputs and trains each configuration once without kills."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        make_inputs(self.folder)
        for number, name in enumerate(CONFIGURATIONS):
            self.seconds[name] = whole(command(name, self.folder, self.folder / f"reference-{number}"))
            print(f"{name}: {self.seconds[name]:.1f} s without kills", flush=True)

    def one_run(self, wanted: int) -> None:
        """Kills one run a few times, lets it finish, and compares it with its uninterrupted twin."""
        number = len(self.runs)
        which = number % len(CONFIGURATIONS)
        name = list(CONFIGURATIONS)[which]
        run = self.folder / f"run-{number + 1}"
        arguments, kills, done = command(name, self.folder, run), 0, False
        while not done and kills < KILLS_A_RUN and len(self.kills) < wanted:
            moment = self.random.uniform(0, self.seconds[name])
            before = read_entries(run / "log.jsonl")
            if not killed(arguments, moment):
                done = True  # before its moment came
                continue
            kills += 1
            at = phase(before, read_entries(run / "log.jsonl"), epochs=EPOCHS)
            self.kills.append(Kill(run=number + 1, configuration=name, seconds=moment, phase=at))
        if not done:
            whole(arguments)
        self.runs.append(
            Run(configuration=name, kills=kills, differences=differences(self.folder / f"reference-{which}", run))
        )
        print(f"run {number + 1}, {name}: {kills} kills, {self.runs[-1].differences or 'identical'}", flush=True)
        shutil.rmtree(run)

    def hunt(self, wanted: int, most_seconds: float) -> None:
        """Runs until so many kills, or so many seconds, are reached."""
        began = time.monotonic()
        while len(self.kills) < wanted and time.monotonic() - began < most_seconds:
            self.one_run(wanted)


# ---- reporting ----


def table(kills: Sequence[Kill], runs: Sequence[Run]) -> list[str]:
    """Lines of a Markdown table: kills by configuration and phase, finished runs, and how many are identical."""
    rows = [f"| configuration | {' | '.join(PHASES)} | kills | runs | identical |", "|---" * (len(PHASES) + 4) + "|"]
    for name in (*CONFIGURATIONS, "all"):
        own = Counter(kill.phase for kill in kills if name in (kill.configuration, "all"))
        ended = [run for run in runs if name in (run.configuration, "all")]
        same = sum(not run.differences for run in ended)
        cells = [name, *(own[at] for at in PHASES), own.total(), len(ended), same]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return rows


def record(hunt: Hunt, *, seed: int, seconds: float) -> str:
    """The Markdown section: what was done, where, and what came of it."""
    import torch

    moments = sorted(kill.seconds for kill in hunt.kills)
    lines = [
        f"`python scripts/random_kills.py --kills {len(hunt.kills)} --seed {seed}` on {time.strftime('%Y-%m-%d')}:"
        f" {len(hunt.kills)} kills (SIGKILL to the whole process group) of {len(hunt.runs)} runs in {seconds / 60:.0f}"
        f" minutes; Python {platform.python_version()}, torch {torch.__version__},"
        f" {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores.",
        "",
        *table(hunt.kills, hunt.runs),
        "",
        "Seconds of a run without kills: " + "; ".join(f"{name} {s:.1f}" for name, s in hunt.seconds.items()) + "."
        + (f" Kills came {moments[0]:.1f} to {moments[-1]:.1f} s after the process began." if moments else ""),
    ]  # fmt: skip
    lines += [f"Run {n}: {'; '.join(run.differences)}." for n, run in enumerate(hunt.runs, 1) if run.differences]
    return "\n".join(lines)


def put_between_marks(file: Path, text: str) -> None:
    """Replaces what stands between MARKS in a file, or is appended with them."""
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    head, mark, rest = old.partition(MARKS[0])
    tail = rest.partition(MARKS[1])[2] if mark else "\n"
    file.write_text(f"{head}{MARKS[0]}\n{text}\n{MARKS[1]}{tail}", encoding="utf-8")


def main() -> None:
    """Hunts, prints the table, writes the record; status 1 if a run differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, default=Path("runs/kills"), help="for runs; what it holds is deleted")
    parser.add_argument("--record", type=Path, help="Markdown file whose marked section is replaced")
    parser.add_argument("--most-seconds", type=float, default=3600.0, help="begin no run after so many")
    options = parser.parse_args()
    began = time.monotonic()
    hunt = Hunt(options.folder.resolve(), seed=options.seed)
    hunt.prepare()
    hunt.hunt(options.kills, options.most_seconds)
    print("\n".join(table(hunt.kills, hunt.runs)))
    if options.record:
        put_between_marks(options.record, record(hunt, seed=options.seed, seconds=time.monotonic() - began))
    if any(run.differences for run in hunt.runs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
