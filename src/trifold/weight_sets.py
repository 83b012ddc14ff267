"""Public weight sets: what each needs to be computed with, where its file lies, what accuracy was published of it."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from dataclasses import dataclass

from trifold import weight_set_rows as rows
from trifold.baselines import ALIASES, family_of, find, list_models
from trifold.errors import InvalidInput
from trifold.preprocessing import STANDARD, Preprocessing

LAYOUTS = ("timm", "torchvision", "keras", "tensorflow", "lukemelas")
CLASSES = {"in12k": 11_821, "in21k": 21_843}
"""Classes by the data that a set was trained on; 1000 for all other data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Accuracy in percent on ImageNet's validation set under one preprocessing; None where not published."""

    preprocessing: Preprocessing
    top1: float | None = None
    top5: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSet:
    """Published weights of a shipped architecture.

    tag: names the set among those of its architecture. layout: how its tensors are named, one of LAYOUTS.
    bn_eps, bn_momentum, padding: the fields of `layers.Numerics`.
    preprocessing: what top1 and top5 were measured under; for timm, at the resolution of its default configuration.
    others: accuracy at timm's resolution for tests, where that is another.
    source: an https address, or "hf:" and a repository on the Hugging Face hub.
    sha256: the digits of the file's digest that its name ends in, "" where there are none. md5: Keras' digest.
    licence: SPDX identifier; timm states it for the weights, the others for the code they come with. ImageNet's own
    terms may apply beside it.
    measured: who published the accuracy.
    trained_on: parts of ImageNet (in1k, in12k, in21k), jft (unlabelled); "_ft_": then fine-tuned on what follows.
    note: what the other fields cannot say.
    """

    architecture: str
    tag: str
    layout: str
    bn_eps: float = 1e-3
    bn_momentum: float = 0.01
    padding: str = "same"
    preprocessing: Preprocessing
    source: str
    sha256: str = ""
    md5: str = ""
    licence: str = "Apache-2.0"
    top1: float | None = None
    top5: float | None = None
    measured: str = ""
    others: tuple[Evaluation, ...] = ()
    trained_on: str = "in1k"
    note: str = ""

    @property
    def name(self) -> str:
        """Architecture and tag, such as efficientnet_b0.tf_aa."""
        return f"{self.architecture}.{self.tag}"

    @property
    def digest(self) -> str:
        """The published beginning of the file's digest as `weights.fetch` takes it: "sha256:...", "md5:..." or ""."""
        kinds = {"sha256": self.sha256, "md5": self.md5}
        return next((f"{kind}:{digits}" for kind, digits in kinds.items() if digits), "")

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier."""
        return CLASSES.get(self.trained_on, 1000)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Every published accuracy, that under `preprocessing` first."""
        return (Evaluation(preprocessing=self.preprocessing, top1=self.top1, top5=self.top5), *self.others)


def _preprocessing(
    resolution: int, resize: int = 0, *, norm: str = "imagenet", interpolation: str = "bicubic", crop: str = "resize"
) -> Preprocessing:
    """How timm and torchvision evaluate: Pillow resizes the shorter side, the centre is cut out; or crop "whole"."""
    mean, std = STANDARD[norm, "RGB"]
    return Preprocessing(
        resolution=resolution,
        mode="RGB",
        mean=mean,
        std=std,
        interpolation=interpolation,
        crop=crop,
        resize=resize,
        resizer="pillow",
    )


def _paper(resolution: int, norm: str = "imagenet") -> Preprocessing:
    """How tensorflow/tpu evaluates (preprocessing.py before November 2021: 32 pixels of padding)."""
    mean, std = STANDARD[norm, "RGB"]
    return Preprocessing(
        resolution=resolution,
        mode="RGB",
        mean=mean,
        std=std,
        interpolation="bicubic",
        crop="tensorflow",
        resizer="tensorflow",
        antialias=False,
    )


def _automl(resolution: int) -> Preprocessing:
    """How google/automl evaluates EfficientNetV2 from 320 pixels on, but that it does not round to bytes."""
    return Preprocessing(
        resolution=resolution, mode="RGB", mean=(128 / 255,) * 3, std=(128 / 255,) * 3, crop="whole", antialias=False
    )


def _digits(file: str) -> str:
    """The digits of its SHA-256 digest that a file for torch.hub is named with."""
    return file.rpartition("-")[2]


def _of_hub(row: rows.HubRow, group: rows.HubGroup) -> WeightSet:
    def prepared(resolution: int, crop_pct: float) -> Preprocessing:
        whole = group.squash and crop_pct == 1
        return _preprocessing(
            resolution,
            0 if whole else math.floor(resolution / crop_pct),
            norm=group.norm,
            interpolation=group.interpolation,
            crop="whole" if whole else "resize",
        )

    ported = row.name.startswith("tf_")
    words = row.tag.split("_")
    told = [word for word in words if word not in ("in1k", "jft", "sw") and not re.fullmatch(r"[er]\d+", word)]
    tests = [row.test] if row.test else []
    return WeightSet(
        architecture=row.name.removeprefix("tf_"),
        tag="_".join(["tf" if ported else "timm", *told]),
        layout="timm",
        bn_eps=1e-3 if ported else 1e-5,
        bn_momentum=0.1,
        padding="same" if ported else "symmetric",
        preprocessing=prepared(row.resolution, row.crop_pct),
        source=f"hf:timm/{row.name}.{row.tag}",
        top1=row.top1,
        top5=row.top5,
        measured="timm results-imagenet.csv" if row.top1 else "",
        others=tuple(
            Evaluation(preprocessing=prepared(side, pct), top1=top1, top5=top5) for side, pct, top1, top5 in tests
        ),
        trained_on="_".join(word for word in words if word in ("in1k", "in12k", "in21k", "jft", "ft")),
        note="timm squashes the image to a square before it crops" if group.squash and row.crop_pct != 1 else "",
    )


def _of_torchvision(row: rows.TorchvisionRow) -> WeightSet:
    return WeightSet(
        architecture=row.name,
        tag=row.tag,
        layout="torchvision",
        bn_eps=row.bn_eps,
        bn_momentum=row.bn_momentum,
        padding="symmetric",
        preprocessing=_preprocessing(row.resolution, row.resize, norm=row.norm, interpolation=row.interpolation),
        source=f"https://download.pytorch.org/models/{row.file}.pth",
        sha256=_digits(row.file),
        licence="BSD-3-Clause",
        top1=row.top1,
        top5=row.top5,
        measured="torchvision",
    )


def _of_keras(row: rows.KerasRow) -> WeightSet:
    """Keras does not say how it measured: the preprocessing is that of the TensorFlow code its weights are from.

    Its networks contain the normalisation, which is part of the preprocessing here.
    """
    second = row.name.startswith("efficientnetv2")
    resolution = find(row.name).resolution
    folder = "tensorflow/keras-applications/efficientnet_v2" if second else "keras-applications"
    file = row.name.replace("_", "-" if second else "")
    return WeightSet(
        architecture=row.name,
        tag="keras",
        layout="keras",
        bn_momentum=0.1 if second else 0.01,
        preprocessing=_automl(resolution) if resolution >= 320 and second else _paper(resolution),
        source=f"https://storage.googleapis.com/{folder}/{file}.h5",
        md5=row.md5,
        top1=row.top1,
        top5=row.top5,
        measured="keras.io",
    )


def _of_tensorflow(size: str, tag: str, file: str, top1: float) -> WeightSet:
    """A checkpoint's moving averages are what was measured."""
    folder = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet"
    resolution = 475 if tag.endswith("_475") else find(f"efficientnet_{size}").resolution
    return WeightSet(
        architecture=f"efficientnet_{size}",
        tag=tag,
        layout="tensorflow",
        preprocessing=_paper(resolution, "half" if tag.endswith("_ap") else "imagenet"),
        source=f"{folder}/{file.format(f'efficientnet-{size}')}.tar.gz",
        top1=top1,
        measured="tensorflow/tpu README",
        trained_on="jft_in1k" if "_ns" in tag else "in1k",
    )


def _of_lukemelas(size: int, tag: str, file: str) -> WeightSet:
    return WeightSet(
        architecture=f"efficientnet_b{size}",
        tag=tag,
        layout="lukemelas",
        padding="same_static",
        preprocessing=_paper(find(f"efficientnet_b{size}").resolution, "half" if tag.endswith("_ap") else "imagenet"),
        source=f"https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/{file}.pth",
        sha256=_digits(file),
    )


def _all() -> tuple[WeightSet, ...]:
    made = [
        *(_of_hub(row, group) for group in rows.TIMM for row in group.rows),
        *map(_of_torchvision, rows.TORCHVISION),
        *map(_of_keras, rows.KERAS),
        *(
            _of_tensorflow(size, tag, file, top1)
            for tag, (file, sizes) in rows.TENSORFLOW.items()
            for size, top1 in sizes.items()
        ),
        *(_of_lukemelas(i, tag, file) for tag, files in rows.LUKEMELAS.items() for i, file in enumerate(files)),
    ]
    order = {name: i for i, name in enumerate(list_models())}
    return tuple(sorted(made, key=lambda one: order[one.architecture]))


WEIGHT_SETS = _all()
"""Every set, in the order of `list_models`. An architecture's first is its default: the paper's own training in timm's
port (with AutoAugment for B0 to B7), on ImageNet alone where there is such a set."""


def weight_sets(pattern: str = "*", *, layout: str = "", min_top1: float = 0) -> tuple[WeightSet, ...]:
    """The sets whose architecture, tag or name matches a shell pattern; an architecture's short name stands for it.

    layout: only those in it. min_top1: only those of which at least this top-1, in percent, is published.
    Raises InvalidInput if the layout is not known.
    """
    if layout and layout not in LAYOUTS:
        raise InvalidInput(f"layout must be {' or '.join(LAYOUTS)}, got {layout!r}")
    pattern = ALIASES.get(pattern, pattern)
    return tuple(
        one
        for one in WEIGHT_SETS
        if any(fnmatch.fnmatchcase(text, pattern) for text in (one.architecture, one.tag, one.name))
        and layout in ("", one.layout)
        and (min_top1 <= 0 or any(found.top1 is not None and found.top1 >= min_top1 for found in one.evaluations))
    )


def find_weights(architecture: str, tag: str = "") -> WeightSet:
    """The architecture's set of that tag, its default without one; names are understood as in `baselines.find`.

    Raises InvalidInput with the nearest tags if there is none; InvalidArchitecture if the architecture is not shipped.
    """
    full = family_of(architecture)[1]
    known = {one.tag: one for one in WEIGHT_SETS if one.architecture == full}
    if not known:
        raise InvalidInput(
            f"network {full!r} has no public weights here; `trifold weights list` prints those that have"
        )
    if not tag:
        return next(iter(known.values()))
    if tag not in known:
        near = difflib.get_close_matches(tag, known, n=3)
        hint = f"nearest are {', '.join(near)}" if near else f"known are {', '.join(known)}"
        raise InvalidInput(f"weights of {full} must be named by one of their tags, got {tag!r}; {hint}")
    return known[tag]
