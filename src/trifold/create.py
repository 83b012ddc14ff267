"""A network by name, with weights where they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

import torch

from trifold import baselines
from trifold.architecture import Architecture
from trifold.data.decode import printable
from trifold.errors import InvalidData, InvalidInput
from trifold.network import PAPER_NUMERICS, FeatureNetwork, Network, Numerics, build
from trifold.weight_sets import WeightSet, find_weights
from trifold.weights.fetch import fetch
from trifold.weights.layouts import row_of
from trifold.weights.loading import Loaded, load_pretrained, load_whole
from trifold.weights.readers import Pretrained
from trifold.weights.readers import pretrained as read_weights
from trifold.weights.recognition import layout_of, numerics_of, sizes
from trifold.weights.tensorflow_files import index_of

logger = logging.getLogger(__name__)


@overload
def create_model(
    name: str | Architecture,
    *,
    num_classes: int | None = ...,
    pretrained: bool | str | Path = ...,
    strict: bool = ...,
    in_channels: int = ...,
    numerics: Numerics | None = ...,
    drop_rate: float = ...,
    drop_path_rate: float = ...,
    global_pool: str = ...,
    features_only: Literal[False] = ...,
    out_indices: None = ...,
    seed: int | None = ...,
) -> Network: ...


@overload
def create_model(
    name: str | Architecture,
    *,
    num_classes: int | None = ...,
    pretrained: bool | str | Path = ...,
    strict: bool = ...,
    in_channels: int = ...,
    numerics: Numerics | None = ...,
    drop_rate: float = ...,
    drop_path_rate: float = ...,
    global_pool: str = ...,
    features_only: Literal[True],
    out_indices: int | Sequence[int] | None = ...,
    seed: int | None = ...,
) -> FeatureNetwork: ...


def create_model(
    name: str | Architecture,
    *,
    num_classes: int | None = None,
    pretrained: bool | str | Path = False,
    strict: bool = True,
    in_channels: int = 3,
    numerics: Numerics | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    global_pool: str = "avg",
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    seed: int | None = None,
) -> Network | FeatureNetwork:
    """The network of a shipped name (`efficientnet_b0`, `b0`, timm's spellings), a .toml file or an Architecture.

    num_classes: None for 1000, or for what the weights have.
    pretrained: True for the architecture's first weight set, a tag of `trifold weights list` (`tf_aa`), a file of any
    kind that `weights.readers` reads or a run folder. The weights bring their numerics (where a file does not tell
    them, the paper's are taken with a warning) and must hold the whole network; another number of classes leaves the
    classifier, and another number of channels adapts the stem, which a warning says. The images' preprocessing is
    `find_weights(name, tag).preprocessing`.
    strict: false takes what fits of a file, and a warning says what stays at its initialisation.
    features_only: the feature maps instead, chosen by out_indices as in `Network.features`; num_classes, global_pool
    and drop_rate then play no part. The rest is as in `build`.

    Raises InvalidInput naming the field, the value and what is allowed; for a name or tag, the nearest known ones;
    InvalidData if the weights cannot be had or do not fit.
    """
    if out_indices is not None and not features_only:
        raise InvalidInput(f"out_indices must be None unless features_only is true, got {out_indices!r}")
    architecture = name if isinstance(name, Architecture) else baselines.load(name)[0]
    known, file = _weights(architecture, pretrained)
    if file is not None and not file.ordered:
        file = replace(file, layout=layout_of(file, architecture))
    classes = num_classes if num_classes is not None else _classes(architecture, known, file)
    device = torch.get_default_device()
    with nullcontext() if file is None else torch.device("meta"):
        network = build(
            architecture,
            num_classes=0 if features_only else classes,
            in_channels=in_channels,
            numerics=numerics or _numerics(architecture, known, file),
            drop_rate=0.0 if features_only else drop_rate,
            drop_path_rate=drop_path_rate,
            global_pool="avg" if features_only else global_pool,
            seed=seed,
        )
    if file is not None:
        _load(network, file, known, strict=strict, seed=seed)
        if device.type != "cpu":
            network.to(device)
    return network.features(out_indices) if features_only else network


def _weights(architecture: Architecture, wanted: bool | str | Path) -> tuple[WeightSet | None, Pretrained | None]:
    """The weight set asked for, None for a file of the user's own, and the tensors; neither if none are asked for."""
    if wanted is False:
        return None, None
    if wanted is not True and (Path(wanted).exists() or index_of(Path(wanted)) is not None):
        return None, read_weights(wanted)
    if isinstance(wanted, Path):
        raise InvalidData(f"{printable(wanted)}: no such file")
    shipped = architecture.name in baselines.list_models() and baselines.find(architecture.name) == architecture
    if not shipped:
        raise InvalidInput(
            f"pretrained must be a weights file or a run folder for a network that is not shipped, got {wanted!r}"
        )
    known = find_weights(architecture.name, "" if wanted is True else wanted)
    path = fetch(known.source, known.digest)
    return known, read_weights(path)


def _classes(architecture: Architecture, known: WeightSet | None, file: Pretrained | None) -> int:
    """What the weights have; 1000 where there are none, or none with a classifier."""
    if known is not None:
        return known.num_classes
    return (sizes(file, architecture)[0] if file is not None else 0) or 1000


def _numerics(architecture: Architecture, known: WeightSet | None, file: Pretrained | None) -> Numerics:
    """What the weights need; the paper's where there are none, or their file does not say, which a warning tells."""
    if known is not None:
        return Numerics(bn_eps=known.bn_eps, bn_momentum=known.bn_momentum, padding=known.padding)
    if file is None:
        return PAPER_NUMERICS
    found = numerics_of(file, architecture)
    if found is None:
        logger.warning(
            "%s: does not say which padding and bn_eps its weights need; taken are the paper's (timm's networks called "
            "tf_), for timm's others give numerics=TORCH_NUMERICS",
            file.source,
        )
    return found or PAPER_NUMERICS


def _load(network: Network, file: Pretrained, known: WeightSet | None, *, strict: bool, seed: int | None) -> None:
    """Fills the network, and says what could not be filled or had to be adapted."""
    if known is not None and strict:
        loaded = load_whole(network, file, known.layout if file.ordered else file.layout, seed=seed)
    else:
        loaded = load_pretrained(network, file, seed=seed)
        if strict:
            _check_whole(loaded, file)
    if loaded.initial or loaded.adapted:
        logger.warning("%s", loaded)


def _check_whole(loaded: Loaded, file: Pretrained) -> None:
    """Raises InvalidData if a file lacks a tensor before the classifier, or has one that has no place."""
    for what, tensors in (("is missing", loaded.initial), ("has no place in this network", loaded.unused)):
        wrong = [name for name in tensors if row_of(name) != "classifier"]
        if wrong:
            raise InvalidData(f"{file.source}: tensor {wrong[0]!r:.200} {what}; strict=False takes what fits")
