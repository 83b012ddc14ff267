"""Times of the description layer beside its peers, in one run; prints the Markdown that docs/benchmarks.md records.

    make bench

One thread, CPU time of the process (`time.process_time`), rounds interleaved with the peers, medians. Times from the
shell are wall-clock, as a user waits for them.
"""

from __future__ import annotations

import contextlib
import io
import platform
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import trifold._torchvision  # noqa: F401  before ptflops, which imports torchvision

# isort: split
import fvcore.nn
import ptflops
import torch
from torch.utils.flop_counter import FlopCounterMode

from trifold.architecture import Architecture
from trifold.baselines import EFFICIENTNET_B0, find, load
from trifold.budget import Budget, fit
from trifold.cost import cost
from trifold.network import TORCH_NUMERICS, build
from trifold.scaling import RULES, scale

NUM_DESCRIBED = 20_000
PEER_NETWORKS = ("efficientnet_b0", "efficientnet_b7", "efficientnetv2_s", "mobilenet_v2", "resnet50")
ROUNDS = 5


def described(count: int, *, seed: int = 0) -> Iterator[Architecture]:
    """Distinct networks around B0: kernel, expansion, squeeze-excite, width and layers drawn anew for every row."""
    generator = random.Random(seed)
    for number in range(count):
        stages = tuple(
            replace(
                stage,
                kernel_size=generator.choice((3, 5, 7)),
                expand_ratio=generator.choice((1, 3, 4, 6)),
                se_ratio=generator.choice((0, 0.25)),
                channels=max(8, round(stage.channels * generator.choice((0.75, 1, 1.25)) / 8) * 8),
                layers=max(1, stage.layers + generator.choice((-1, 0, 1))),
            )
            for stage in EFFICIENTNET_B0.stages
        )
        yield replace(EFFICIENTNET_B0, name=f"described-{number}", stages=stages)


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def counting() -> None:
    """How long it takes to cost many described networks."""
    networks = list(described(NUM_DESCRIBED))
    times = [seconds(lambda: [cost(network) for network in networks]) for _ in range(3)]
    median = statistics.median(times)
    print(f"\n## {NUM_DESCRIBED:,} described networks costed\n")
    print(f"Median of 3: **{median:.2f} s** on one core, {1e6 * median / NUM_DESCRIBED:.0f} µs a network; bar 3 s.")


def peers(architecture: Architecture) -> dict[str, tuple[Callable[[], float], float]]:
    """Each peer's count of the network, in what it returns, and what to divide by for multiply-adds.

    The network is built before the clock starts: on the meta device, but on the CPU for fvcore, whose tracing fails on
    meta tensors.
    """
    size, network = architecture.resolution, on_meta(architecture)
    real = build(architecture, numerics=TORCH_NUMERICS).eval()

    def by_fvcore() -> float:
        counter = fvcore.nn.FlopCountAnalysis(real, torch.zeros(1, 3, size, size))
        return float(counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())

    def by_ptflops() -> float:
        def image(shape: tuple[int, ...]) -> torch.Tensor:
            return torch.empty(1, *shape, device="meta")

        with contextlib.redirect_stdout(io.StringIO()):
            macs, _ = ptflops.get_model_complexity_info(
                network,
                (3, size, size),
                as_strings=False,
                print_per_layer_stat=False,
                backend="pytorch",
                input_constructor=image,
            )
        return float(macs)

    def by_torch() -> float:
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, size, size, device="meta"))
        return float(counter.get_total_flops())

    return {"fvcore (CPU)": (by_fvcore, 1), "ptflops": (by_ptflops, 1), "FlopCounterMode": (by_torch, 2)}


def on_meta(architecture: Architecture) -> torch.nn.Module:
    """The network without storage; symmetric padding, which every peer can follow."""
    with torch.device("meta"):
        return build(architecture, numerics=TORCH_NUMERICS).eval()


def beside_peers() -> None:
    """One network counted by Trifold and by its peers; they are given the network ready built, on the meta device."""
    print("\n## One network counted, beside the peers\n")
    print(
        "Peers get the network ready built, on the meta device (fvcore on the CPU: its tracing fails on meta tensors);"
        f" building it has a row of its own. Medians of {ROUNDS} interleaved rounds; the ratio is to Trifold's time in"
        " the same round.\n"
    )
    print("| network | counter | multiply-adds | off by | ms | ratio |\n|---|---|---:|---:|---:|---:|")
    for name in PEER_NETWORKS:
        compare(find(name))


def compare(architecture: Architecture) -> None:
    """The rows of one network."""
    expected = cost(architecture).multiply_adds
    counters = peers(architecture)
    calls: dict[str, Callable[[], object]] = {
        "Trifold": lambda: [cost(architecture) for _ in range(100)],
        "(building on meta)": lambda: on_meta(architecture),
        **{counter: call for counter, (call, _) in counters.items()},
    }
    rounds = [
        {key: seconds(call) / (100 if key == "Trifold" else 1) for key, call in calls.items()} for _ in range(ROUNDS)
    ]
    for key in calls:
        ms = 1000 * statistics.median(row[key] for row in rounds)
        ratio = statistics.median(row[key] / row["Trifold"] for row in rounds)
        count, off = "", ""
        if key == "Trifold":
            count = f"{expected:,}"
        elif key in counters:
            counted = counters[key][0]() / counters[key][1]
            count, off = f"{counted:,.0f}", f"{100 * (counted / expected - 1):+.2f} %"
        print(f"| {architecture.name} | {key} | {count} | {off} | {ms:.3g} | {ratio:,.0f} |")


def budgets() -> None:
    """How long a budget takes to solve, over networks, rules and random limits."""
    print("\n## A budget solved; bar 50 ms\n\nEach rule eight times, random limits.\n")
    print("| network | budgets | median ms | largest ms |\n|---|---:|---:|---:|")
    generator = random.Random(0)
    for name in ("b0", "b7", "mini", "lite0", "v2_s", "mobilenet_v2", "resnet50", "efficientnet_es"):
        architecture, rounding = load(name)
        times = []
        for rule in list(RULES.values()) * 8:
            target = cost(scale(architecture, rule.multipliers(generator.uniform(-2, 4)), rounding))
            budget = Budget(
                multiply_adds=target.multiply_adds * generator.uniform(1, 1.5),
                parameters=target.parameters * generator.uniform(1, 1.5),
                activations=target.activations * generator.uniform(1, 1.5),
            )
            start = time.process_time()
            fit(architecture, budget, rule, rounding=rounding)
            times.append(1000 * (time.process_time() - start))
        print(f"| {architecture.name} | {len(times)} | {statistics.median(times):.1f} | {max(times):.1f} |")


def from_the_shell() -> None:
    """Wall-clock seconds of whole commands; importing torch alone stands beside them."""
    command = str(Path(sys.executable).with_name("trifold"))
    commands = {
        "`trifold show b0`": [command, "show", "b0"],
        "`trifold scale b0 --phi 1`": [command, "scale", "b0", "--phi", "1"],
        "`trifold scale b0 --budget …`": [command, "scale", "b0", "--budget", "multiply-adds=1.5e9,params=8M"],
        "`python -c 'pass'`": [sys.executable, "-c", "pass"],
        "`python -c 'import torch'`": [sys.executable, "-c", "import torch"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(9):
        for name, words in commands.items():
            start = time.perf_counter()
            subprocess.run(words, check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    print("\n## From the shell; bar 0.25 s\n\nWall-clock, 9 interleaved rounds.\n")
    print("| command | median s | least s |\n|---|---:|---:|")
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.3f} | {min(values):.3f} |")


def processor() -> str:
    """The processor's name as Linux gives it, or the platform's."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Runs everything, one thread."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "fvcore", "ptflops"))
    print("# Benchmarks of the description layer\n")
    print("Made by `make bench` (`benchmarks/run.py`): one thread, CPU time.")
    print(f"{processor()}, Python {platform.python_version()}, {versions}.")
    counting()
    beside_peers()
    budgets()
    from_the_shell()


if __name__ == "__main__":
    main()
