"""A network by name, with weights where they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

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
    pretrained: True for the architecture's first weight set, a tag of `trifold weights list` (`tf_aa`), a file or a
    run folder. The weights bring their numerics and must hold the whole network; another number of classes leaves the
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
    own = known if known is not None else file
    classes = num_classes if num_classes is not None else 1000 if known is None else known.num_classes
    network = build(
        architecture,
        num_classes=0 if features_only else classes,
        in_channels=in_channels,
        numerics=numerics or (PAPER_NUMERICS if own is None else _numerics(own)),
        drop_rate=0.0 if features_only else drop_rate,
        drop_path_rate=drop_path_rate,
        global_pool="avg" if features_only else global_pool,
        seed=seed,
    )
    if file is not None:
        _load(network, file, known, strict=strict)
    return network.features(out_indices) if features_only else network


def _weights(architecture: Architecture, wanted: bool | str | Path) -> tuple[WeightSet | None, Pretrained | None]:
    """The weight set asked for, None for a file of the user's own, and the tensors; neither if none are asked for."""
    if wanted is False:
        return None, None
    if wanted is not True and Path(wanted).exists():
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


def _numerics(known: WeightSet | Pretrained) -> Numerics:
    if isinstance(known, WeightSet):
        return Numerics(bn_eps=known.bn_eps, bn_momentum=known.bn_momentum, padding=known.padding)
    return known.numerics or PAPER_NUMERICS


def _load(network: Network, file: Pretrained, known: WeightSet | None, *, strict: bool) -> None:
    """Fills the network, and says what could not be filled or had to be adapted."""
    if known is not None and strict:
        loaded = load_whole(network, file, known.layout)
    else:
        loaded = load_pretrained(network, file)
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
