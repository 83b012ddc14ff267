"""A finished run put to use: predictions for files, and its accuracy on a set of images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trifold import weights
from trifold.data.dataset import Dataset
from trifold.data.decode import decode, printable, read_bytes
from trifold.data.images import load, to_pixels
from trifold.data.preprocessing import Preprocessing, from_dict
from trifold.data.split import split
from trifold.errors import InvalidData, InvalidInput
from trifold.network import Network
from trifold.train.evaluate import BATCH, Evaluation, evaluation, probabilities
from trifold.train.record import read_record
from trifold.train.run import RECORD, WEIGHTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The most probable classes of one file: (name, probability in [0, 1]), best first."""

    path: str
    ranked: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run's network with what is needed to use it; fingerprint and split_seed: of the data it was trained on."""

    network: Network
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    fingerprint: str
    split_seed: int


def load_run(run: str | Path) -> Trained:
    """The network of a run folder, or of its weights file alone.

    Raises InvalidData if there is none, or the file was not written by a run.
    """
    path = Path(run)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise InvalidData(f"{printable(path)}: has no {WEIGHTS}; a finished run is needed")
    network, metadata = weights.load(file)
    fields: dict[str, Any] = {}
    for name in ("classes", "preprocessing", "data"):
        if name not in metadata:
            raise InvalidData(f"{printable(file)}: was not written by a run: its metadata has no {name!r}")
        fields[name] = json.loads(metadata[name])
    return Trained(
        network=network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]  # torch's own idiom
        classes=tuple(fields["classes"]),
        preprocessing=from_dict(fields["preprocessing"]),
        fingerprint=fields["data"]["fingerprint"],
        split_seed=fields["data"]["split_seed"],
    )


def trained_on(run: str | Path) -> str:
    """The data a run folder was trained on, as the user named it: a folder or a built-in set.

    Raises InvalidData if the folder has no record of a finished run.
    """
    return read_record(Path(run) / RECORD).result.data


def predict(run: str | Path, paths: Sequence[str | Path], *, top: int = 5) -> tuple[Prediction, ...]:
    """The `top` most probable classes of each image file, prepared exactly as in training.

    Raises InvalidData naming the file if one is not an 8-bit grey or RGB image; InvalidInput if top is not 1 or more.
    """
    if type(top) is not int or top < 1:
        raise InvalidInput(f"top must be a whole number from 1, got {top!r}")
    trained = load_run(run)
    predictions: list[Prediction] = []
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        pixels = [to_pixels(decode(read_bytes(Path(path)), path), trained.preprocessing) for path in some]
        chances = probabilities(trained.network, torch.stack(pixels), trained.preprocessing)
        best = chances.topk(min(top, len(trained.classes)))
        for path, values, indices in zip(some, best.values.tolist(), best.indices.tolist(), strict=True):
            ranked = tuple((trained.classes[i], value) for i, value in zip(indices, values, strict=True))
            predictions.append(Prediction(path=str(path), ranked=ranked))
    return tuple(predictions)


def evaluate(run: str | Path, dataset: Dataset) -> Evaluation:
    """The run's network on held-out images; classes are matched by name.

    Of the data it was trained on, its own test split; of other data, the split called test if there is one, else all.

    Raises InvalidData if the data have a class that the network does not know.
    """
    trained = load_run(run)
    unknown = [name for name in dataset.classes if name not in trained.classes]
    if unknown:
        raise InvalidData(
            f"{printable(dataset.name)}: class {printable(unknown[0])!r} is not known to this network; "
            f"its classes are {printable(', '.join(trained.classes[:20]))}"
        )
    held_out = _held_out(dataset, trained)
    (images,) = load(held_out, trained.preprocessing)
    predicted = probabilities(trained.network, images.pixels, trained.preprocessing).argmax(1)
    return evaluation(trained.classes, predicted, images.labels)


def _held_out(dataset: Dataset, trained: Trained) -> Dataset:
    """The samples that are reported on, their labels turned into the network's."""
    samples = dataset.samples
    if dataset.fingerprint == trained.fingerprint:
        samples = tuple(samples[i] for i in split(dataset, seed=trained.split_seed).test)
    elif any(sample.split == "test" for sample in samples):
        samples = tuple(sample for sample in samples if sample.split == "test")
    places = [trained.classes.index(name) for name in dataset.classes]
    own = tuple(replace(sample, label=places[sample.label]) for sample in samples)
    return replace(dataset, classes=trained.classes, samples=own)
