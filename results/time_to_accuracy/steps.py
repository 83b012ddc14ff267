"""The wall time of a step on two threads, Trifold's or the peer's, loading and augmenting included.

Usage: steps.py trifold|peer CIFAR10. Run the two in turn, with nothing else running.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import suppress

import peer
import torch
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision import transforms as T

from trifold.architecture import read
from trifold.data.images import Images
from trifold.data.loader import Held
from trifold.layers import Numerics
from trifold.network import build
from trifold.preprocessing import plain
from trifold.train import planning
from trifold.train.loop import Training, run_steps
from trifold.train.recipes import find_recipe
from trifold.train.task import Task

STEPS, WARM_UP = 140, 20
CHANGES = {"batch_size": 128, "lr": 4e-3, "warmup_epochs": 1.0, "drop_rate": 0.0, "pad_crop": 4} | dict.fromkeys(
    ("shift", "rotation", "zoom"), 0.0
)


def peers_times(data: str) -> list[float]:
    """When each of the peer's steps ended."""
    transform = T.Compose(
        [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(peer.MEAN, peer.STD)]
    )
    images = datasets.ImageFolder(f"{data}/train", transform)
    model, times = peer.make_model(), []
    optimizer = peer.create_optimizer_v2(model, opt="adamw", lr=4e-3, weight_decay=0.05)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    for batch, labels in DataLoader(images, 128, shuffle=True, drop_last=True, num_workers=2):
        loss = criterion(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter())
        if len(times) > STEPS:
            break
    return times


def own_times() -> list[float]:
    """When each of Trifold's steps ended; on random bytes, which cost what CIFAR-10's cost."""
    architecture = read(f"{sys.path[0]}/shape.toml")
    recipe = find_recipe("small", architecture, CHANGES)
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (45_000, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.randint(0, 10, (45_000,), generator=draws)
    held = Held(images=Images(pixels=pixels.contiguous(memory_format=torch.channels_last), labels=labels))
    task = Task(
        train=held, minival=held, preprocessing=plain(32, "RGB"), recipe=recipe, seed=0, flip=True, num_classes=10
    )
    numerics = Numerics(bn_eps=1e-3, bn_momentum=0.1, padding="symmetric")
    network = build(architecture, num_classes=10, numerics=numerics, seed=0).to(memory_format=torch.channels_last)
    planning.TIMED_STEPS = STEPS
    trial = planning._Trial()
    with suppress(planning._Timed):
        run_steps(Training(network, task), task, trial)
    return trial.times


def main() -> None:
    """Prints the median."""
    torch.set_num_threads(2)
    times = peers_times(sys.argv[2]) if sys.argv[1] == "peer" else own_times()
    spans = [later - earlier for earlier, later in zip(times[WARM_UP:], times[WARM_UP + 1 :], strict=False)]
    print(f"{sys.argv[1]}: {1e3 * statistics.median(spans):.0f} ms a step of 128 images")


if __name__ == "__main__":
    main()
