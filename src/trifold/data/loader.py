"""Where a training takes its batches from: images held in memory, or files that worker processes decode meanwhile."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from trifold.data.augment import crop_pixels
from trifold.data.dataset import Sample
from trifold.data.images import Images, cropped, to_pixels
from trifold.errors import Failed, InvalidData
from trifold.preprocessing import Preprocessing

Pixels = UInt8[Tensor, "batch channels height width"]


class Crops(NamedTuple):
    """Random crops of batches: each of at least this share of the area, by (batch, 4) draws for each batch."""

    least_area: float
    draws: Sequence[Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Images decoded beforehand."""

    images: Images

    @property
    def labels(self) -> Int[Tensor, " images"]:
        """The label of every image."""
        return self.images.labels

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batches: Sequence[Tensor], crops: Crops | None = None) -> Iterator[Pixels]:  # noqa: ARG002
        """The pixels of each batch of indices; whole images always: these are cropped when they are augmented."""
        for indices in batches:
            yield self.images.pixels[indices]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Images that are decoded each time they are asked for, by so many worker processes; 0: by this one.

    A batch is the same whatever the number of workers: an image is a function of its file and its draws alone.
    """

    samples: tuple[Sample, ...]
    preprocessing: Preprocessing
    workers: int

    @property
    def labels(self) -> Int[Tensor, " images"]:
        """The label of every image."""
        return torch.tensor([sample.label for sample in self.samples], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, batches: Sequence[Tensor], crops: Crops | None = None) -> Iterator[Pixels]:
        """The pixels of each batch of indices, cropped from the whole file if so asked.

        Raises InvalidData naming the first file that can no longer be decoded; Failed if a worker is killed.
        """
        loader = DataLoader(
            _Decoded(self.samples, self.preprocessing, 1.0 if crops is None else crops.least_area),
            batch_sampler=_Keys(batches, crops),
            num_workers=self.workers,
            multiprocessing_context="fork" if self.workers else None,
            collate_fn=_together,
            worker_init_fn=_begin_worker if self.workers else None,
            generator=torch.Generator(),  # for a seed that nothing here uses; else the global one would be drawn from
        )
        try:
            for batch in _awaiting_deaths(loader):
                if isinstance(batch, str):
                    raise InvalidData(batch)
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            text = str(error).splitlines()[0]
            raise Failed(f"a worker that decodes images was lost: {text}; the same command goes on") from None


def _awaiting_deaths(loader: DataLoader[Pixels | str]) -> Iterator[Pixels | str]:
    """The batches; if a connection breaks, the signal by which torch tells of a worker's death has a while to come.

    A killed worker's connection may break before that: so the cause is told, and not the symptom.
    """
    try:
        yield from loader
    except (ConnectionError, EOFError):
        time.sleep(_HEARD)
        raise


_HEARD = 5.0
"""Seconds within which the death of a worker is heard of; the signal ends the wait."""

_Key = tuple[int, Sequence[float]]
"""What a worker is asked for: a sample's index and the draws of its crop, if any."""


class _Keys(Sampler[list[_Key]]):
    """The keys of each batch, made when it is asked for."""

    def __init__(self, batches: Sequence[Tensor], crops: Crops | None) -> None:
        self.batches, self.crops = batches, crops

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[_Key]]:
        for number, indices in enumerate(self.batches):
            draws = [()] * len(indices) if self.crops is None else self.crops.draws[number].tolist()
            yield list(zip(indices.tolist(), draws, strict=True))


class _Decoded(TorchDataset[Tensor | str]):
    """Each sample as pixels, or the reason why it cannot be had: errors lose their one line on the way."""

    def __init__(self, samples: tuple[Sample, ...], preprocessing: Preprocessing, least_area: float) -> None:
        self.samples, self.preprocessing, self.least_area = samples, preprocessing, least_area

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: _Key) -> Tensor | str:
        index, draws = key
        try:
            image = self.samples[index].open()
        except InvalidData as error:
            return str(error)
        if not draws:
            return to_pixels(image, self.preprocessing)
        box = crop_pixels(image.width, image.height, draws=draws, least_area=self.least_area)
        return cropped(image, box, self.preprocessing)


def _together(items: list[Tensor | str]) -> Tensor | str:
    bad = next((item for item in items if isinstance(item, str)), None)
    if bad is not None:
        return bad
    return torch.stack([item for item in items if isinstance(item, Tensor)])


def _begin_worker(number: int) -> None:
    """A worker ends when it is told to; what to do about Ctrl-C is the training's to decide."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
