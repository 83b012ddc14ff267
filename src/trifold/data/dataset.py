"""A labelled set of images as a value: classes, samples, what was left out, and a fingerprint of it all."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from trifold.data.decode import decode, printable, read_bytes
from trifold.errors import InvalidData

SPLITS = ("train", "minival", "test")


class BadFile(NamedTuple):
    """An image that cannot be used; reason is one line that names it, the field, the value and what is allowed."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One labelled image.

    name: path below the root, with "/".
    label: index into the classes.
    split: "train", "minival" or "test" where the source gives it, "" where it is left to `split.split`.
    width, height: pixels, upright. mode: "L" or "RGB".
    digest: hash of the content.
    content: the file, or the bytes of one. pixels: height x width x channels bytes as they were decoded when the file
    was looked at, kept of small images so that these need not be decoded twice; else empty.
    """

    name: str
    label: int
    split: str
    width: int
    height: int
    mode: str
    digest: str
    content: Path | bytes
    pixels: bytes = field(default=b"", repr=False, compare=False)

    def seen(self) -> Image.Image:
        """The image as it was when it was looked at, if that was kept, else as `open`."""
        if self.pixels:
            return Image.frombytes(self.mode, (self.width, self.height), self.pixels)
        return self.open()

    def open(self) -> Image.Image:
        """The decoded image. Raises InvalidData if the file changed into something that cannot be used."""
        if isinstance(self.content, bytes):
            return decode(self.content, self.name)
        return decode(read_bytes(self.content), self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Samples of at least two classes, each class with at least one sample in every split that the source gives.

    name: what the user called it. source: what `sources.open_data` opens from any working directory: a built-in name,
    an absolute path, or "cifar10:" and such before one; "" for a set made in memory. note: what a reader of results
    must know about these images, or "".
    mirror: whether an image turned left to right still shows its class, as far as is known.
    skipped: bad files left out because the user asked for it. ignored: other files that are no images by suffix.

    Raises InvalidData for a class named twice, a label without a class or a split of another name.
    """

    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    source: str = ""
    note: str = ""
    mirror: bool = True
    skipped: tuple[BadFile, ...] = ()
    ignored: int = 0

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name, count in Counter(self.classes).items() if count > 1)
            raise InvalidData(f"{printable(self.name)}: class {printable(twice)!r} is named twice; names must differ")
        for sample in self.samples:
            if not 0 <= sample.label < len(self.classes):
                raise InvalidData(
                    f"{printable(self.name)}: {printable(sample.name)}: label is {sample.label}; "
                    f"allowed are 0 to {len(self.classes) - 1}"
                )
            if sample.split and sample.split not in SPLITS:
                raise InvalidData(
                    f"{printable(self.name)}: {printable(sample.name)}: split is {printable(sample.split)!r}; "
                    f"allowed are {', '.join(SPLITS)}, or none"
                )

    @property
    def labels(self) -> tuple[int, ...]:
        """The label of every sample."""
        return tuple(sample.label for sample in self.samples)

    @property
    def class_counts(self) -> dict[str, int]:
        """Samples of each class, by name."""
        counts = Counter(self.labels)
        return {name: counts[label] for label, name in enumerate(self.classes)}

    @property
    def modes(self) -> dict[str, int]:
        """Samples of each mode, "L" or "RGB"."""
        return dict(sorted(Counter(sample.mode for sample in self.samples).items()))

    @property
    def mode(self) -> str:
        """The mode that holds every image: "L" if all are grey, else "RGB"."""
        return "L" if set(self.modes) == {"L"} else "RGB"

    @property
    def in_channels(self) -> int:
        """1 if every image is grey, else 3."""
        return 1 if self.mode == "L" else 3

    @property
    def sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The smallest and the largest (width, height), each side by itself, in pixels."""
        widths = [sample.width for sample in self.samples]
        heights = [sample.height for sample in self.samples]
        return (min(widths), min(heights)), (max(widths), max(heights))

    @property
    def median_side(self) -> int:
        """The median of the images' shorter sides, in pixels."""
        return round(statistics.median(min(sample.width, sample.height) for sample in self.samples))

    @property
    def equal_images(self) -> tuple[tuple[Sample, ...], ...]:
        """Groups of two and more samples with the same content, in the order in which each first stands."""
        groups: dict[str, list[Sample]] = {}
        for sample in self.samples:
            groups.setdefault(sample.digest, []).append(sample)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    @property
    def fingerprint(self) -> str:
        """32 hex digits that change with any class name, label, given split, sample name or content."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update("\0".join(self.classes).encode())
        for line in sorted(f"{s.split}\0{s.label}\0{s.name}\0{s.digest}" for s in self.samples):
            digest.update(b"\n" + line.encode(errors="surrogateescape"))
        return digest.hexdigest()


def content_digest(content: bytes) -> str:
    """32 hex digits of a sample's content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
