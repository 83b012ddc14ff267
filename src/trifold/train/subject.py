"""Weights that a user names, published or of another library's file, as a network with its preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from trifold import baselines
from trifold.architecture import Architecture
from trifold.create import create_model
from trifold.data.decode import printable
from trifold.errors import InvalidArchitecture, InvalidData, InvalidInput
from trifold.network import Network, Numerics, build
from trifold.preprocessing import Preprocessing
from trifold.weight_sets import WEIGHT_SETS, Evaluation, WeightSet, find_weights
from trifold.weights.fetch import HUB, fetch
from trifold.weights.loading import load_pretrained, load_whole
from trifold.weights.readers import Pretrained, pretrained
from trifold.weights.recognition import layout_of, numerics_of, sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network to be evaluated on images of ImageNet's classes, or of those that it was trained on.

    name: as the user gave it. preprocessing_from, numerics_from: who says so, in words. published: what was published
    of these weights under this preprocessing, top1 None where nothing was; published_of: of which set.
    """

    name: str
    network: Network
    preprocessing: Preprocessing
    preprocessing_from: str
    numerics_from: str
    published: Evaluation
    published_of: str = ""


def is_run(weights: str, architecture: str = "") -> bool:
    """Whether weights are named as a run is: a path that is there or a hub's repository, and of no other library.

    Raises InvalidInput if they are another library's file, and no architecture is given.
    """
    if architecture or _by_source(weights) is not None:
        return False
    if Path(weights).is_file() and not _written_here(Path(weights)):
        raise InvalidInput(f"{printable(weights)}: was not written by trifold; --architecture must name its network")
    return Path(weights).exists() or weights.startswith(HUB)


def _written_here(file: Path) -> bool:
    """Whether a file is one of trifold's, or a damaged one that may have been."""
    if file.suffix != ".safetensors":
        return False
    try:
        with safe_open(file, framework="pt") as content:
            return "trifold" in (content.metadata() or {})
    except (SafetensorError, OSError):
        return True


def open_published(name: str, *, resolution: int = 0) -> Subject:
    """A published set with its weights, fetched unless they are there, and the preprocessing of its accuracy.

    name: as `find_set` takes it. resolution: of another of the set's published evaluations; 0: of the first.

    Raises InvalidInput if the name or the resolution is not known; InvalidData if the file cannot be had or does not
    fit.
    """
    known = find_set(name)
    evaluation = _evaluation(known, resolution)
    network = create_model(known.architecture, pretrained=known.tag)
    return Subject(
        name=known.name,
        network=_laid_out(network),
        preprocessing=evaluation.preprocessing,
        preprocessing_from="the set's own",
        numerics_from="the set's own",
        published=evaluation,
        published_of=known.name,
    )


def open_file(source: str, architecture: str, *, like: str = "", resolution: int = 0) -> Subject:
    """Another library's weights file as a network, with what the file says of numerics and preprocessing.

    source: a path, an address or "hf:OWNER/NAME:FILE". What the file leaves open is that of the set `like` (a tag of
    the architecture, or a set's whole name), else of the architecture's first set of the file's library, else of its
    default set. resolution: as in `open_published`, of that set.

    Raises InvalidInput for a name that is not known; InvalidData if the file cannot be read, is not whole or does not
    fit the architecture.
    """
    described = baselines.load(architecture)[0]
    file = pretrained(fetch(source))
    layout = _layout(file, described)
    known, how = _like(described, like, layout)
    evaluation = _evaluation(known, resolution)
    preprocessing, scale = evaluation.preprocessing, ""
    if file.mean is not None and file.std is not None:
        preprocessing, scale = replace(preprocessing, mean=file.mean, std=file.std), ", mean and std the file's"
    numerics = file.numerics or (None if like else numerics_of(file, described))
    return Subject(
        name=printable(source),
        network=_laid_out(_filled(file, described, layout, numerics or _numerics(known))),
        preprocessing=preprocessing,
        preprocessing_from=f"{how}{scale}",
        numerics_from=how if numerics is None else "the file's" if file.numerics else f"{layout}'s",
        published=evaluation if like else Evaluation(preprocessing=preprocessing),
        published_of=known.name if like else "",
    )


def find_set(name: str) -> WeightSet:
    """The published set of a name: efficientnet_b0.tf_aa, b0.tf_aa, b0 for its default, timm's own, or its source.

    Raises InvalidInput with the nearest names if there is none.
    """
    found = _by_source(name)
    if found is not None:
        return found
    architecture, _, tag = name.partition(".")
    try:
        return find_weights(architecture, tag)
    except InvalidArchitecture as error:
        raise InvalidInput(
            f"{printable(name)}: no such run folder or weights file, nor a published set such as "
            f"efficientnet_b0.tf_aa: {error}"
        ) from None


def _by_source(name: str) -> WeightSet | None:
    """The set of a source, or of timm's name on the hub, tf_efficientnet_b0.aa_in1k."""
    return next((one for one in WEIGHT_SETS if one.source in (name, f"{HUB}{name}", f"{HUB}timm/{name}")), None)


def _evaluation(known: WeightSet, resolution: int) -> Evaluation:
    """The set's published evaluation at a resolution, its first for 0."""
    found = {one.preprocessing.resolution: one for one in reversed(known.evaluations)}
    if not resolution:
        return known.evaluations[0]
    if resolution not in found:
        allowed = " or ".join(map(str, sorted(found)))
        raise InvalidInput(f"resolution must be {allowed}, as {known.name} was published at, got {resolution}")
    return found[resolution]


def _like(architecture: Architecture, like: str, layout: str) -> tuple[WeightSet, str]:
    """The set whose preprocessing and numerics are taken, and in words why it is that one."""
    if like:
        known = find_set(like) if "." in like else find_weights(architecture.name, like)
        return known, f"as {known.name}"
    own = [one for one in WEIGHT_SETS if one.architecture == architecture.name]
    if not own:
        raise InvalidInput(
            f"--like must name a set whose preprocessing these weights need, such as efficientnet_b0.torchvision: no "
            f"public weights of {architecture.name} are known here"
        )
    same = [one for one in own if one.layout == layout]
    if same:
        return same[0], f"as {same[0].name}, the first of {layout}'s sets; --like names another"
    return own[0], f"as {own[0].name}, the default; --like names another"


def _layout(file: Pretrained, architecture: Architecture) -> str:
    """Whose names the tensors have. Raises InvalidData where the library has no such network."""
    try:
        return layout_of(file, architecture)
    except InvalidInput as error:
        raise InvalidData(f"{file.source}: {error}") from None


def _filled(file: Pretrained, architecture: Architecture, layout: str, numerics: Numerics) -> Network:
    """The network with every one of its tensors from the file."""
    num_classes, in_channels = sizes(file, architecture)
    if in_channels not in (0, 3):
        raise InvalidData(f"{file.source}: takes images of {in_channels} channels; evaluated are those of 3, colour")
    network = build(architecture, num_classes=num_classes or 1000, numerics=numerics)
    loaded = load_pretrained(network, file) if file.ordered else load_whole(network, file, layout)
    if loaded.initial or loaded.unused:
        name, what = (*loaded.initial, *loaded.unused)[0], "is missing" if loaded.initial else "has no place"
        raise InvalidData(f"{file.source}: tensor {name!r:.200} {what}; the whole of {architecture.name} is needed")
    return network


def _numerics(known: WeightSet) -> Numerics:
    return Numerics(bn_eps=known.bn_eps, bn_momentum=known.bn_momentum, padding=known.padding)


def _laid_out(network: Network) -> Network:
    """The network in evaluation mode, its kernels in the order that convolutions are fastest in."""
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch's own idiom
