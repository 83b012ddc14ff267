"""The gate that an exported file must pass: it answers as the network it was made from, on the user's own images.

A file that answers otherwise is the field's commonest complaint of exports; so nothing is written before this table
is there and good.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from trifold.data.dataset import Sample
from trifold.data.images import normalise
from trifold.data.resize import to_levels
from trifold.engines.session import Images, Outputs, Session
from trifold.export.graph import Deployed
from trifold.export.interface import Interface

TOLERANCE = 1e-4
"""Largest allowed difference of two outputs, over the largest output of the network."""

RANDOM_IMAGES, TIMED_CALLS, BATCH, SEED = 32, 30, 64, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What was found of one exported file beside the eager network.

    random_difference, real_difference: largest difference of an output over the network's largest output, on images of
    noise and on the held-out ones. images: how many of those. network_correct, file_correct: how many each answers
    rightly; same_answers: how many both answer alike. network_ms, file_ms: median time of one image, the two taking
    turns, on `threads` threads.
    """

    engine: str
    version: str
    threads: int
    random_difference: float
    real_difference: float
    images: int
    network_correct: int
    file_correct: int
    same_answers: int
    network_ms: float
    file_ms: float

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the file must not be used, a sentence each; empty where it may be."""
        found = []
        for what, difference in (("noise", self.random_difference), ("the images", self.real_difference)):
            if not difference <= TOLERANCE:  # no number is a fault, too
                found.append(f"on {what} its outputs differ by {difference:.2g} of the largest, over {TOLERANCE:g}")
        if self.file_correct < self.network_correct:
            found.append(f"it is right on {self.file_correct} of {self.images}, the network on {self.network_correct}")
        return tuple(found)


def pass_through(
    deployed: Deployed,
    session: Session,
    samples: Sequence[Sample],
    labels: Sequence[int],
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Gate:
    """The gate's findings on held-out samples, whose classes are `labels`, outputs of the network.

    progress: told the number of images done, of all, and what they are.
    """
    interface = deployed.interface
    network_correct = file_correct = same = done = 0
    real = Difference()
    for start in range(0, len(samples), BATCH):
        images = _inputs(samples[start : start + BATCH], interface)
        truth = np.array(labels[start : start + BATCH])
        expected, found = eager(deployed, images), in_batches(session, images, interface.batch)
        real.add(expected, found)
        ours, theirs = expected.argmax(1), found.argmax(1)
        network_correct += int((ours == truth).sum())
        file_correct += int((theirs == truth).sum())
        same += int((ours == theirs).sum())
        done += len(truth)
        if progress is not None:
            progress(done, len(samples), "held-out images")
    noise = _noise(interface)
    random = Difference()
    random.add(eager(deployed, noise), in_batches(session, noise, interface.batch))
    one = noise[: interface.batch or 1]
    network_ms, file_ms = in_turns(lambda: eager(deployed, one), lambda: session(one), threads=session.threads)
    return Gate(
        engine=session.engine,
        version=session.version,
        threads=session.threads,
        random_difference=random.relative,
        real_difference=real.relative,
        images=len(samples),
        network_correct=network_correct,
        file_correct=file_correct,
        same_answers=same,
        network_ms=network_ms / len(one),
        file_ms=file_ms / len(one),
    )


class Difference:
    """The largest difference of two series of outputs, and the largest output of the first; in float64."""

    def __init__(self) -> None:
        self.apart = self.largest = 0.0

    def add(self, expected: Outputs, found: Outputs) -> None:
        """Takes some outputs in; a value that is no number counts as infinitely far."""
        if expected.shape != found.shape or not np.isfinite(found).all():
            self.apart = float("inf")
            return
        apart = np.abs(expected.astype(np.float64) - found)
        self.apart = max(self.apart, float(apart.max()))
        self.largest = max(self.largest, float(np.abs(expected).max()))

    @property
    def relative(self) -> float:
        """The difference over the largest output; 0 where there is no difference."""
        return self.apart / self.largest if self.apart and self.largest else self.apart


def eager(deployed: Deployed, images: Images) -> Outputs:
    """The network's own outputs."""
    with torch.inference_mode():
        outputs: Tensor = deployed(torch.from_numpy(images).contiguous(memory_format=torch.channels_last))
    return outputs.numpy()


def in_batches(session: Session, images: Images, batch: int) -> Outputs:
    """The session's outputs, `batch` images a call, the last call filled up with zeros; 0: all in one."""
    if not batch:
        return session(images)
    found = []
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        filled = np.zeros((batch, *images.shape[1:]), np.float32)
        filled[: len(some)] = some
        found.append(session(filled)[: len(some)])
    return np.concatenate(found)


def in_turns(one: Callable[[], object], other: Callable[[], object], *, threads: int) -> tuple[float, float]:
    """Median times in ms of two calls that take turns; torch computes with so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times = [(_spent(one), _spent(other)) for _ in range(TIMED_CALLS + 3)][3:]
    finally:
        torch.set_num_threads(before)
    return median(first for first, _ in times) * 1e3, median(second for _, second in times) * 1e3


def _spent(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _inputs(samples: Sequence[Sample], interface: Interface) -> Images:
    """What the graph takes of some samples."""
    levels = torch.stack([to_levels(sample.seen(), interface.preprocessing) for sample in samples])
    taken = levels.float() if interface.takes_levels else normalise(levels, interface.preprocessing)
    return taken.contiguous().numpy()


def _noise(interface: Interface) -> Images:
    """Levels drawn uniformly, or of as wide a range as normalised ones."""
    generator = np.random.default_rng(SEED)
    levels = generator.uniform(0, 255, (RANDOM_IMAGES, *interface.shape)).astype(np.float32)
    if interface.takes_levels:
        return levels
    return normalise(torch.from_numpy(levels), interface.preprocessing).contiguous().numpy()
