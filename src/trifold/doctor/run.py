"""What spoilt a finished run, or would have been worth knowing: every check, with its number."""

from __future__ import annotations

from pathlib import Path

from trifold.data.dataset import Dataset
from trifold.doctor import history, images, norms
from trifold.doctor.case import open_case
from trifold.doctor.findings import Check, Finding, in_order_of_severity
from trifold.doctor.rate import learning_rate
from trifold.doctor.start import start_of
from trifold.errors import InvalidInput
from trifold.train.machine import torch_threads
from trifold.train.range_test import FEWEST_STEPS


def check_run(
    run: str | Path,
    dataset: Dataset | None = None,
    *,
    range_steps: int = 60,
    begun_with: str | Path | None = None,
) -> tuple[Finding, ...]:
    """What is wrong, doubtful or worth knowing about a finished run: errors first, then warnings and notes.

    Arguments and errors are those of `run_checks`.
    """
    checks = run_checks(run, dataset, range_steps=range_steps, begun_with=begun_with)
    return in_order_of_severity(tuple(finding for check in checks for finding in check.findings))


def run_checks(
    run: str | Path,
    dataset: Dataset | None = None,
    *,
    range_steps: int = 60,
    begun_with: str | Path | None = None,
) -> tuple[Check, ...]:
    """Everything that was looked at in a finished run, each with what was measured.

    dataset: the images to look at; None: those of the training. range_steps: of the learning-rate range test; 0: none.
    begun_with: the pretrained weights that the run began with, without which what needs them is not checked.

    Raises InvalidData if the folder holds no finished run or the images are gone; InvalidInput if range_steps is out of
    range or the weights are not those of the run.
    """
    if type(range_steps) is not int or 0 != range_steps < FEWEST_STEPS:
        raise InvalidInput(f"range_steps must be 0 or a whole number from {FEWEST_STEPS}, got {range_steps!r}")
    case = open_case(run, dataset)
    start = start_of(case, begun_with)
    with torch_threads(int(case.record.result.computed.get("threads", 1))):
        return (
            norms.normalisation(case),
            norms.frozen_bn(case, start),
            norms.mode_gap(case),
            learning_rate(case, start, range_steps),
            history.tiny_batches(case),
            history.ema(case),
            history.not_finished(case),
            history.overfitting(case),
            history.waiting(case),
            images.resolution(case),
            images.label_order(case),
            images.leakage(case),
        )
