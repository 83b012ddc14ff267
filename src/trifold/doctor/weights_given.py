"""A weights file with the settings that it is said to be used with, and photographs to try them on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor, nn

from trifold import baselines, weights
from trifold.architecture import Architecture
from trifold.data.decode import decode, printable, read_bytes
from trifold.data.images import normalise
from trifold.data.resize import to_levels
from trifold.errors import InvalidData, InvalidInput
from trifold.network import PAPER_NUMERICS, Network, Numerics, build
from trifold.preprocessing import STANDARD, Preprocessing, from_dict
from trifold.weight_sets import WeightSet, find_weights
from trifold.weights.files import NAME
from trifold.weights.loading import load_pretrained
from trifold.weights.readers import Pretrained, pretrained
from trifold.weights.recognition import numerics_of, sizes

CHANNELS = ("rgb", "bgr")
FEWEST_IMAGES, MOST_IMAGES = 8, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a network is used with. channels: their order as the network is fed; mean and std are in that order, too."""

    preprocessing: Preprocessing
    numerics: Numerics
    channels: str = "rgb"

    def __post_init__(self) -> None:
        if self.channels not in CHANNELS:
            raise InvalidInput(f"channels must be {' or '.join(CHANNELS)}, got {self.channels!r}")
        if self.channels == "bgr" and self.preprocessing.mode != "RGB":
            raise InvalidInput("channels must be rgb where images are grey, got 'bgr'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Settings that are said beside the file; None: as the file, the weight set or the paper has it.

    mean, std: of pixel values in [0, 1], one number a channel, or one for all. resolution: pixels.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resolution: int | None = None
    crop: str | None = None
    interpolation: str | None = None
    channels: str | None = None
    padding: str | None = None
    bn_eps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A network with a file's tensors, and the settings as given.

    told: the settings before the user's changes.
    norms: names of the batch norms whose statistics the file holds, in the order in which they run. classifies: whether
    the file holds the classifier. classes: names of its outputs, where known. said: where the settings come from.
    """

    network: Network
    norms: tuple[str, ...]
    settings: Settings
    told: Settings
    classifies: bool
    classes: tuple[str, ...]
    said: str


def open_given(path: str | Path, *, architecture: str = "", like: str = "", changes: Changes | None = None) -> Given:
    """The file's tensors in their network, whole or in part, with the settings that it, the weight set or changes say.

    architecture: a name or a .toml file, where the file does not say. like: a weight set's tag, or its whole name.

    Raises InvalidData if the file cannot be read or does not fit; InvalidInput if a name or setting is not known, or
    no architecture is.
    """
    if like and not architecture and "." in like:
        architecture, _, like = like.partition(".")
    path = Path(path)
    file = pretrained(path)
    described = file.architecture
    if architecture:
        described = baselines.load(architecture)[0]
        if file.architecture is not None and file.architecture != described:
            raise InvalidInput(
                f"{file.source}: holds {file.architecture.name}, which is not the architecture {described.name}"
            )
    if described is None:
        raise InvalidInput(f"{file.source}: does not say which network it is for; --architecture names it")
    known = find_weights(described.name, like) if like else None
    own, classes = _of_run(path, file)
    told = _told(described, file, known, own)
    settings = _changed(told, changes or Changes())
    network, loaded = _filled(described, settings, file)
    modules = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    norms = tuple(name for name in modules if {f"{name}.running_mean", f"{name}.running_var"} <= loaded)
    if not norms:
        raise InvalidData(f"{file.source}: holds no batch norm with running statistics, by which it could be judged")
    return Given(
        network=network,
        norms=norms,
        settings=settings,
        told=told,
        classifies="classifier.weight" in loaded,
        classes=classes if len(classes) == network.num_classes else (),
        said="the file" if own else known.name if known else "the paper, as none are told",
    )


def _of_run(path: Path, file: Pretrained) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """Preprocessing and classes that a run wrote beside its tensors; None and () where there are none."""
    if file.layout != "trifold":
        return None, ()
    _, metadata = weights.load(path / NAME if path.is_dir() else path)
    try:
        own = from_dict(json.loads(metadata["preprocessing"])) if "preprocessing" in metadata else None
        classes = tuple(map(str, json.loads(metadata.get("classes", "[]"))))
    except (ValueError, TypeError) as error:
        raise InvalidData(f"{file.source}: its metadata do not fit: {printable(error)}") from None
    return own, classes


def _told(architecture: Architecture, file: Pretrained, known: WeightSet | None, own: Preprocessing | None) -> Settings:
    """What the file says, else the weight set, else the library of the file's names, else the paper."""
    mean, std = STANDARD["imagenet", "RGB"]
    preprocessing = Preprocessing(
        resolution=architecture.resolution, mode="RGB", mean=mean, std=std, interpolation="bicubic", resizer="pillow"
    )
    numerics = numerics_of(file, architecture) or PAPER_NUMERICS
    if known is not None:
        preprocessing = known.preprocessing
        if file.numerics is None:
            numerics = Numerics(bn_eps=known.bn_eps, bn_momentum=known.bn_momentum, padding=known.padding)
    if own is not None:
        preprocessing = own
    elif file.mean is not None and file.std is not None:
        preprocessing = replace(preprocessing, mean=file.mean, std=file.std)
    return Settings(preprocessing=preprocessing, numerics=numerics)


def _changed(told: Settings, changes: Changes) -> Settings:
    """The settings with the changes in their place. Raises InvalidInput if one is not known."""
    preprocessing, numerics = told.preprocessing, told.numerics
    given = {name: getattr(changes, name) for name in ("resolution", "crop", "interpolation")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("mean", "std"):
        if (values := getattr(changes, name)) is not None:
            given[name] = values * preprocessing.channels if len(values) == 1 else values
    crop, resolution = (given.get(name, getattr(preprocessing, name)) for name in ("crop", "resolution"))
    if crop != "resize":
        given["resize"] = 0
    elif preprocessing.crop != "resize":
        given["resize"] = round(resolution / 0.875)
    elif "resolution" in given:
        given["resize"] = max(resolution, round(preprocessing.resize * resolution / preprocessing.resolution))
    return Settings(
        preprocessing=replace(preprocessing, **given),
        numerics=replace(
            numerics,
            padding=changes.padding or numerics.padding,
            bn_eps=numerics.bn_eps if changes.bn_eps is None else changes.bn_eps,
        ),
        channels=changes.channels or "rgb",
    )


def _filled(architecture: Architecture, settings: Settings, file: Pretrained) -> tuple[Network, frozenset[str]]:
    """The network with the file's tensors, and the names of those that were filled."""
    num_classes, _ = sizes(file, architecture)
    channels = settings.preprocessing.channels
    with torch.device("meta"):
        network = build(architecture, num_classes=num_classes, in_channels=channels, numerics=settings.numerics)
    loaded = load_pretrained(network, file, seed=0)
    if loaded.adapted:
        raise InvalidInput(f"{file.source}: must take images of {channels} channels, as the settings have them")
    return network.eval(), frozenset(loaded.loaded)


def with_numerics(network: Network, numerics: Numerics) -> Network:
    """A network of other numerics with the same tensors, evaluating."""
    with torch.device("meta"):
        other = build(
            network.architecture, num_classes=network.num_classes, in_channels=network.in_channels, numerics=numerics
        )
    other = other.to_empty(device="cpu")
    other.load_state_dict(network.state_dict())
    return other.eval()


def at_resolution(preprocessing: Preprocessing, resolution: int) -> Preprocessing:
    """The same preprocessing at another resolution, of the same part of the image."""
    resize = math.ceil(preprocessing.resize * resolution / preprocessing.resolution)
    return replace(preprocessing, resolution=resolution, resize=resize)


def open_images(paths: Sequence[str | Path]) -> list[Image]:
    """The photographs, decoded.

    Raises InvalidData naming the file if one is no image, or there are fewer than FEWEST_IMAGES or more than
    MOST_IMAGES.
    """
    if not FEWEST_IMAGES <= len(paths) <= MOST_IMAGES:
        raise InvalidData(f"images must be {FEWEST_IMAGES} to {MOST_IMAGES} photographs, got {len(paths)}")
    return [decode(read_bytes(Path(path)), path) for path in paths]


def levels_of(images: Sequence[Image], preprocessing: Preprocessing) -> Tensor:
    """The images prepared, not normalised: (images, channels, height, width), float32, 0 to 255."""
    return torch.stack([to_levels(image, preprocessing).float() for image in images])


def fed(levels: Tensor, settings: Settings) -> Tensor:
    """What the network takes of images that `levels_of` prepared."""
    return normalise(levels.flip(1) if settings.channels == "bgr" else levels, settings.preprocessing)
