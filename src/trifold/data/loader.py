"""Where a training takes its batches from: images held in memory, or files that worker processes decode meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from trifold.data.dataset import Sample
from trifold.data.images import Images, to_pixels
from trifold.data.preprocessing import Preprocessing
from trifold.errors import Failed, InvalidData

Pixels = UInt8[Tensor, "batch channels height width"]


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

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Pixels]:
        """The pixels of each batch of indices."""
        for indices in batches:
            yield self.images.pixels[indices]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Images that are decoded each time they are asked for, by so many worker processes; 0: by this one.

    A batch is the same whatever the number of workers: an image is a function of its file alone.
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

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Pixels]:
        """The pixels of each batch of indices.

        Raises InvalidData naming the first file that can no longer be decoded; Failed if a worker is killed.
        """
        loader = DataLoader(
            _Decoded(self.samples, self.preprocessing),
            batch_sampler=[indices.tolist() for indices in batches],
            num_workers=self.workers,
            collate_fn=_together,
            worker_init_fn=_begin_worker if self.workers else None,
        )
        try:
            for batch in loader:
                if isinstance(batch, str):
                    raise InvalidData(batch)
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            text = str(error).splitlines()[0]
            raise Failed(f"a worker that decodes images was lost: {text}; the same command goes on") from None


class _Decoded(TorchDataset[Tensor | str]):
    """Each sample as pixels, or the reason why it cannot be had: errors lose their one line on the way."""

    def __init__(self, samples: tuple[Sample, ...], preprocessing: Preprocessing) -> None:
        self.samples, self.preprocessing = samples, preprocessing

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return to_pixels(self.samples[index].open(), self.preprocessing)
        except InvalidData as error:
            return str(error)


def _together(items: list[Tensor | str]) -> Tensor | str:
    bad = next((item for item in items if isinstance(item, str)), None)
    if bad is not None:
        return bad
    return torch.stack([item for item in items if isinstance(item, Tensor)])


def _begin_worker(number: int) -> None:
    """A worker ends when it is told to; what to do about Ctrl-C is the training's to decide."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
