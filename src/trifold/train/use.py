"""A finished run put to use: predictions for files, and its accuracy on a set of images."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from trifold import weights
from trifold.data.dataset import Dataset, Sample
from trifold.data.decode import decode, printable, read_bytes
from trifold.data.resize import to_levels
from trifold.data.sources import is_there
from trifold.data.split import split
from trifold.errors import InvalidData, InvalidInput
from trifold.network import Network
from trifold.preprocessing import Preprocessing, from_dict
from trifold.train.evaluate import BATCH, Evaluation, evaluation, probabilities
from trifold.train.folder import RECORD, WEIGHTS
from trifold.train.record import read_record
from trifold.weights.fetch import HUB, fetch

logger = logging.getLogger(__name__)


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


def weights_file(run: str | Path) -> Path:
    """The weights file of a run: a run folder's, the file itself, or of `hf:OWNER/NAME` the one that it is fetched to.

    Raises InvalidData if there is none.
    """
    if str(run).startswith(HUB):
        return fetch(str(run))
    path = Path(run)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise InvalidData(f"{printable(path)}: has no {WEIGHTS}; a finished run is needed")
    return file


def load_run(run: str | Path) -> Trained:
    """The network of a run folder, of its weights file alone, or of one on the hub, `hf:OWNER/NAME[@REVISION]`.

    Raises InvalidData if there is none, or the file was not written by a run.
    """
    file = weights_file(run)
    network, metadata = weights.load(file)
    try:
        trained = _trained(network, metadata)
    except InvalidData as error:
        raise InvalidData(f"{printable(file)}: was not written by a run: {error}") from None
    return replace(trained, network=network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]  # torch's own idiom


def _trained(network: Network, metadata: Mapping[str, str]) -> Trained:
    """What a weights file's metadata say of its network. Raises InvalidData where they are absent or do not fit it."""
    fields: dict[str, Any] = {}
    for name in ("classes", "preprocessing", "data"):
        if name not in metadata:
            raise InvalidData(f"its metadata has no {name!r}")
        try:
            fields[name] = json.loads(metadata[name])
        except (ValueError, RecursionError):
            raise InvalidData(f"its metadata's {name} is not JSON: {printable(metadata[name])!r:.60}") from None
    classes, data = fields["classes"], fields["data"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InvalidData("its metadata's classes must be a list of names")
    if len(set(classes)) != len(classes) or len(classes) != network.num_classes:
        raise InvalidData(
            f"its metadata must name {network.num_classes} different classes, one an output of its network, "
            f"got {len(classes)} ({len(set(classes))} different)"
        )
    if not isinstance(fields["preprocessing"], dict):
        raise InvalidData("its metadata's preprocessing must be a JSON object")
    preprocessing = from_dict(fields["preprocessing"])
    if preprocessing.channels != network.in_channels:
        raise InvalidData(
            f"preprocessing: mode {preprocessing.mode} has {preprocessing.channels} channels, "
            f"but its network takes {network.in_channels}"
        )
    fits = isinstance(data, dict) and type(data.get("split_seed")) is int and data["split_seed"] >= 0
    if not fits or not isinstance(data.get("fingerprint"), str):
        raise InvalidData("its metadata's data must hold a fingerprint and a split_seed")
    return Trained(
        network=network,
        classes=tuple(classes),
        preprocessing=preprocessing,
        fingerprint=data["fingerprint"],
        split_seed=data["split_seed"],
    )


def trained_on(run: str | Path) -> str:
    """The data of a run folder, as `open_data` opens them from any working directory: a built-in name or a folder.

    Raises InvalidData if the folder has no record of a finished run, or the data's folder is gone.
    """
    file = _record_file(run)
    source = read_record(file).source
    if not source:
        raise InvalidData(f"{printable(file)}: does not say where its data lie; name the data")
    if not is_there(source):
        raise InvalidData(
            f"{printable(run)}: was trained on the folder {printable(source)}, which is gone; name the data"
        )
    return source


def _record_file(run: str | Path) -> Path:
    """Where the record of a run folder, or beside a weights file, would lie."""
    return Path(run).with_name(RECORD) if Path(run).is_file() else Path(run) / RECORD


def predict(run: str | Path, paths: Sequence[str | Path], *, top: int = 5) -> tuple[Prediction, ...]:
    """The `top` most probable classes of each image file, prepared exactly as the weights need it.

    Raises InvalidData naming the file if one is not an 8-bit grey or RGB image; InvalidInput if top is not 1 or more.
    """
    if type(top) is not int or top < 1:
        raise InvalidInput(f"top must be a whole number from 1, got {top!r}")
    trained = load_run(run)
    predictions: list[Prediction] = []
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        chances = _chances(trained, (decode(read_bytes(Path(path)), path) for path in some))
        if not chances.isfinite().all():
            raise InvalidData(f"{printable(run)}: its network answers with values that are no numbers")
        best = chances.topk(min(top, len(trained.classes)))
        for path, values, indices in zip(some, best.values.tolist(), best.indices.tolist(), strict=True):
            ranked = tuple((trained.classes[i], value) for i, value in zip(indices, values, strict=True))
            predictions.append(Prediction(path=str(path), ranked=ranked))
    return tuple(predictions)


def evaluate(run: str | Path, dataset: Dataset) -> Evaluation:
    """The run's network on held-out images; classes are matched by name.

    Of the data it was trained on, its own test split; of other data, the split called test if there is one, else all.
    Of other data, files (by content) that trained the network or chose its weights are left out with a warning; they
    are known from the record, so a weights file with no record beside it is used with a warning that they are not.

    Raises InvalidData if the data have a class that the network does not know, or nothing but such files.
    """
    trained = load_run(run)
    samples, labels = held_out(run, dataset, trained)
    batches = (samples[start : start + BATCH] for start in range(0, len(samples), BATCH))
    predicted = torch.cat([_chances(trained, (sample.seen() for sample in some)).argmax(1) for some in batches])
    return evaluation(trained.classes, predicted, torch.tensor(labels))


def held_out(run: str | Path, dataset: Dataset, trained: Trained) -> tuple[tuple[Sample, ...], tuple[int, ...]]:
    """The samples that `evaluate` looks at, and the network's output that is each one's class. Raises as it does."""
    unknown = [name for name in dataset.classes if name not in trained.classes]
    if unknown:
        raise InvalidData(
            f"{printable(dataset.name)}: class {printable(unknown[0])!r} is not known to this network; "
            f"its classes are {printable(', '.join(trained.classes[:20]))}"
        )
    places = [trained.classes.index(name) for name in dataset.classes]
    samples = _held_out(run, dataset, trained)
    return samples, tuple(places[sample.label] for sample in samples)


def _chances(trained: Trained, images: Iterable[Image.Image]) -> Float[Tensor, "images classes"]:
    """The probability of each class for each image, which is prepared exactly: TensorFlow's resize is not rounded."""
    levels = torch.stack([to_levels(image, trained.preprocessing) for image in images])
    return probabilities(trained.network, levels, trained.preprocessing)


def _held_out(run: str | Path, dataset: Dataset, trained: Trained) -> tuple[Sample, ...]:
    """The samples that are reported on."""
    if dataset.fingerprint == trained.fingerprint:
        return tuple(dataset.samples[i] for i in split(dataset, seed=trained.split_seed).test)
    samples = tuple(sample for sample in dataset.samples if sample.split == "test") or dataset.samples
    used = _used(run, trained)
    unseen = tuple(sample for sample in samples if sample.digest not in used)
    if not unseen:
        raise InvalidData(
            f"{printable(dataset.name)}: all {len(samples)} images trained this network or chose its weights; "
            "held-out images are needed"
        )
    if len(unseen) < len(samples):
        logger.warning(
            "%s: left out %d of %d images, which trained this network or chose its weights",
            printable(dataset.name),
            len(samples) - len(unseen),
            len(samples),
        )
    return unseen


def _used(run: str | Path, trained: Trained) -> frozenset[str]:
    """The digests of what trained the network or chose its weights; empty, with a warning, where no record says."""
    file = _record_file(run)
    if file.is_file():
        record = read_record(file)
        of_this = (record.asked.get("data"), record.asked.get("split_seed")) == (
            trained.fingerprint,
            trained.split_seed,
        )
        if record.used and of_this:
            return frozenset(record.used)
    logger.warning(
        "%s: no record beside the weights says which images trained them; any among these data are counted as held out",
        printable(run),
    )
    return frozenset()
