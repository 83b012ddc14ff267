"""What a classifier is worth on labelled images, counted image by image: top-1, top-5, calibration, each class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trifold.architecture import Architecture, Block
from trifold.cost import convolutions
from trifold.data.dataset import Dataset, Sample
from trifold.data.decode import decode, printable, read_bytes
from trifold.data.imagenet import Matched, Outputs, match, match_unnamed, outputs_of
from trifold.data.resize import Levels, to_levels
from trifold.errors import InvalidData
from trifold.preprocessing import Preprocessing
from trifold.train.evaluate import BATCH, probabilities, wilson
from trifold.train.metrics import TOP, Bin, confidence_bins, expected_error
from trifold.train.subject import Subject
from trifold.train.task import CPU

MAX_BYTES = 2**30
"""What the tensors of one block may take at once; the images that go through the network together follow from it."""


class Share(NamedTuple):
    """Images of which something is true."""

    correct: int
    total: int

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share, from the number of images alone (Wilson 1927)."""
        return wilson(self.correct, self.total)


class ClassShare(NamedTuple):
    """One class of the data.

    name: as the data call it; output: its place among the network's outputs; label: what that stands for. top1, top5:
    images for which it is the most probable output, and among the five most probable; top5 None with fewer than 6
    outputs. mistaken_for: the output most often taken in its place, "" where none was.
    """

    name: str
    output: int
    label: str
    images: int
    top1: int
    top5: int | None
    mistaken_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was counted on some images, beside what was published.

    num_outputs: of the network, over all of which top-1 and top-5 are. top5: None with fewer than 6. published_top1,
    published_top5: in [0, 1], None where nothing was published. matched_by: as `imagenet.Matched.by`.
    calibration_error: expected, over 15 bins, in [0, 1] (Guo et al. 2017). classes: in the data's order.
    """

    num_outputs: int
    matched_by: str
    top1: Share
    top5: Share | None
    published_top1: float | None
    published_top5: float | None
    calibration_error: float
    bins: tuple[Bin, ...]
    classes: tuple[ClassShare, ...]

    @property
    def worst(self) -> tuple[ClassShare, ...]:
        """The classes, that with the smallest share of right images first; of equal ones that with more images."""
        return tuple(sorted(self.classes, key=lambda one: (one.top1 / one.images, -one.images, one.name)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; shares in [0, 1]."""
        return {
            "images": self.top1.total,
            "outputs": self.num_outputs,
            "matched_by": self.matched_by,
            "top1": _compared(self.top1, self.published_top1),
            "top5": None if self.top5 is None else _compared(self.top5, self.published_top5),
            "calibration_error": self.calibration_error,
            "bins": [asdict(part) for part in self.bins],
            "classes": [one._asdict() for one in self.classes],
        }


def _compared(found: Share, published: float | None) -> dict[str, Any]:
    return {
        "share": found.share,
        "correct": found.correct,
        "interval": list(found.interval),
        "published": published,
        "difference": None if published is None else found.share - published,
    }


def find_outputs(classes: Sequence[str], num_outputs: int, where: str) -> Matched:
    """The output that each class is, of a network with so many; `where` and errors as of `imagenet.match`."""
    outputs = outputs_of(num_outputs)
    if outputs is None:
        return match_unnamed(classes, num_outputs, where)
    return match(classes, outputs, where)


def measure(
    subject: Subject,
    dataset: Dataset,
    *,
    device: torch.device = CPU,
    progress: Callable[[int, int, str], None] | None = None,
) -> Measured:
    """The subject's network on the dataset's images, of its split test, else minival, else all.

    Images are prepared exactly as the preprocessing says, and taken as they are stored, as those who published did: an
    EXIF orientation plays no part. progress: called with (done, total, "images") after each batch.

    Raises InvalidData if a class of the data is none of the network's, or the network's answers are no numbers.
    """
    outputs = outputs_of(subject.network.num_classes)
    matched = find_outputs(dataset.classes, subject.network.num_classes, printable(dataset.name))
    samples = _samples(dataset)
    answers = _answers(subject, samples, device, progress)
    labels = torch.tensor([sample.label for sample in samples])
    right = answers.ranked == torch.tensor(matched.places)[labels][:, None]
    bins = confidence_bins(answers.confidence, right[:, 0])
    few, published = subject.network.num_classes <= TOP, subject.published
    return Measured(
        num_outputs=subject.network.num_classes,
        matched_by=matched.by,
        top1=Share(int(right[:, 0].sum()), len(labels)),
        top5=None if few else Share(int(right.any(1).sum()), len(labels)),
        published_top1=None if published.top1 is None else published.top1 / 100,
        published_top5=None if published.top5 is None else published.top5 / 100,
        calibration_error=expected_error(bins),
        bins=bins,
        classes=tuple(
            ClassShare(
                name=name,
                output=place,
                label=_label(outputs, place),
                images=int(own.sum()),
                top1=int(right[own, 0].sum()),
                top5=None if few else int(right[own].any(1).sum()),
                mistaken_for=_mistaken_for(outputs, place, answers.ranked[own, 0].tolist()),
            )
            for i, (name, place) in enumerate(zip(dataset.classes, matched.places, strict=True))
            if (own := labels == i).any()
        ),
    )


class _Answers(NamedTuple):
    """Of each image the highest probability, and the five most probable outputs (or all of fewer), best first."""

    confidence: Float[Tensor, " images"]
    ranked: Int[Tensor, "images top"]


def _answers(
    subject: Subject,
    samples: Sequence[Sample],
    device: torch.device,
    progress: Callable[[int, int, str], None] | None,
) -> _Answers:
    """What the network says of each image. Raises InvalidData if that is no number."""
    network = subject.network.to(device)
    step = batch_size(replace(network.architecture, resolution=subject.preprocessing.resolution))
    parts, done = [], 0
    for levels in _prepared(samples, subject.preprocessing, step):
        chances = probabilities(network, levels, subject.preprocessing, device=device)
        if not chances.isfinite().all():
            raise InvalidData(f"{subject.name}: its network answers with values that are no numbers")
        best = chances.topk(min(TOP, chances.shape[1]))
        parts.append(_Answers(best.values[:, 0].cpu(), best.indices.cpu()))
        done += len(levels)
        if progress is not None:
            progress(done, len(samples), "images")
    return _Answers(*map(torch.cat, zip(*parts, strict=True)))


def _label(outputs: Outputs | None, place: int) -> str:
    return f"output {place}" if outputs is None else outputs.label(place)


def _mistaken_for(outputs: Outputs | None, place: int, answers: Sequence[int]) -> str:
    """The label of the answer that is most often given and wrong; "" where none is."""
    wrong = Counter(answer for answer in answers if answer != place)
    return _label(outputs, min(wrong, key=lambda answer: (-wrong[answer], answer))) if wrong else ""


def batch_size(architecture: Architecture) -> int:
    """How many images go through a network together: up to 256, a gigabyte in the largest block, at least 1."""
    return max(1, min(BATCH, MAX_BYTES // (4 * max(map(_held, architecture.blocks())))))


def _held(block: Block) -> int:
    """Elements that one image takes in a block at most: its input, and thrice its largest convolution's output.

    That is a convolution's output, the batch norm's and the activation's, or the padded copy in place of one.
    """
    largest = max((one.out_channels * one.size**2 for one in convolutions(block)), default=0)
    return block.in_channels * block.in_size**2 + 3 * largest


def _samples(dataset: Dataset) -> tuple[Sample, ...]:
    """What is reported on: a split that is not for training where the data have one."""
    for split in ("test", "minival"):
        found = tuple(sample for sample in dataset.samples if sample.split == split)
        if found:
            return found
    return dataset.samples


def _prepared(samples: Sequence[Sample], preprocessing: Preprocessing, step: int) -> Iterator[Tensor]:
    """The levels of so many images at a time; the next ones are decoded meanwhile."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        starts = range(0, len(samples), step)
        ahead = [pool.submit(_levels, sample, preprocessing) for sample in samples[:step]]
        for start in starts:
            now, following = ahead, samples[start + step : start + 2 * step]
            ahead = [pool.submit(_levels, sample, preprocessing) for sample in following]
            yield torch.stack([image.result() for image in now])


def _levels(sample: Sample, preprocessing: Preprocessing) -> Levels:
    content = sample.content if isinstance(sample.content, bytes) else read_bytes(sample.content)
    return to_levels(decode(content, sample.name, upright=False), preprocessing)
