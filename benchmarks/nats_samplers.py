"""The search's samplers beside random search, on networks that others trained and timed: NATS-Bench's 15,625 cells.

    TRIFOLD_DATA=… .venv/bin/python benchmarks/nats_samplers.py [--tpe] [--seeds 50] [--evaluations 300] [--out FILE]

Accuracy after 200 epochs on three data sets, and MnasNet's reward of the CIFAR-100 accuracy and a measured latency on a
Raspberry Pi 5, accuracy · (latency / T)^-0.07 with T the median latency. Every proposal counts as one evaluation. A
sampler's result is the best it proposed; differences to random search are paired by seed, with Student's 95 % interval.
One thread; seconds are CPU time of the process. TPE takes its time, so it runs only with --tpe, and then alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from statistics import median

import torch

from trifold.search.reward import Target, reward
from trifold.search.samplers import SAMPLERS
from trifold.search.space import Tokens
from trifold.search.table import Table, number, read_csv
from trifold.study.choose import mean_and_interval

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = 6
SIZES = (len(OPERATIONS),) * EDGES

ACCURACIES = {
    "CIFAR-10": "CIFAR10TestAccuracy200Epochs",
    "CIFAR-100": "CIFAR100TestAccuracy200Epochs",
    "ImageNet16-120": "ImageNetTestAccuracy200Epochs",
}
TIMED = ("pi5 onnx", "pi5 torchmobile")
PLAIN, SLOW = ("random", "evolution", "policy"), ("random", "tpe")


def tokens_of(cell: str) -> Tokens:
    """A cell's candidate: the operation of each edge, from `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
    edges = [edge.partition("~")[0] for edge in cell.replace("+", "").split("|") if edge]
    if len(edges) != EDGES or not set(edges) <= set(OPERATIONS):
        raise ValueError(f"a cell must have {EDGES} edges of {', '.join(OPERATIONS)}, got {cell!r}")
    return tuple(OPERATIONS.index(edge) for edge in edges)


def read_nats(folder: Path) -> Table:
    """Every cell's accuracies in per cent by data set, and its latencies in ms by device and framework.

    A latency of 0 ms was not measured, and is absent.
    """
    cells: list[tuple[Tokens, dict[str, float]]] = []
    path = folder / "tables" / "nats_bench_topology_200_epochs.csv.gz"
    for row in read_csv(path, "ArchitectureString", *ACCURACIES.values()):
        values = {name: number(row, column) for name, column in ACCURACIES.items()}
        cells.append((tokens_of(row["ArchitectureString"]), values))
    path = folder / "tables" / "hw_nas_bench_360_latency.csv.gz"
    for row in read_csv(path, "arch_idx", "device", "framework", "lat_ms_median"):
        if latency := number(row, "lat_ms_median"):
            cells[int(row["arch_idx"])][1][f"{row['device']} {row['framework']}"] = latency
    return Table(sizes=SIZES, rows=dict(cells))


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is searched for. needs: values that a candidate must have; score: what is maximised, of those."""

    name: str
    needs: tuple[str, ...]
    score: Callable[[dict[str, float]], float]


def problems(table: Table) -> list[Problem]:
    """Accuracy on each data set, and the reward with each latency."""
    found = [Problem(name=name, needs=(name,), score=itemgetter(name)) for name in ACCURACIES]
    for timed in TIMED:
        target = Target(measure=timed, value=median(table.column(timed)))

        def score(held: dict[str, float], target: Target = target) -> float:
            return reward(held["CIFAR-100"], held, [target])

        name = f"CIFAR-100 · ({timed} / {target.value:.2f} ms)^{target.below}"
        found.append(Problem(name=name, needs=("CIFAR-100", timed), score=score))
    return found


def best(name: str, problem: Problem, table: Table, *, seed: int, evaluations: int) -> float:
    """The highest score that the named sampler found."""
    sampler, allowed = SAMPLERS[name](table.sizes, seed=seed), table.allowed(*problem.needs)
    scores = []
    for asked in range(evaluations):
        tokens = sampler.ask(asked, allowed)
        scores.append(problem.score(table.evaluate(tokens, *problem.needs)))
        sampler.tell(tokens, scores[-1])
    return max(scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A sampler on a problem. mean: of the best found; difference, interval: to random search, paired by seed."""

    problem: str
    sampler: str
    mean: float
    difference: float
    interval: float
    seconds: float
    best: tuple[float, ...]


def rows(problem: Problem, table: Table, names: tuple[str, ...], *, seeds: int, evaluations: int) -> list[Row]:
    """Each sampler on a problem; the first is what the others are compared with. seconds: CPU, of one search."""
    made: list[Row] = []
    for name in names:
        began = time.process_time()
        found = tuple(best(name, problem, table, seed=seed, evaluations=evaluations) for seed in range(seeds))
        spent = time.process_time() - began
        mean, _ = mean_and_interval(found)
        base = made[0].best if made else found
        difference, interval = mean_and_interval([one - other for one, other in zip(found, base, strict=True)])
        made.append(
            Row(
                problem=problem.name,
                sampler=name,
                mean=mean,
                difference=difference,
                interval=interval,
                seconds=spent / seeds,
                best=found,
            )
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tpe", action="store_true")
    for name, default in (("seeds", 50), ("evaluations", 300)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    table = read_nats(Path(os.environ["TRIFOLD_DATA"]))
    print(f"{asked.evaluations} evaluations, {asked.seeds} seeds; mean of the best found\n")
    print("| searched for | the table's best | sampler | mean | less random's | 95 % interval | CPU s |")
    print("|---|---:|---|---:|---:|---|---:|", flush=True)
    made: list[Row] = []
    for problem in problems(table):
        held = table.allowed(*problem.needs)
        most = max(problem.score(table.evaluate(tokens)) for tokens in table.rows if held(tokens))
        names = SLOW if asked.tpe else PLAIN
        for row in rows(problem, table, names, seeds=asked.seeds, evaluations=asked.evaluations):
            made.append(row)
            low, high = row.difference - row.interval, row.difference + row.interval
            apart = "| | " if row.sampler == names[0] else f"| {row.difference:+.3f} | {low:+.3f} to {high:+.3f} "
            where = f"{row.problem} | {most:.3f} | {row.sampler} | {row.mean:.3f}"
            print(f"| {where} {apart}| {row.seconds:.3f} |", flush=True)
    spent = time.process_time() - began
    print(f"\n{spent:.0f} s of process time in all")
    if asked.out:
        written = {"evaluations": asked.evaluations, "seeds": asked.seeds, "rows": [asdict(row) for row in made]}
        asked.out.write_text(json.dumps({**written, "seconds": spent}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
