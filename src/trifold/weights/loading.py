"""Pretrained weights in any layout put into a network, whole or in part.

See `trifold.weights.readers` for the files, `trifold.weights.recognition` for whose they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trifold import weights
from trifold.architecture import Architecture
from trifold.data.decode import printable
from trifold.errors import InvalidData, InvalidInput
from trifold.network import PAPER_NUMERICS, Network, Numerics, build, initialise
from trifold.weights.convert import imported
from trifold.weights.layouts import LAYOUTS, row_of
from trifold.weights.readers import Pretrained, pretrained
from trifold.weights.recognition import in_our_order, layout_of, numerics_of, sizes, spots

__all__ = ["Loaded", "Pretrained", "load_pretrained", "load_whole", "pretrained", "whole_network"]

_STAGE = re.compile(
    r"((?:stages\.|blocks\.|features\.|layer)[0-9]+\.)[0-9]+\."
    r"|(block[0-9]+)[a-z]_"
    r"|(_blocks\.|blocks_|conv2d_|depthwise_conv2d_|batch_normalization_)[0-9]+"
)
"""How names begin that say stage and block: ours, timm's and torchvision's; Keras'; those that count on."""

_FOREIGN = tuple(name for name in LAYOUTS if name not in ("trifold", "keras_counted"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What became of a weights file in a network.

    loaded, initial: the network's tensors that were filled and that stay at their initialisation; unused: the file's
    that were not used, by our names where they have one. Batch norm's step counters are in none. adapted: whether the
    stem's kernels were adapted to another number of channels.
    """

    loaded: tuple[str, ...]
    initial: tuple[str, ...]
    unused: tuple[str, ...]
    adapted: bool

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} of {len(self.loaded) + len(self.initial)} tensors loaded ({_rows(self.loaded)})"]
        if self.adapted:
            parts.append("the stem's kernels adapted to another number of channels")
        if self.initial:
            parts.append(f"{len(self.initial)} at their initialisation ({_rows(self.initial)})")
        if self.unused:
            parts.append(f"{len(self.unused)} of the file not used ({_rows(self.unused)})")
        return "; ".join(parts)


def _rows(names: Sequence[str]) -> str:
    """The rows of the network that tensors belong to, in order, at most twelve."""
    rows = list(dict.fromkeys(printable(row_of(name)) for name in names))
    return ", ".join(rows[:12]) + (", ..." if rows[12:] else "")


def load_pretrained(network: Network, pretrained: Pretrained, *, seed: int | None = None) -> Loaded:
    """Copies every tensor whose name and shape fit into the network, and tells what was and what was not.

    A network on the meta device comes to lie on the CPU; what is not filled is initialised, seed being as in `build`.

    Head and classifier may have other shapes than the file's and then stay as they are; so do stages after the file's
    last. A stem of another number of channels is summed for one channel, which gives the output that equal channels
    would; for other numbers its kernels are taken round and round and scaled by the ratio, as timm does: equal channels
    give what they gave where the number is a multiple.

    Raises InvalidData, with the network unchanged, if nothing before the classifier fits, a tensor of the stem or the
    stages has another shape, or a stage has another depth.
    """
    target = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(weights.COUNTER)}
    try:
        found, unknown = _found(pretrained, network.architecture, target)
        unused = [name for name in found if name not in target]
        found = {name: tensor for name, tensor in found.items() if name in target}
        adapted = _carry_stem(found, network.in_channels)
        _check_body(found, target)
        fitting = {name: tensor for name, tensor in found.items() if tensor.shape == target[name].shape}
        if all(row_of(name) == "classifier" for name in fitting):
            first = f", first {printable(next(iter(pretrained.tensors)))!r:.200}"
            raise InvalidData(
                f"none of its {len(pretrained.tensors)} tensors{first} belongs before the classifier of "
                f"{network.architecture.name}, by its names here or in {', '.join(_FOREIGN)}"
            )
        _check_depth(found, target, used=pretrained.tensors.keys() - set(unknown), unused=unknown)
    except InvalidInput as error:
        raise InvalidData(f"{pretrained.source or 'pretrained weights'}: {error}") from None
    _fill(network, target, fitting, seed)
    return Loaded(
        loaded=tuple(name for name in target if name in fitting),
        initial=tuple(name for name in target if name not in fitting),
        unused=(*(name for name in found if name not in fitting), *unused, *unknown),
        adapted=adapted,
    )


def _fill(network: Network, target: Mapping[str, Tensor], tensors: Mapping[str, Tensor], seed: int | None) -> None:
    """Copies tensors into the network. target: its own, by name.

    One on the meta device takes the copies for its tensors if they are all of them: nothing is initialised in vain.
    """
    if network.stem.conv.weight.is_meta:
        if len(tensors) == len(target):
            copies = {name: tensor.to(target[name].dtype, copy=True).contiguous() for name, tensor in tensors.items()}
            network.load_state_dict(copies, assign=True)
            return
        initialise(network.to_empty(device="cpu"), seed=seed)
        target = network.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            target[name].copy_(tensor)


def load_whole(network: Network, pretrained: Pretrained, layout: str, *, seed: int | None = None) -> Loaded:
    """As `load_pretrained`, of a file that must hold the whole network in a layout: nothing missing, nothing more.

    Another number of classes leaves the classifier at its initialisation; a network without one takes the rest.

    Raises InvalidData naming the first tensor that is missing, extra or of another shape, with the network unchanged;
    InvalidInput as `imported`.
    """
    num_classes, in_channels = sizes(replace(pretrained, layout=layout), network.architecture)
    try:
        whole = imported(
            pretrained.tensors,
            network.architecture,
            layout,
            num_classes=num_classes or network.num_classes,
            in_channels=in_channels or network.in_channels,
        )
    except InvalidData as error:
        raise InvalidData(f"{pretrained.source or 'pretrained weights'}: {error}") from None
    return load_pretrained(network, replace(pretrained, tensors=whole, layout="trifold", ordered=False), seed=seed)


def whole_network(
    pretrained: Pretrained, architecture: Architecture | None = None, numerics: Numerics | None = None
) -> Network:
    """The network that a file holds, with the file's numbers of classes and channels, in evaluation mode.

    architecture, numerics: where the file does not say them; others than it says are refused.

    Raises InvalidInput if they are needed; InvalidData if the file does not hold the whole of the network.
    """
    source = pretrained.source or "pretrained weights"
    if architecture is None and pretrained.architecture is None:
        raise InvalidInput(f"{source}: does not say of which network it is: name it (--architecture)")
    if architecture is not None and pretrained.architecture not in (None, architecture):
        raise InvalidInput(f"{source}: is of another network than {architecture.name}")
    own = pretrained.architecture or architecture
    assert own is not None
    try:
        told = numerics_of(pretrained, own)
        num_classes, in_channels = sizes(pretrained, own)
    except InvalidInput as error:
        raise InvalidData(f"{source}: {error}") from None
    if told is None and numerics is None:
        raise InvalidInput(
            f"{source}: does not say which numerics its weights need: paper (timm's networks called tf_) or torch"
        )
    with torch.device("meta"):
        network = build(
            own, num_classes=num_classes, in_channels=in_channels or 3, numerics=numerics or told or PAPER_NUMERICS
        )
    loaded = load_pretrained(network, pretrained)
    for what, names in (("is missing", loaded.initial), ("has no place in this network", loaded.unused)):
        if names:
            raise InvalidData(f"{source}: tensor {printable(names[0])!r:.200} {what}")
    return network.eval()


def _found(
    pretrained: Pretrained, architecture: Architecture, target: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The file's tensors that have a name of ours, by it and with our axes, and the names of the others."""
    tensors = pretrained.tensors
    if pretrained.ordered:
        places = _places_by_order(tensors, architecture, target)
        return {places[name]: tensor for name, tensor in tensors.items() if name in places}, [
            name for name in tensors if name not in places
        ]
    known = spots(architecture, layout_of(pretrained, architecture))
    found = {known[name].name: in_our_order(tensors[name], known[name], name) for name in tensors if name in known}
    return found, [name for name in tensors if name not in known]


def _places_by_order(
    tensors: Mapping[str, Tensor], architecture: Architecture, target: Mapping[str, Tensor]
) -> dict[str, str]:
    """The file's name -> our name of each tensor, by their order; head and classifier only where their shapes fit.

    A network cut short has its head where a longer file's next stage begins.
    """
    order = weights.names(architecture, "timm")
    return {
        theirs: ours
        for (theirs, tensor), ours in zip(tensors.items(), order, strict=False)
        if ours in target and (_in_body(ours) or tensor.shape == target[ours].shape)
    }


def _in_body(name: str) -> bool:
    return row_of(name) not in ("head", "classifier")


def _carry_stem(found: dict[str, Tensor], in_channels: int) -> bool:
    """Adapts the stem's kernels to a number of channels, in place, and says whether that was needed."""
    name = "stem.conv.weight"
    if name not in found or found[name].ndim != 4 or found[name].shape[1] == in_channels:
        return False
    kernels = found[name].float()
    have = kernels.shape[1]
    if in_channels == 1:
        found[name] = kernels.sum(1, keepdim=True)
    else:
        found[name] = kernels[:, torch.arange(in_channels) % have] * (have / in_channels)
    return True


def _check_body(found: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Raises InvalidData naming the first tensor of stem or stages that has another shape than the network's."""
    for name, tensor in found.items():
        if _in_body(name) and tensor.shape != target[name].shape:
            raise InvalidData(
                f"tensor {name} must have shape {tuple(target[name].shape)} to fit the network, "
                f"got {tuple(tensor.shape)}"
            )


def _check_depth(
    found: Mapping[str, Tensor], target: Mapping[str, Tensor], *, used: Iterable[str], unused: Sequence[str]
) -> None:
    """Raises InvalidData if the file lacks a tensor before its last, or a stage of it has more than the network's."""
    body = [name for name in target if _in_body(name)]
    last = max((place for place, name in enumerate(body) if name in found), default=-1)
    absent = [name for name in body[:last] if name not in found]
    if absent:
        raise InvalidData(f"tensor {absent[0]} is absent though later ones are there: a stage has another depth")
    stages = {matched[matched.lastindex or 0] for name in used if (matched := _STAGE.match(name))}
    extra = [name for name in unused if (matched := _STAGE.match(name)) and matched[matched.lastindex or 0] in stages]
    if extra:
        raise InvalidData(f"tensor {printable(extra[0])} has no place in the network: a stage has another depth")
