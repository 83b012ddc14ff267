"""The recipes that are shipped, each a function of the network it is for; its docstring is its lab note."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from trifold.architecture import Architecture
from trifold.cost import cost
from trifold.errors import InvalidInput
from trifold.train.recipe import Recipe, difference, fractions, from_dict

_DROP_RATES = ((8.4e6, 0.2), (15.4e6, 0.3), (36.2e6, 0.4))
"""Dropout of networks with at most so many parameters at 1000 classes, else 0.5: limits between the paper's models."""


def drop_rate_by_size(architecture: Architecture) -> float:
    """The paper's dropout for a network of this size: 0.2 0.2 0.3 0.3 0.4 0.4 0.5 0.5 for B0 to B7 (paper §5.2).

    Between them the limits are the geometric means of neighbours' parameters (B1 and B2, B3 and B4, B5 and B6).
    """
    parameters = cost(architecture).parameters
    return next((rate for limit, rate in _DROP_RATES if parameters <= limit), 0.5)


def small(architecture: Architecture) -> Recipe:
    """The recipe for images of 8 to 64 pixels and networks of a few million multiply-adds, on a CPU, in minutes.

    Source: AdamW with decoupled decay (1711.05101), half a cosine (1608.03983), label smoothing of the paper's size
    (paper §5.2); the amounts of augmentation are our own first choice, made without looking at test.
    Command: `results/digits/run.sh`; `trifold fit digits --budget multiply-adds=3M --seed S --split-seed S`, S = 0–4,
    and the same at 1M.
    Machine: two cores of an AMD EPYC, torch 2.13.0 on one thread, other work on the other core.
    Time: 83 to 107 s at 3M, 35 to 37 s at 1M.
    Expected on test (359 images a seed; mean, least to most, five seeds, each with a split of its own; results/digits):
    99.55 %, 99.16 to 100 % at 3M; 98.94 %, 98.05 to 100 % at 1M; three nearest neighbours on the same splits 99.00 %.
    """
    return Recipe(
        name="small",
        epochs=25,
        batch_size=64,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.05,
        label_smoothing=0.1,
        warmup_epochs=2.0,
        drop_rate=0.1,
        shift=0.1,
        rotation=10.0,
        zoom=0.1,
        horizontal_flip=True,
    )


def paper(architecture: Architecture) -> Recipe:
    """The paper's recipe for ImageNet, with every constant of its published code.

    Source: paper §5.2; tensorflow/tpu main.py, utils.py: RMSProp of TensorFlow (decay and momentum 0.9, epsilon 1e-3
    within the root, mean squares from 1), 0.016 for 256 images, 5 epochs of warm-up, 0.97 every 2.4 epochs counted from
    the first step, moving average 0.9999 of weights and batch-norm statistics, L2 of 1e-5 on all but batch norm, label
    smoothing 0.1, AutoAugment v0, stochastic depth 0.2, dropout by size, random crops from 8 % of the area.
    Command: `trifold train IMAGENET --net b0 --recipe paper` under torchrun; 350 epochs of 4,096 images.
    Expected: 77.1 % for B0 with AutoAugment (paper v5 Table 2). Not reproduced here: it needs ImageNet and many GPUs.
    What differs: crops are drawn by torchvision's rule (area uniform, log aspect), bicubic with antialias, where the
    original draws a height and resizes without; batch norm's running variance is unbiased in torch.
    """
    return Recipe(
        name="paper",
        epochs=350,
        batch_size=4096,
        optimizer="rmsprop_tf",
        lr=0.016,
        lr_batch=256,
        weight_decay=1e-5,
        decay="all_but_norm",
        schedule="exponential",
        warmup_epochs=5.0,
        label_smoothing=0.1,
        ema_decay=0.9999,
        drop_rate=drop_rate_by_size(architecture),
        drop_path_rate=0.2,
        horizontal_flip=True,
        crop_area=0.08,
        policy="auto_augment",
        bn_momentum=0.01,
        padding="same",
        normalisation="imagenet",
    )


def modern(architecture: Architecture) -> Recipe:
    """A recipe of recent years for training from random weights: SGD with a cosine, RandAugment, mixup and cutmix.

    Source: torchvision's recipe of 2021 for its second ImageNet weights (0.5 for 1,024 images, 5 epochs of warm-up,
    cosine, decay 2e-5 on kernels alone, label smoothing 0.1, mixup 0.2, cutmix 1.0, moving average), RandAugment with
    N = 2, M = 9 (1909.13719) in place of its TrivialAugment, stochastic depth and dropout of the paper.
    Command: `trifold train DATA --net b0 --recipe modern`.
    Expected: not measured at full length; `--set optimizer=adamw --set lr=1e-3 --set lr_batch=0` is its AdamW form.
    """
    return Recipe(
        name="modern",
        epochs=300,
        batch_size=256,
        optimizer="sgd",
        lr=0.5,
        lr_batch=1024,
        weight_decay=2e-5,
        warmup_epochs=5.0,
        label_smoothing=0.1,
        ema_decay=0.9999,
        clip_norm=5.0,
        drop_rate=drop_rate_by_size(architecture),
        drop_path_rate=0.2,
        horizontal_flip=True,
        crop_area=0.08,
        policy="rand_augment",
        mixup=0.2,
        cutmix=1.0,
    )


def finetune(architecture: Architecture) -> Recipe:
    """Transfer of pretrained weights to a user's own images: the head first, then all of it at rates that fall inward.

    Source: paper §5.3 fine-tunes ImageNet checkpoints with the settings of Kornblith et al. 2019 (SGD with Nesterov's
    momentum, a cosine, random crops and flips); head first, a rate for each layer and frozen batch norm are what
    practice found for small data, where batch-norm statistics of few images are worse than the pretrained ones.
    Batch-norm epsilon, padding and normalisation are those of TensorFlow's published weights; weights of torchvision
    and of timm's names without `tf_` need `--set bn_eps=1e-5 --set padding=symmetric`.
    Command: `results/trashnet/run.sh` (five epochs, one of them of the head alone, bn_momentum 0.1).
    Machine: one shared core of an AMD EPYC, torch 2.13.0, one thread. Time: about four minutes of that core a run.
    Expected on TrashNet's 509 test photographs at 64 pixels, B4's stem and 22 blocks pretrained (results/trashnet; mean
    with its 95 % interval, three seeds): 87.2 ± 1.7 %, from random weights 46.6 ± 5.2 %.
    """
    return Recipe(
        name="finetune",
        epochs=12,
        batch_size=64,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.02,
        warmup_epochs=1.0,
        label_smoothing=0.1,
        head_epochs=3,
        layer_decay=0.75,
        freeze_bn=True,
        drop_rate=drop_rate_by_size(architecture),
        horizontal_flip=True,
        crop_area=0.5,
        bn_momentum=0.01,
        padding="same",
        normalisation="imagenet",
    )


RECIPES: dict[str, Callable[[Architecture], Recipe]] = {
    "small": small,
    "paper": paper,
    "modern": modern,
    "finetune": finetune,
}


def find_recipe(name: str, architecture: Architecture, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of that name, or in that .toml file, for that network, with some fields changed.

    Raises InvalidInput if there is no such recipe or field, or a value is out of range.
    """
    if name.endswith(".toml"):
        found = read(name)
    elif name in RECIPES:
        found = RECIPES[name](architecture)
    else:
        raise InvalidInput(f"recipe must be {' or '.join(RECIPES)}, or a .toml file, got {name!r}")
    known = [field.name for field in fields(Recipe)]
    for field in changes or {}:
        if field not in known:
            raise InvalidInput(f"recipe has no field {field!r}; its fields are {', '.join(known)}")
    return replace(found, **fractions(changes or {}))


def base_of(recipe: Recipe, architecture: Architecture) -> Recipe:
    """The shipped recipe of the same name, or the recipe itself where there is none."""
    return RECIPES[recipe.name](architecture) if recipe.name in RECIPES else recipe


def to_toml(recipe: Recipe, base: Recipe) -> str:
    """The recipe as TOML, a line a field; lines that differ from the base say what it has."""
    changed = {name: before for name, before, _ in difference(recipe, base)}
    lines = []
    for name, value in recipe.to_dict().items():
        comment = f"  # {base.name} has {json.dumps(changed[name])}" if name in changed else ""
        lines.append(f"{name} = {json.dumps(value)}{comment}")
    return "\n".join(lines) + "\n"


def read(path: str | Path) -> Recipe:
    """The recipe in a file that to_toml wrote. Raises InvalidInput naming the file if it cannot be read or used."""
    try:
        return from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, InvalidInput) as error:
        raise InvalidInput(f"{path}: {error}") from None
