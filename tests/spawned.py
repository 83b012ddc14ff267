"""What two processes do in test_processes; in a module of its own that they import quickly."""

from __future__ import annotations

import gc
import os
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.tasks import Watching, steady_network, task_of
from trifold.data.digits import open_digits
from trifold.data.images import Images
from trifold.data.loader import Held
from trifold.errors import Failed, InvalidInput
from trifold.preprocessing import plain
from trifold.train import loop
from trifold.train.evaluate import predictions
from trifold.train.loop import Training, run_epochs
from trifold.train.processes import Processes, from_environment, from_first, gathered, joined, summed
from trifold.train.recipe import Recipe
from trifold.train.task import CPU, Task

NUM_IMAGES, NUM_CLASSES = 517, 7
"""Odd, and more than one batch of 256 for each of two processes."""

ONE_STEP = Recipe(
    name="plain",
    epochs=1,
    batch_size=211,
    optimizer="sgd",
    lr=0.5,
    momentum=0.0,
    schedule="constant",
    label_smoothing=0.1,
    freeze_bn=True,
    balance="weights",
)


class Known(nn.Module):
    """A network whose answer is known: the class that an image's first pixel names, shifted by a buffer."""

    shift: Tensor

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(shift))
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        number = (images[:, 0, 0, 0] * 255).round().long() + 256 * (images[:, 0, 0, 1] * 255).round().long()
        self.seen += number.tolist()
        label = (number + self.shift) % NUM_CLASSES
        return 5.0 * nn.functional.one_hot(label, NUM_CLASSES).float()


def numbered_images() -> Images:
    """Images whose first two pixels are their number."""
    number = torch.arange(NUM_IMAGES)
    pixels = torch.zeros(NUM_IMAGES, 1, 4, 4, dtype=torch.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = (number % 256).byte(), (number // 256).byte()
    return Images(pixels=pixels, labels=(number % NUM_CLASSES))


def numbered_task(processes: Processes) -> Task:
    source = Held(images=numbered_images())
    shape = replace(plain(4, "L"), mean=(0.0,), std=(1.0,))
    return Task(
        train=source,
        minival=source,
        preprocessing=shape,
        recipe=ONE_STEP,
        seed=0,
        flip=False,
        num_classes=NUM_CLASSES,
        processes=processes,
    )


def one_step(processes: Processes, **changes: Any) -> dict[str, Tensor]:
    """The tiny network's tensors after a step of all training images, and the step's loss."""
    whole = open_digits()
    task = task_of(replace(whole, samples=whole.samples[::6]), replace(ONE_STEP, **changes))
    network, seen = steady_network(task), Watching()
    run_epochs(Training(network, replace(task, processes=processes)), replace(task, processes=processes), seen)
    return {**seen.states[-1], "losses": torch.tensor([step.loss for step in seen.steps], dtype=torch.float64)}


def error_of_first(processes: Processes) -> str:
    def refuse() -> None:
        raise InvalidInput("the first process refuses")

    try:
        from_first(processes, refuse)
    except InvalidInput as error:
        return str(error)
    return ""


def runners_left(processes: Processes) -> int:
    """How many of an epoch's runners outlive three epochs."""
    made: list[weakref.ref[nn.Module]] = []
    build = loop._runner

    def noted(network: nn.Module, task: Task) -> nn.Module:
        runner = build(network, task)
        made.append(weakref.ref(runner))
        return runner

    loop._runner = noted  # this process ends soon
    one_step(processes, epochs=3)
    loop._runner = build
    gc.collect()
    assert len(made) == 3
    return sum(runner() is not None for runner in made)


def answers(processes: Processes) -> dict[str, Any]:
    """What this process finds in all that is asked of two."""
    rank = processes.rank
    task, network = numbered_task(processes), Known(shift=3 * rank)
    chances = predictions(network, task.minival, task)
    return {
        "processes": processes,
        "chances": chances,
        "seen": network.seen,
        "summed": summed(processes, [1.0 + rank, 0.1, 2.0**-60]),
        "gathered": [
            gathered(processes, torch.arange(count)[rank :: processes.count][:, None] * 10) for count in (1, 2, 7)
        ],
        "from_first": from_first(processes, lambda: {"made by": rank}),
        "refused": error_of_first(processes),
        "weighted step": one_step(processes),
        "plain step": one_step(processes, balance="none", accumulate=3),
        "head alone": one_step(processes, head_epochs=1, epochs=2, freeze_bn=False, ema_decay=0.5),
        "runners left": runners_left(processes),
    }


def lose_the_other(processes: Processes) -> str:
    """What the first process says when the second is gone without a word."""
    try:
        with joined(processes, CPU):
            if not processes.first:
                os._exit(1)
            summed(processes, [1.0])
    except Failed as error:
        return str(error)
    return ""


def work(rank: int, count: int, ports: tuple[int, int], folder: str) -> None:
    """One process's whole life: its answers lie in the folder when it ends."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(ports[0]),
    }
    processes = from_environment()
    with joined(processes, CPU):
        found = answers(processes)
    torch.save(found, Path(folder) / f"{rank}.pt")
    os.environ["MASTER_PORT"] = str(ports[1])
    (Path(folder) / f"lost-{rank}.txt").write_text(lose_the_other(processes))
