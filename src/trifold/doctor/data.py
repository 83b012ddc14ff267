"""What is likely to spoil a training, found in its images before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from trifold.data.dataset import Dataset
from trifold.data.decode import printable
from trifold.data.scan import EqualImages, Scan, scan
from trifold.data.split import Split, split
from trifold.data.table_file import in_order
from trifold.doctor.findings import SEVERITIES, Finding
from trifold.errors import InvalidData, InvalidInput

MAX_IMBALANCE = 3.0
"""Images of the largest class over those of the smallest, up to which nothing is said."""

MIN_TRAINING_IMAGES = 20
"""Of a class; below, a network sees too few to learn what its images have in common."""

MAX_HALF_WIDTH = 0.05
"""Of the test accuracy's 95 % interval, at worst (an accuracy of one half)."""

MAX_ENLARGED = 2.0
"""Times the median image's shorter side that a resolution may be."""

MAX_SHRUNK = 4.0
"""Times a resolution that the median image's shorter side may be."""

MAX_CUT = 0.1
"""Share of the pixels that the centre squares may leave out."""

MAX_RATIO = 2.0
"""The longer side over the shorter from which an image loses more than half its pixels."""


def check_data(dataset: Dataset, *, resolution: int | None = None) -> tuple[Finding, ...]:
    """What is wrong, doubtful or worth knowing about a dataset: bad files first, then errors, warnings and notes.

    resolution: the pixels that the network will take, if known; images are compared with it.

    Raises InvalidInput if resolution is not 1 or more.
    """
    if resolution is not None and (type(resolution) is not int or resolution < 1):
        raise InvalidInput(f"resolution must be a whole number from 1, got {resolution!r}")
    scanned = scan(dataset)
    found = [*_files(scanned), *_equal(scanned), *_classes(dataset, scanned), *_shares(dataset), *_shapes(dataset)]
    if resolution is not None:
        found.extend(_enlarged(dataset, resolution))
    return tuple(sorted(found, key=lambda finding: (finding.what != "bad file", SEVERITIES.index(finding.severity))))


def _files(scanned: Scan) -> Iterator[Finding]:
    for file in scanned.bad:
        yield Finding(
            severity="error",
            what="bad file",
            text=file.reason,
            advice="convert or remove it, or leave it out with --skip-bad",
        )
    if scanned.ignored:
        yield Finding(
            severity="note",
            what="ignored files",
            text=f"{scanned.ignored:,} files are no images by their suffix and were passed over",
            advice="nothing to do, unless images are among them: give those the suffix of their format",
        )


def _pair(group: EqualImages, kinds: tuple[str, ...]) -> str:
    """The first of a group of equal images and the first that is of another kind, each with its kind."""
    other = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), 1)
    first, second = (f"{printable(group.names[i])} ({kinds[i] or group.labels[i]})" for i in (0, other))
    return f"{first} and {second}"


def _equal(scanned: Scan) -> Iterator[Finding]:
    """Images with the same bytes: across splits, across classes, and the rest."""
    if scanned.leaked:
        group = scanned.leaked[0]
        yield Finding(
            severity="error",
            what="leakage",
            text=f"{len(scanned.leaked):,} images stand in more than one split, such as {_pair(group, group.splits)}",
            advice="keep each in one split only, train rather than test: what was trained on cannot be tested on",
        )
    if scanned.ambiguous:
        group = scanned.ambiguous[0]
        yield Finding(
            severity="warning",
            what="two labels",
            text=f"{len(scanned.ambiguous):,} images stand in more than one class, such as "
            f"{_pair(group, group.labels)}",
            advice="keep each in the class that it shows; one of the labels is wrong",
        )
    rest = [group for group in scanned.equal if not group.across_splits and not group.two_labels]
    if rest:
        copies = sum(len(group.names) - 1 for group in rest)
        yield Finding(
            severity="note",
            what="equal images",
            text=f"{copies:,} images are copies of {len(rest):,} others of their class and split, such as "
            f"{_pair(rest[0], rest[0].labels)}",
            advice="remove the copies if they are there by mistake; a split cut by seed keeps them together",
        )


def _classes(dataset: Dataset, scanned: Scan) -> Iterator[Finding]:
    """Sizes of the classes, and their order."""
    counts = scanned.counts.get("train", scanned.counts.get("", {}))
    if scanned.imbalance > MAX_IMBALANCE:
        largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
        yield Finding(
            severity="warning",
            what="imbalance",
            text=f"the largest class, {largest!r}, has {counts[largest]:,} images, {scanned.imbalance:.1f} times the "
            f"{counts[smallest]:,} of the smallest, {smallest!r}",
            advice="train with --set balance=weights or --set balance=sampler, and read the accuracy class by class",
        )
    by_number = in_order(set(dataset.classes))
    if by_number != tuple(sorted(dataset.classes)):
        order = ", ".join(dataset.classes[:5]) + (", ..." if len(dataset.classes) > 5 else "")
        found = "value" if by_number == dataset.classes else "name"
        yield Finding(
            severity="note",
            what="label order",
            text=f"the classes are numbers and stand in the order of their {found}: {order}",
            advice="the network's outputs follow this order; names with leading zeros (01, 02, 10) have but one",
        )


def _shares(dataset: Dataset) -> Iterator[Finding]:
    """The parts that a training would use: their sizes, and classes with few images to learn from."""
    try:
        parts = split(dataset)
    except InvalidData as error:
        yield Finding(
            severity="error", what="split", text=str(error), advice="add images to that class, or leave the class out"
        )
        return
    yield from _sizes(parts)
    trained = Counter(dataset.samples[i].label for i in parts.train)
    few = [label for label in range(len(dataset.classes)) if trained[label] < MIN_TRAINING_IMAGES]
    if few:
        least = min(few, key=lambda label: trained[label])
        yield Finding(
            severity="warning",
            what="few images",
            text=f"{len(few):,} of {len(dataset.classes):,} classes have under {MIN_TRAINING_IMAGES} training images; "
            f"{dataset.classes[least]!r} has {trained[least]:,}",
            advice="add images, join classes, or start from trained weights",
        )


def _sizes(parts: Split) -> Iterator[Finding]:
    total = sum(map(len, parts))
    half_width = 1.96 * (0.25 / len(parts.test)) ** 0.5
    named = ", ".join(f"{len(part):,} {name} ({len(part) / total:.0%})" for name, part in parts._asdict().items())
    uncertain = half_width > MAX_HALF_WIDTH
    yield Finding(
        severity="warning" if uncertain else "note",
        what="split shares",
        text=f"{named}; test accuracy will be known to within {100 * half_width:.1f} points (95 % interval, at worst)",
        advice="test on more images, or compare several seeds" if uncertain else "nothing to do",
    )


def _shapes(dataset: Dataset) -> Iterator[Finding]:
    """Modes, and the shapes that the centre square cuts."""
    samples = dataset.samples
    if len(dataset.modes) > 1:
        grey = Counter(sample.label for sample in samples if sample.mode == "L")
        total = Counter(sample.label for sample in samples)
        shares = [grey[label] / total[label] for label in total]
        yield Finding(
            severity="warning",
            what="mixed modes",
            text=f"{dataset.modes['L']:,} of {len(samples):,} images are grey, the others RGB; of a class, "
            f"{min(shares):.0%} to {max(shares):.0%} are grey",
            advice="all are read as RGB; where classes differ in this, convert all to one mode",
        )
    kept = sum(min(sample.width, sample.height) ** 2 for sample in samples)
    cut = 1 - kept / sum(sample.width * sample.height for sample in samples)
    ratios = [max(sample.width, sample.height) / min(sample.width, sample.height) for sample in samples]
    long = sum(ratio > MAX_RATIO for ratio in ratios)
    if cut > MAX_CUT or long:
        yield Finding(
            severity="warning" if long > MAX_CUT * len(samples) else "note",
            what="aspect ratio",
            text=f"the centre squares leave out {cut:.0%} of the pixels; {long:,} of {len(samples):,} images lose more "
            f"than half (the longest is {max(ratios):.1f}:1)",
            advice="crop the images to what they show where that is not in the middle",
        )
    smallest, largest = dataset.sizes
    if smallest == largest:
        yield Finding(
            severity="note",
            what="one size",
            text=f"all {len(samples):,} images have {smallest[0]}x{smallest[1]} pixels",
            advice="nothing to do",
        )


def _enlarged(dataset: Dataset, resolution: int) -> Iterator[Finding]:
    """Images much smaller or much larger than the resolution asked for."""
    side = dataset.median_side
    sides = [min(sample.width, sample.height) for sample in dataset.samples]
    if resolution > MAX_ENLARGED * side:
        below = sum(length * MAX_ENLARGED < resolution for length in sides)
        yield Finding(
            severity="warning",
            what="upsampling",
            text=f"the median image's shorter side is {side} pixels, enlarged {resolution / side:.1f} times to "
            f"{resolution}; {below:,} of {len(sides):,} images are enlarged more than {MAX_ENLARGED:g} times",
            advice=f"a resolution near {side} holds as much detail for {(resolution / side) ** 2:.0f} times less work",
        )
    elif side > MAX_SHRUNK * resolution:
        yield Finding(
            severity="note",
            what="downsampling",
            text=f"the median image's shorter side is {side:,} pixels, shrunk {side / resolution:.1f} times to "
            f"{resolution}",
            advice="a larger resolution would use the detail; smaller copies would load faster",
        )
