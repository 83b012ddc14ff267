"""Time to make a network from a file of weights, here and in timm: python benchmarks/load_weights.py [--rounds N].

Both read the same file, that of timm's network; construction counts on both sides. The sides take turns, so that what
else the machine does meets both. Times are of this process alone (time.process_time), on one thread; the bar is a
ratio of 1.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

import trifold
from trifold._torchvision import torchvision  # noqa: F401  before timm, which imports it

import timm  # isort: skip
from safetensors.torch import save_file

NETWORKS = {"b0": "tf_efficientnet_b0", "b4": "tf_efficientnet_b4"}


def spent_ms(make: Callable[[], object]) -> float:
    began = time.process_time()
    make()
    return 1e3 * (time.process_time() - began)


def compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians in ms, after one of each that does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for side, make in zip(times, (ours, theirs), strict=True):
            taken = spent_ms(make)
            if turn:
                side.append(taken)
    return median(times[0]), median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--network", choices=NETWORKS, default="b0")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # that timm's names do not tell the padding
    name = NETWORKS[asked.network]
    state = timm.create_model(name).state_dict()
    with tempfile.TemporaryDirectory() as folder:
        for end in (".safetensors", ".pth"):
            path = Path(folder) / f"{name}{end}"
            save_file(state, path) if end == ".safetensors" else torch.save(state, path)
            ours, theirs = compare(
                lambda path=path: trifold.create_model(asked.network, pretrained=path),
                lambda path=path: timm.create_model(name, checkpoint_path=str(path)),
                asked.rounds,
            )
            print(f"{asked.network} {end:12} trifold {ours:6.1f} ms, timm {theirs:6.1f} ms, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
