"""A batch made ready: augmented by draws that belong to each image and epoch, normalised, mixed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trifold.data.augment import NUM_DRAWS, augment
from trifold.data.images import normalise
from trifold.train.randomness import generator
from trifold.train.recipe import Recipe
from trifold.train.task import Part, Task


class Batch(NamedTuple):
    """images: (batch, channels, height, width), normalised. targets: class indices, or probabilities where mixed."""

    images: Tensor
    targets: Tensor


class Draws(NamedTuple):
    """Uniform numbers in [0, 1) for an epoch: a row an image, whatever step it falls in; empty where not needed."""

    geometry: Tensor
    crop: Tensor
    policy: Tensor


def epoch_draws(num_images: int, recipe: Recipe, seed: int, epoch: int) -> Draws:
    """The numbers that augment each image in an epoch."""

    def uniform(purpose: str, columns: int) -> Tensor:
        return torch.rand(num_images, columns, generator=generator(seed, purpose, epoch))

    return Draws(
        geometry=uniform("augment", NUM_DRAWS),
        crop=uniform("crop", 4 if recipe.crop_area < 1 else 0),
        policy=uniform("policy", 0),
    )


def prepare(pixels: Tensor, part: Part, draws: Draws, task: Task) -> Batch:
    """The part's images on the task's device, augmented and normalised, and their targets.

    pixels: (batch, channels, height, width), bytes.
    """
    recipe = task.recipe
    images = augment(
        normalise(pixels.to(task.device), task.preprocessing),
        draws.geometry[part.rows].to(task.device),
        shift=float(recipe.shift),
        rotation=float(recipe.rotation),
        zoom=float(recipe.zoom),
        horizontal_flip=recipe.horizontal_flip and task.flip,
    )
    return Batch(images, task.train.labels[part.indices].to(task.device))
