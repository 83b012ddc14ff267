"""What a run's record, recipe and log say of its training; no network is run."""

from __future__ import annotations

import math

from trifold.doctor.case import Case
from trifold.doctor.findings import Check, Finding
from trifold.train.loop import num_steps
from trifold.train.processes import Processes
from trifold.train.recipe import Recipe
from trifold.train.schedule import ema_decay

LEAST_PART = 16
"""Images whose mean and variance batch norm can learn from; below, they say more of the draw than of the data."""

LONGEST_AVERAGE = 0.2
"""Share of a run's steps that its moving average may look back."""

MOST_WAITING = 0.05
"""Share of the steps' time."""

STEEP = 0.1
"""Share of the train loss lost over the last quarter of the epochs, from which more epochs may help."""

FAR_BELOW = 0.5
"""Nats by which the train loss may lie below that of minival; a factor of 2 must come with it."""


def tiny_batches(case: Case) -> Check:
    """Whether batch norm learnt its statistics from enough images at once."""
    recipe, images = case.plan.recipe, case.record.result.images["train"]
    count = int(case.record.result.computed.get("processes", 1))
    together = recipe.accumulate * (1 if recipe.sync_bn else count)
    part = images // num_steps(images, recipe, Processes(count=count)) // together
    number = f"{part:,} images a part (batch_size {recipe.batch_size:,}, accumulate {recipe.accumulate:,}, {count:,} "
    number += "processes" if count > 1 else "process"
    number += ", sync_bn)" if recipe.sync_bn else ")"
    if recipe.freeze_bn:
        return Check(what="tiny_batches", number=f"{number}; batch norm is frozen")
    if part >= LEAST_PART:
        return Check(what="tiny_batches", number=number)
    found = Finding(
        severity="warning",
        what="tiny_batches",
        text=f"batch norm takes its statistics from {number}, under {LEAST_PART}",
        advice="a larger batch_size or a smaller accumulate; from pretrained weights --set freeze_bn=true",
    )
    return Check(what="tiny_batches", number=number, findings=(found,))


def ema(case: Case) -> Check:
    """Whether the moving average follows within the run's length."""
    highest, steps = case.plan.recipe.ema_decay, case.steps
    if not highest:
        return Check(what="ema", number="the recipe keeps no moving average")
    wanted, reached = 1 / (1 - highest), 1 / (1 - ema_decay(highest, steps - 1))
    number = (
        f"a decay of {highest:g} looks {wanted:,.0f} steps back, {wanted / steps:.0%} of the run's {steps:,}; after "
        f"its warm-up {reached:,.0f} steps, {reached / steps:.0%}"
    )
    if wanted <= LONGEST_AVERAGE * steps:
        return Check(what="ema", number=number)
    fitting = max(0.0, 1 - 10 / steps)
    found = Finding(
        severity="warning" if reached > LONGEST_AVERAGE * steps else "note",
        what="ema",
        text=number,
        advice=f"more epochs, or --set ema_decay={fitting:.4g}, a tenth of this run",
    )
    return Check(what="ema", number=number, findings=(found,))


def waiting(case: Case) -> Check:
    """Whether images came fast enough."""
    share = case.record.result.waiting
    number = f"{share:.1%} of the steps' time went into fetching and augmenting images"
    if share <= MOST_WAITING:
        return Check(what="waiting", number=number)
    found = Finding(
        severity="note",
        what="waiting",
        text=f"{number}, over {MOST_WAITING:.0%}",
        advice="more --workers, --in-memory yes, or smaller copies of the files; the results are the same",
    )
    return Check(what="waiting", number=number, findings=(found,))


def not_finished(case: Case) -> Check:
    """Whether the run ended while it was still getting better."""
    epochs, best = case.epochs, case.record.result.epoch
    quarter = max(1, len(epochs) // 4)
    fall = 0.0
    if len(epochs) > quarter and epochs[-1 - quarter].train_loss > 0:
        fall = 1 - epochs[-1].train_loss / epochs[-1 - quarter].train_loss
    number = (
        f"epoch {best:,} of {len(epochs):,} is best on minival; the train loss fell by {fall:.1%} over the last "
        + (f"{quarter:,} epochs" if quarter > 1 else "epoch")
    )
    if best < epochs[-1].epoch and fall <= STEEP:
        return Check(what="not_finished", number=number)
    found = Finding(
        severity="note",
        what="not_finished",
        text=number,
        advice="more epochs may help; compare the minival accuracy of a run of twice the length",
    )
    return Check(what="not_finished", number=number, findings=(found,))


def smoothing_floor(label_smoothing: float, num_classes: int) -> float:
    """The least cross-entropy that targets smoothed so allow: their entropy, in nats."""
    other = label_smoothing / num_classes
    own = 1 - label_smoothing + other
    return -own * math.log(own) - (num_classes - 1) * other * (math.log(other) if other else 0.0)


def overfitting(case: Case) -> Check:
    """Whether the network learnt its training images rather than what they show."""
    recipe, last = case.plan.recipe, case.epochs[-1]
    floor = smoothing_floor(recipe.label_smoothing, len(case.trained.classes))
    above = max(0.0, last.train_loss - floor)
    number = f"at the last epoch the loss is {above:.2f} on train and {last.minival_loss:.2f} on minival"
    if floor:
        number += f" (train is {last.train_loss:.2f}, less {floor:.2f} that label smoothing adds at least)"
    if _mixes(recipe):
        number += "; train images are mixed, which raises theirs"
    if last.minival_loss - above <= FAR_BELOW or last.minival_loss <= 2 * above:
        return Check(what="overfitting", number=number)
    found = Finding(
        severity="warning",
        what="overfitting",
        text=number,
        advice="more augmentation (crop_area, policy, mixup), drop_rate or weight_decay, or start from trained weights",
    )
    return Check(what="overfitting", number=number, findings=(found,))


def _mixes(recipe: Recipe) -> bool:
    return bool(recipe.mixup or recipe.cutmix)
