"""Class activation maps: what each place of an image adds to a class's logit, in the networks of several runs.

The classifier's weights applied to the last feature map before pooling (Zhou et al. 2016, "Learning Deep Features for
Discriminative Localization", eq. 2; the paper's Figure 7). Every network here ends in average pooling and one linear
layer, so that the map's mean and the class's bias add up to its logit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trifold.cost import cost
from trifold.data.dataset import content_digest
from trifold.data.decode import decode, printable, read_bytes
from trifold.data.images import normalise, to_pixels
from trifold.errors import InvalidData, InvalidInput
from trifold.network import Network
from trifold.preprocessing import plain
from trifold.report.activation import ActivationMaps, Panel, Pixels, Row
from trifold.report.figures import percent, short_number
from trifold.train.folder import LOG, RECORD
from trifold.train.record import Record, read_record
from trifold.train.use import Trained, load_run

logger = logging.getLogger(__name__)

MOST_RUNS, MOST_IMAGES = 12, 40
"""Columns and rows that one picture may have."""
SHOWN_SIDE = 512
"""Pixels to which the first column's images are reduced where they are larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looker:
    """A run whose network looks at images; multiply_adds: of one image at its own resolution."""

    path: str
    record: Record
    trained: Trained

    @property
    def network(self) -> Network:
        """The run's network."""
        return self.trained.network

    @property
    def multiply_adds(self) -> int:
        """Of one image at the resolution that the run's images have."""
        network = self.network
        architecture = replace(network.architecture, resolution=self.trained.preprocessing.resolution)
        return cost(architecture, num_classes=network.num_classes, in_channels=network.in_channels).multiply_adds


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded image file; digest: of the file's content."""

    path: str
    image: Image.Image
    digest: str

    @property
    def folder(self) -> str:
        """The name of the folder that it lies in: its class, where that is a class."""
        return Path(self.path).absolute().parent.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMap:
    """What each place of an image adds to one class's logit, in one run's network.

    run, image: their paths. name: the class. probability: of the class, in [0, 1]. correct: whether it is the true
    class, None where that is not known. bias: the classifier's; the mean of values and it add up to the logit.
    values: (height, width) of the network's last feature map.
    """

    run: str
    image: str
    name: str
    probability: float
    correct: bool | None
    bias: float
    values: tuple[tuple[float, ...], ...]

    @property
    def concentration(self) -> float | None:
        """See `concentration`."""
        return concentration(np.array(self.values))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the map by its rows."""
        return {
            "image": self.image,
            "run": self.run,
            "class": self.name,
            "probability": self.probability,
            "correct": self.correct,
            "concentration": self.concentration,
            "bias": self.bias,
            "map": [list(row) for row in self.values],
        }


def concentration(values: NDArray[np.float64]) -> float | None:
    """The share of the map's places that holds half of its positive mass, the highest first; None if none is positive.

    In (0, 0.5]: 0.5 for a map of one value everywhere, 0.5 / n where one of n places is positive. The last place counts
    in part, so that maps of different sizes compare.
    """
    positive = np.sort(np.clip(values, 0, None), axis=None)[::-1]
    if not positive[0]:
        return None
    held = np.concatenate(([0.0], np.cumsum(positive)))
    last = int(np.argmax(held >= held[-1] / 2))
    part = (held[-1] / 2 - held[last - 1]) / positive[last - 1]
    return float((last - 1 + part) / values.size)


def class_maps(
    network: Network, features: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch classes height width"]:
    """The map of every class, of the network's last feature maps; without the bias.

    Raises InvalidInput if the network does not end in average pooling and a linear layer.
    """
    if network.global_pool != "avg" or not isinstance(network.classifier, torch.nn.Linear):
        raise InvalidInput(
            "class activation maps need average pooling and a classifier, got "
            f"global_pool {network.global_pool!r} and {network.num_classes} classes"
        )
    return torch.einsum("kc,bchw->bkhw", network.classifier.weight, features)


def open_runs(paths: Sequence[str | Path]) -> tuple[Looker, ...]:
    """The finished runs in these folders.

    Raises InvalidInput for none, too many or one given twice; InvalidData if a folder holds no finished run.
    """
    if not paths:
        raise InvalidInput("a run is needed: the folder of a finished training, beside the images")
    _check_list("runs", paths, MOST_RUNS)
    return tuple(_open_run(Path(path)) for path in paths)


def _open_run(path: Path) -> Looker:
    if not (path / RECORD).is_file():
        if (path / LOG).is_file():
            raise InvalidData(f"{printable(path)}: holds an unfinished run; the command that began it goes on with it")
        raise InvalidData(f"{printable(path)}: is not a run folder: it has no {RECORD}")
    return Looker(path=str(path), record=read_record(path / RECORD), trained=load_run(path))


def open_pictures(paths: Sequence[str | Path]) -> tuple[Picture, ...]:
    """These image files.

    Raises InvalidInput for none, too many or one given twice; InvalidData if one is not an 8-bit grey or RGB image.
    """
    if not paths:
        raise InvalidInput("an image is needed: a file, beside the run folders")
    _check_list("images", paths, MOST_IMAGES)
    contents = [(path, read_bytes(Path(path))) for path in paths]
    return tuple(
        Picture(path=str(path), image=decode(content, path), digest=content_digest(content))
        for path, content in contents
    )


def _check_list(kind: str, paths: Sequence[str | Path], most: int) -> None:
    """Raises InvalidInput if there are too many, or two lead to one place."""
    if len(paths) > most:
        raise InvalidInput(f"{kind} must be at most {most}, got {len(paths)}")
    seen: set[Path] = set()
    for path in paths:
        place = Path(path).resolve()
        if place in seen:
            raise InvalidInput(f"{kind} must be different, got {printable(path)} twice")
        seen.add(place)


def look(
    runs: Sequence[Looker], pictures: Sequence[Picture], *, name: str | None = None
) -> tuple[tuple[ClassMap, ...], ...]:
    """For each picture the maps of all runs, in their order, each image prepared as in that run's training.

    name: the class that all maps are of; None: the one that each run finds most probable.

    Raises InvalidInput if a run does not know the class; InvalidData if a network's answer is no number. An image that
    trained a run or chose its weights is named in a warning.
    """
    for run in runs:
        if name is not None and name not in run.trained.classes:
            raise InvalidInput(_not_known(run, name))
    for run in runs:
        for picture in pictures:
            if picture.digest in run.record.used:
                logger.warning("%s trained %s or chose its weights", printable(picture.path), printable(run.path))
    columns = [_maps_of(run, pictures, name) for run in runs]
    return tuple(zip(*columns, strict=True))


def _not_known(run: Looker, name: str) -> str:
    classes = run.trained.classes
    more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
    return (
        f"{printable(run.path)}: class {printable(name)!r} is not known to this run; its classes are "
        f"{printable(', '.join(classes[:20]))}{more}"
    )


@torch.inference_mode()
def _maps_of(run: Looker, pictures: Sequence[Picture], name: str | None) -> list[ClassMap]:
    """One run's map of each picture."""
    network, classes, preprocessing = run.network.eval(), run.trained.classes, run.trained.preprocessing
    found = []
    for picture in pictures:
        pixels = to_pixels(picture.image, preprocessing)
        features = network.forward_features(normalise(pixels[None], preprocessing))
        chances = network.forward_head(features)[0].softmax(0)
        if not chances.isfinite().all():
            raise InvalidData(f"{printable(run.path)}: its network answers with values that are no numbers")
        index = int(chances.argmax()) if name is None else classes.index(name)
        found.append(
            ClassMap(
                run=run.path,
                image=picture.path,
                name=classes[index],
                probability=float(chances[index]),
                correct=classes[index] == picture.folder if picture.folder in classes else None,
                bias=float(network.get_parameter("classifier.bias")[index]),
                values=tuple(map(tuple, class_maps(network, features)[0, index].tolist())),
            )
        )
    return found


def figure_data(
    runs: Sequence[Looker],
    pictures: Sequence[Picture],
    maps: Sequence[Sequence[ClassMap]],
    *,
    names: Sequence[str] = (),
) -> ActivationMaps:
    """What `look` found, as the picture shows it: the centre square of each image, then each run's map over it.

    names: what the runs are called; none: their networks' names.
    """
    rows = []
    for picture, found in zip(pictures, maps, strict=True):
        panels = [_panel(run, picture, one) for run, one in zip(runs, found, strict=True)]
        width, height = picture.image.size
        size = f"{width}x{height} pixels" if width == height else f"centre of {width}x{height} pixels"
        lines = (printable("/".join(Path(picture.path).parts[-2:])), size)
        square = plain(min(width, height, SHOWN_SIDE), picture.image.mode)
        rows.append(Row(pixels=_array(to_pixels(picture.image, square)), lines=lines, panels=tuple(panels)))
    names = names or [run.network.architecture.name for run in runs]
    alike = len(set(names)) < len(names)
    columns = [
        (
            *((printable(Path(run.path).resolve().name),) if alike else ()),
            name,
            f"{short_number(run.multiply_adds)} multiply-adds,",
            f"{run.trained.preprocessing.resolution} pixels",
        )
        for run, name in zip(runs, names, strict=True)
    ]
    return ActivationMaps(columns=tuple(columns), rows=tuple(rows))


def _panel(run: Looker, picture: Picture, found: ClassMap) -> Panel:
    preprocessing = run.trained.preprocessing
    side = (preprocessing.resolution, preprocessing.resolution)
    heat = F.interpolate(torch.tensor(found.values)[None, None], side, mode="bilinear")[0, 0]
    known = {True: ", true class", False: ", not the true class", None: ""}[found.correct]
    return Panel(
        pixels=_array(to_pixels(picture.image, preprocessing)),
        heat=heat.double().numpy(),
        lines=(f"class {printable(found.name)}", f"{percent(found.probability)}{known}"),
    )


def _array(pixels: Tensor) -> Pixels:
    """Channels last, or without channels where there is one."""
    return np.asarray(pixels.permute(1, 2, 0).squeeze(2).numpy())
