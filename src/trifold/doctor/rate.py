"""The learning rate of a run against what its network would have stood."""

from __future__ import annotations

from trifold.data.loader import Files
from trifold.doctor.case import Case
from trifold.doctor.findings import Check, Finding
from trifold.doctor.start import Start
from trifold.preprocessing import plain
from trifold.train.machine import Machine
from trifold.train.processes import ALONE
from trifold.train.range_test import range_test
from trifold.train.task import Task

TOO_LOW = 100.0
"""How many times below the range test's suggestion a rate is worth a note."""


def learning_rate(case: Case, start: Start | str, steps: int) -> Check:
    """Whether the recipe's highest rate lies well below where the loss diverges, and not far below it.

    steps: of the range test; 0: none.
    """
    if isinstance(start, str) or not steps:
        why = start if isinstance(start, str) else "no range test was asked for"
        return Check(what="learning_rate", number=why, looked=False)
    task = _task(case, start)
    seen = range_test(start.network.to(task.device), task, steps=steps)
    rate = case.plan.recipe.highest_lr
    ends = f"diverges at {seen.diverged_at:.2g}" if seen.diverged_at else f"does not diverge up to {seen.rates[-1]:.2g}"
    number = f"{rate:.2g}; in a range test of {len(seen.losses):,} steps the loss {ends}, which suggests "
    number += f"{seen.suggested:.2g}"
    severity, advice = "", ""
    if seen.diverged_at and rate >= seen.diverged_at / 2:
        severity, advice = "warning", f"--set lr={seen.suggested:.2g} --set lr_batch=0, or --find-lr"
    elif rate * TOO_LOW < seen.suggested:
        severity, advice = "note", "a higher rate may train faster; try ten times as much"
    found = (Finding(severity=severity, what="learning_rate", text=number, advice=advice),) if severity else ()
    return Check(what="learning_rate", number=number, findings=found)


def _task(case: Case, start: Start) -> Task:
    """The run's task on this machine; images are decoded when they are asked for, by this process."""
    shape = plain(case.trained.preprocessing.resolution, case.trained.preprocessing.mode)
    train, minival = (Files(samples=part, preprocessing=shape, workers=0) for part in (case.train, case.minival))
    return Task(
        train=train,
        minival=minival,
        preprocessing=case.trained.preprocessing,
        recipe=case.plan.recipe,
        seed=case.plan.seed,
        flip=case.dataset.mirror,
        num_classes=len(case.trained.classes),
        device=Machine().torch_device(ALONE),
        fresh=start.fresh,
    )
