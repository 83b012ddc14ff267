"""What a training works on, as values: the whole of it, and the part of one step that one process runs through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trifold.data.loader import Files, Held
from trifold.preprocessing import Preprocessing
from trifold.train.processes import ALONE, Processes
from trifold.train.recipe import Recipe

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained on, how and where.

    flip: whether these images may be mirrored at all. fresh: names of tensors without pretrained values
    (`transfer.Loaded.initial`), which the recipe's freezing passes over.
    """

    train: Held | Files
    minival: Held | Files
    preprocessing: Preprocessing
    recipe: Recipe
    seed: int
    flip: bool
    num_classes: int
    device: torch.device = CPU
    processes: Processes = ALONE
    fresh: frozenset[str] = frozenset()


class Part(NamedTuple):
    """What one process runs through at once.

    indices: of the images. rows: of their draws within the epoch. share: of the step's images, in (0, 1]. seed: of
    dropout, drop path and mixing.
    """

    indices: Tensor
    rows: Tensor
    share: float
    seed: int
