"""A batch made ready: augmented by draws that belong to each image and epoch, normalised, mixed."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trifold.data.augment import CROP_DRAWS, NUM_DRAWS, SHIFT_CROP_DRAWS, augment, crop_boxes, shift_crop
from trifold.data.images import normalise
from trifold.data.loader import Held
from trifold.data.mixing import MIX_DRAWS, mix
from trifold.data.policy import AUTO_DRAWS, auto_augment, rand_augment, rand_draws
from trifold.train.randomness import generator
from trifold.train.recipe import Recipe
from trifold.train.task import Part, Task


class Batch(NamedTuple):
    """images: (batch, channels, height, width), normalised. targets: class indices, or probabilities where mixed."""

    images: Tensor
    targets: Tensor


class Draws(NamedTuple):
    """Uniform numbers in [0, 1) for an epoch: a row an image, whatever step it falls in; no columns where not needed.

    geometry: of `augment`; crop: of `crop_boxes`; shift: of `shift_crop`; policy: of the policy; mixing: of `mix`.
    """

    geometry: Tensor
    crop: Tensor
    shift: Tensor
    policy: Tensor
    mixing: Tensor


def epoch_draws(num_images: int, recipe: Recipe, seed: int, epoch: int) -> Draws:
    """The numbers that augment each image in an epoch."""
    policy = {"none": 0, "auto_augment": AUTO_DRAWS, "rand_augment": rand_draws(recipe.policy_ops)}[recipe.policy]

    def uniform(purpose: str, columns: int) -> Tensor:
        return torch.rand(num_images, columns, generator=generator(seed, purpose, epoch))

    return Draws(
        geometry=uniform("augment", NUM_DRAWS),
        crop=uniform("crop", CROP_DRAWS if recipe.crop_area < 1 else 0),
        shift=uniform("shift", SHIFT_CROP_DRAWS if recipe.pad_crop else 0),
        policy=uniform("policy", policy),
        mixing=uniform("mixing", MIX_DRAWS if recipe.mixup or recipe.cutmix else 0),
    )


def prepare(pixels: Tensor, part: Part, draws: Draws, task: Task) -> Batch:
    """The part's images on the task's device, augmented and normalised, and their targets.

    Whole-pixel crops and the policy come first, on bytes; then normalisation, one resampling for all that turns,
    shifts, zooms and crops, and mixing. Images from files come cropped (`loader.Files`).

    pixels: (batch, channels, height, width), bytes.
    """
    recipe = task.recipe
    own = Draws(*(rows[part.rows].to(task.device) for rows in draws))
    pixels = pixels.to(task.device)
    if recipe.pad_crop:
        pixels = shift_crop(pixels, own.shift, pad=recipe.pad_crop, horizontal_flip=False)
    if recipe.policy == "auto_augment":
        pixels = auto_augment(pixels, own.policy)
    elif recipe.policy == "rand_augment":
        magnitude = float(recipe.policy_magnitude)
        pixels = rand_augment(pixels, own.policy, num_ops=recipe.policy_ops, magnitude=magnitude)
    cropped = recipe.crop_area < 1 and isinstance(task.train, Held)
    images = augment(
        normalise(pixels, task.preprocessing),
        own.geometry,
        shift=float(recipe.shift),
        rotation=float(recipe.rotation),
        zoom=float(recipe.zoom),
        horizontal_flip=recipe.horizontal_flip and task.flip,
        crop=crop_boxes(own.crop, least_area=float(recipe.crop_area)) if cropped else None,
    )
    targets = task.train.labels[part.indices].to(task.device)
    if recipe.mixup or recipe.cutmix:
        shares = F.one_hot(targets, task.num_classes).float()
        images, targets = mix(images, shares, own.mixing, mixup=float(recipe.mixup), cutmix=float(recipe.cutmix))
    if not recipe.channels_last:  # `normalise` gives that format, and convolutions keep to their images' format
        images = images.contiguous()
    return Batch(images, targets)
