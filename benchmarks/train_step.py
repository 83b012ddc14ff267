"""Times of a training step beside timm, in one run; prints the Markdown that docs/kernels.md takes its table from.

    .venv/bin/python benchmarks/train_step.py --compile --out runs/train_step.jsonl

In each case (network, size, threads) every contender has a process of its own, as its users have, and they take
turns: one of them works, the others wait. Nothing else may run on the machine meanwhile. A run that was interrupted
goes on with the first case that is not in the file of --out.

This process loads no torch: a process that it starts would count this one's memory as its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trifold.baselines import find
from trifold.cost import cost

if TYPE_CHECKING:
    import torch

TIMM_NAMES = {
    "efficientnet_b0": "efficientnet_b0",
    "efficientnetv2_s": "efficientnetv2_s",
    "mobilenet_v2": "mobilenetv2_100",
    "resnet50": "resnet50",
}
"""timm's name of each network; all are padded symmetrically, as `TORCH_NUMERICS` has it."""

SIZES = {"efficientnet_b0": ((32, 128), (64, 64), (224, 16))}
OTHER_SIZES = ((64, 64), (224, 16))
"""Pixels and images a batch, where --sizes does not say."""

BARS = {("efficientnet_b0", 32, 128): 3.0, ("efficientnet_b0", 64, 64): 2.0, ("efficientnet_b0", 224, 16): 1.4}
"""How many times as fast as timm's best a step must be; 1 elsewhere."""

TRIFOLD, TRIFOLD_OFF = "trifold", "trifold, kernels off"
TIMM, TIMM_LAST, TIMM_COMPILED = "timm", "timm, channels-last", "timm, channels-last, compiled"
TIMM_KEPT = "timm, channels-last, memory kept"
EAGER = (TIMM, TIMM_LAST)
"""The two of which the better one is timm's best."""
KEEPING = (TRIFOLD, TRIFOLD_OFF, TIMM_KEPT)
"""Those that keep freed memory: `trifold train` asks malloc for it, a plain loop does not."""
MATRIX = "torch.mm"
"""What takes turns with the contenders to say what the machine can do."""

NUM_CLASSES, LR, MOMENTUM = 10, 1e-3, 0.9
MATRIX_SIDE, MATRICES_PER_ROUND = 2048, 2

HEADER = """\
| network | pixels | batch | threads | contender | ms a step | timm's best ÷ it | bar | share of peak | peak MiB |
|---|---:|---:|---:|---|---:|---:|---|---:|---:|"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is compared.

    size: pixels. batch: images a step. steps: of a contender's turn; 0: as many as take round_seconds.
    """

    network: str
    size: int
    batch: int
    threads: int
    contenders: tuple[str, ...]
    rounds: int
    steps: int
    round_seconds: float
    warm_up: int

    def __str__(self) -> str:
        return f"{self.network}, {self.size} px, batch {self.batch}, threads {self.threads}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender's figures in one case.

    ratio: time of timm's best to its own, median over rounds. share: of the matrix-multiply peak, in [0, 1].
    compile_s: wall-clock, 0 where nothing is compiled.
    """

    contender: str
    ms: float
    ratio: float
    share: float
    peak_mib: float
    compile_s: float


class CaseFailed(Exception):
    """A case's process ended without a result."""


# ---- in a contender's own process ----


@dataclass(slots=True, kw_only=True)
class Contender:
    """A network with its optimiser and one batch; inside: makes the context that its steps run in."""

    run: Callable[[torch.Tensor], torch.Tensor]
    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    images: torch.Tensor
    labels: torch.Tensor
    inside: Callable[[], AbstractContextManager[Any]]


def make_network(*, ours: bool, case: Case) -> torch.nn.Module:
    """The case's network, by Trifold or by timm; both libraries are loaded for either, so that memory compares."""
    import trifold._torchvision  # noqa: F401  before timm, which imports torchvision

    # isort: split
    import timm
    import torch

    from trifold.network import TORCH_NUMERICS, build

    torch.manual_seed(0)
    if ours:
        return build(find(case.network), num_classes=NUM_CLASSES, numerics=TORCH_NUMERICS)
    return timm.create_model(TIMM_NAMES[case.network], num_classes=NUM_CLASSES).train()


def make_optimizer(network: torch.nn.Module, *, ours: bool) -> torch.optim.Optimizer:
    """Nesterov's SGD, which is what `trifold train` and timm's "sgd" both mean, as each of them makes it."""
    import torch
    from timm.optim import create_optimizer_v2

    if ours:
        return torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM, nesterov=True, fused=True)
    return create_optimizer_v2(network, opt="sgd", lr=LR, momentum=MOMENTUM)


def make_contender(name: str, case: Case) -> Contender:
    """A contender ready for its first step; its images already lie in memory as its network wants them."""
    import torch

    from trifold import kernels
    from trifold.train.machine import keep_freed_memory

    ours = name in (TRIFOLD, TRIFOLD_OFF)
    if name in KEEPING:
        keep_freed_memory()
    network = make_network(ours=ours, case=case)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(case.batch, 3, case.size, case.size, generator=generator)
    labels = torch.randint(NUM_CLASSES, (case.batch,), generator=generator)
    if name != TIMM:
        network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    return Contender(
        run=torch.compile(network) if name == TIMM_COMPILED else network,
        network=network,
        optimizer=make_optimizer(network, ours=ours),
        images=images,
        labels=labels,
        inside=partial(kernels.using, "off" if name == TRIFOLD_OFF else "best"),
    )


def take_steps(contender: Contender, count: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of each training step by that clock. Raises CaseFailed if the last loss is not a finite number."""
    import torch.nn.functional as F

    times = []
    with contender.inside():
        for _ in range(count):
            start = clock()
            contender.optimizer.zero_grad()
            loss = F.cross_entropy(contender.run(contender.images), contender.labels)
            loss.backward()
            contender.optimizer.step()
            times.append(clock() - start)
    if not math.isfinite(loss.item()):
        raise CaseFailed(f"a loss must be a finite number, got {loss.item()}")
    return times


def matrix_seconds(clock: Callable[[], float], count: int) -> list[float]:
    """Seconds of each of `count` products of two square float32 matrices of MATRIX_SIDE, after one untimed."""
    import torch

    left, right = torch.rand(2, MATRIX_SIDE, MATRIX_SIDE)
    times = []
    for _ in range(count + 1):
        start = clock()
        torch.mm(left, right)
        times.append(clock() - start)
    return times[1:]


def warm_up(name: str, case: Case) -> tuple[Callable[[int], list[float]], dict[str, Any]]:
    """What takes a contender's steps, so many, and gives each one's seconds, and what is known of it by now.

    Known: its parameters, steps (of a turn) and compile_s (0 where nothing is compiled).
    """
    clock = time.process_time if case.threads == 1 else time.perf_counter
    if name == MATRIX:
        return partial(matrix_seconds, clock), {"steps": MATRICES_PER_ROUND}
    contender = make_contender(name, case)
    times = take_steps(contender, case.warm_up, time.perf_counter)
    known = {
        "parameters": sum(p.numel() for p in contender.network.parameters()),
        "steps": case.steps or max(1, math.ceil(case.round_seconds / min(times))),
        "compile_s": sum(times) - len(times) * min(times) if name == TIMM_COMPILED else 0.0,
    }
    return partial(take_steps, contender, clock=clock), known


def work(name: str, case: str) -> None:
    """One contender's process: says, as lines of JSON, what is known once it is warm, then each turn's seconds a step.

    A turn is asked for by a line; after the last one the most MiB that this process ever held are said.
    """
    import torch

    warnings.simplefilter("ignore")
    values = json.loads(case)
    found = Case(**values | {"contenders": tuple(values["contenders"])})
    torch.set_num_threads(found.threads)
    take, known = warm_up(name, found)
    print(json.dumps(known), flush=True)
    for _ in sys.stdin:
        print(json.dumps(statistics.fmean(take(known["steps"]))), flush=True)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), flush=True)  # Linux gives KiB


# ---- in the process that starts them ----


class Worker:
    """A contender's process. Raises CaseFailed where it ends before its answer.

    cache: the folder for what torch.compile makes; an empty one at first, so that the compile time is a whole one.
    """

    def __init__(self, name: str, case: Case, cache: str) -> None:
        self.name, self.errors = name, tempfile.TemporaryFile("w+")  # noqa: SIM115  lives as long as the process
        environment = {key: value for key, value in os.environ.items() if key != "TRIFOLD_KERNELS"}
        environment["TORCHINDUCTOR_CACHE_DIR"] = cache
        words = [sys.executable, __file__, "--worker", name, json.dumps(asdict(case))]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, env=environment, stdin=pipe, stdout=pipe, stderr=self.errors, text=True)

    def answer(self) -> Any:
        """What its next line says."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.errors.seek(0)
        said = self.errors.read()
        print(said, file=sys.stderr)
        last = (said.strip().splitlines() or ["(it said nothing)"])[-1]
        raise CaseFailed(f"{self.name} ended with status {self.process.wait()}: {last}")

    def turn(self) -> float:
        """Seconds a step of its next turn."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: `answer` says why
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        found: float = self.answer()
        return found

    def last(self) -> float:
        """The most MiB that it held."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        found: float = self.answer()
        return found


def measure_case(case: Case) -> dict[str, Any]:
    """The record of a case: everything measured of it, with the case and the versions. Raises CaseFailed."""
    names = (MATRIX, *case.contenders)
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as cache:
        try:
            found: dict[str, Any] = {}
            for name in names:  # one by one: they would disturb each other's compiling
                print(f"{case}: {name} gets ready", file=sys.stderr, flush=True)
                workers[name] = Worker(name, case, cache)
                found[name] = workers[name].answer() | {"seconds": []}
            for number in range(case.rounds):
                print(f"{case}: round {number + 1} of {case.rounds}", file=sys.stderr, flush=True)
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    found[name]["seconds"].append(workers[name].turn())
            for name in names:
                found[name]["peak_mib"] = workers[name].last()
        finally:
            for worker in workers.values():
                worker.process.kill()
    counts = {name: found[name]["parameters"] for name in case.contenders}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise CaseFailed(f"contenders must have equally many parameters, got {told}")
    network = replace(find(case.network), resolution=case.size)
    versions = {name: version(name) for name in ("torch", "timm")}
    forward = cost(network, num_classes=NUM_CLASSES).multiply_adds
    seconds = found.pop(MATRIX)["seconds"]
    record = {"type": "train_step", **asdict(case), **versions, "multiply_adds": forward}
    return record | {"matrix_seconds": seconds, "contenders": found}


def key(values: dict[str, Any]) -> tuple[Any, ...]:
    """What tells cases apart, of a record or of a case's fields."""
    return tuple(values[name] for name in ("network", "size", "batch", "threads"))


def read_records(out: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The last record of each case in the file, by its key. Raises ValueError naming file and line if one is broken."""
    records = {}
    lines = Path(out).read_text(encoding="utf-8").splitlines() if out and Path(out).exists() else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{out}, line {number}: must be a JSON object, got {line[:40]!r}; delete it") from error
        records[key(record)] = record
    return records


def append(out: str, record: dict[str, Any]) -> None:
    """Writes the record at the end of the file, where there is one."""
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with Path(out).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def serves(record: dict[str, Any], case: Case) -> bool:
    """Whether a record has every contender of the case, over at least as many rounds."""
    return set(case.contenders) <= set(record["contenders"]) and record["rounds"] >= case.rounds


# ---- what was found ----


def peak(record: dict[str, Any]) -> float:
    """Multiply-adds a second of the matrix products, median."""
    return MATRIX_SIDE**3 / statistics.median(record["matrix_seconds"])


def rows(record: dict[str, Any]) -> list[Row]:
    """The figures of a case; timm's best is the eager one with the less median time."""
    contenders = record["contenders"]
    seconds = {name: found["seconds"] for name, found in contenders.items()}
    best = min(EAGER, key=lambda name: statistics.median(seconds[name]))
    multiply_adds = 3 * record["multiply_adds"] * record["batch"]
    return [
        Row(
            contender=name,
            ms=1000 * statistics.median(seconds[name]),
            ratio=statistics.median(b / own for b, own in zip(seconds[best], seconds[name], strict=True)),
            share=multiply_adds / statistics.median(seconds[name]) / peak(record),
            peak_mib=found["peak_mib"],
            compile_s=found["compile_s"],
        )
        for name, found in contenders.items()
    ]


def verdicts(record: dict[str, Any]) -> dict[str, bool]:
    """Whether Trifold meets each bar of the case, by what is asked."""
    found = {row.contender: row for row in rows(record)}
    bar = BARS.get((record["network"], record["size"], record["batch"]), 1.0)
    least = min(found[name].peak_mib for name in EAGER)
    return {f"≥ {bar:.1f}": found[TRIFOLD].ratio >= bar, f"≤ {least:,.0f} MiB": found[TRIFOLD].peak_mib <= least}


def lines(record: dict[str, Any]) -> Iterator[str]:
    """The table's lines of a case; the first is the matrix product that shares are of."""
    start = f"| {record['network']} | {record['size']} | {record['batch']} | {record['threads']} |"
    ms = 1000 * statistics.median(record["matrix_seconds"])
    yield f"{start} (`torch.mm`, {MATRIX_SIDE}³: {peak(record) / 1e9:.1f} G/s) | {ms:.4g} | | | 100 % | |"
    bars = ", ".join(f"{what} {'met' if met else '**missed**'}" for what, met in verdicts(record).items())
    for row in rows(record):
        name = f"{row.contender} ({row.compile_s:.0f} s to compile)" if row.compile_s else row.contender
        bar = bars if row.contender == TRIFOLD else ""
        yield (
            f"{start} {name} | {row.ms:.4g} | {row.ratio:.2f} | {bar} | {100 * row.share:.1f} % | {row.peak_mib:,.0f} |"
        )


def processor() -> str:
    """The processor's name as Linux gives it, or the platform's."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def introduce(rounds: int) -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm"))
    print(f"""\
# A training step beside timm

Made by `benchmarks/train_step.py`.
{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}, {versions}.

Float32, {NUM_CLASSES} classes, random images, cross-entropy, SGD with Nesterov momentum {MOMENTUM}: forward, backward,
update. Trifold's networks are channels-last, as `trifold train` has them; with kernels off they use torch's operators
alone. Each contender has a process of its own and they take turns: medians of {rounds} rounds or more, of CPU time
with one thread, of wall-clock with more. The ratio is of times within a round, to the faster of timm's two eager forms.
"Memory kept": with glibc's malloc asked to keep freed memory, as `trifold train` asks it.

Share of peak: three times the forward multiply-adds a second, of those that `torch.mm` reaches on float32 matrices
{MATRIX_SIDE} on a side, taking turns as well, with as many threads. Peak MiB: resident memory of a contender's whole
process, which has loaded torch, Trifold and timm alike, and the compiler where it compiles. Bars: the ratio, and memory
no higher than the lower of timm's two eager forms.
""")


def run_cases(cases: list[Case], out: str) -> int:
    """Prints every case's rows as it finishes, then what was missed; returns how many cases failed."""
    records, missed, failed = read_records(out), [], []
    print(HEADER, flush=True)
    for case in cases:
        record = records.get(key(asdict(case)))
        if record is None or not serves(record, case):
            try:
                record = measure_case(case)
            except CaseFailed as error:
                failed.append(f"{case}: {error}")
                continue
            append(out, record)
        print("\n".join(lines(record)), flush=True)
        missed += [f"{case}: {what}" for what, met in verdicts(record).items() if not met]
    print("\nBars missed:" + ("\n\n- " + "\n- ".join(missed) if missed else " none."))
    if failed:
        print("\nFailed:\n\n- " + "\n- ".join(failed))
    return len(failed)


# ---- the command line ----


def network(text: str) -> str:
    if text not in TIMM_NAMES:
        raise argparse.ArgumentTypeError(f"each must be one of {', '.join(TIMM_NAMES)}, got {text!r}")
    return text


def size_and_batch(text: str) -> tuple[int, int]:
    size, _, batch = text.partition("x")
    if not (size.isdecimal() and batch.isdecimal() and int(size) >= 32 and int(batch) >= 2):
        raise argparse.ArgumentTypeError(f"each must be PIXELSxBATCH from 32x2, like 64x64, got {text!r}")
    return int(size), int(batch)


def whole(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least}, got {text!r}")
        return int(text)

    return parse


def several(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """A parser of what `parse` reads, with commas between."""
    return lambda text: tuple(parse(part) for part in text.split(","))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times of a training step beside timm, as Markdown.")
    add = parser.add_argument
    add("--networks", type=several(network), default=tuple(TIMM_NAMES), help="with commas between; default: all four")
    add("--sizes", type=several(size_and_batch), default=(), help="like 32x128,64x64; default: each network's own")
    add("--threads", type=several(whole(1)), default=(1, 2), help="like 1,2, the default")
    add("--rounds", type=whole(1), default=7, help="of turns; default: 7")
    add("--steps", type=whole(0), default=0, help="of a turn; default: 0, as many as take --round-seconds")
    add("--round-seconds", type=float, default=0.5, help="of a turn at least; default: 0.5")
    add("--warm-up", type=whole(2), default=3, help="steps before the first round; default: 3")
    add("--compile", action="store_true", help="timm with torch.compile as well, which takes minutes")
    add("--out", default="", help="a file that results are appended to, and taken from where they are in it")
    add("--worker", nargs=2, default=(), help=argparse.SUPPRESS)
    return parser.parse_args()


def cases(chosen: argparse.Namespace) -> list[Case]:
    """The cases of the options, network by network."""
    contenders = (TRIFOLD, TRIFOLD_OFF, *EAGER, TIMM_KEPT, *([TIMM_COMPILED] if chosen.compile else []))
    given = {name: getattr(chosen, name) for name in ("rounds", "steps", "round_seconds", "warm_up")}
    return [
        Case(network=network, size=size, batch=batch, threads=threads, contenders=contenders, **given)
        for network in chosen.networks
        for size, batch in chosen.sizes or SIZES.get(network, OTHER_SIZES)
        for threads in chosen.threads
    ]


def main() -> int:
    """Measures what the options ask for; 1 if a case failed, else 0."""
    chosen = options()
    if chosen.worker:
        work(*chosen.worker)
        return 0
    introduce(chosen.rounds)
    return 1 if run_cases(cases(chosen), chosen.out) else 0


if __name__ == "__main__":
    sys.exit(main())
