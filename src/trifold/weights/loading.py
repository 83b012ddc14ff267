"""Pretrained weights put into a network: those of our own, timm's and torchvision's, whole or in part.

Whose they are is told by their names; see `trifold.weights.readers` for the files.
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
from trifold.network import Network
from trifold.weights.convert import imported
from trifold.weights.layouts import Slot, row_of, slots
from trifold.weights.readers import Pretrained, pretrained

__all__ = ["Loaded", "Pretrained", "load_pretrained", "load_whole", "pretrained"]

_STAGE = re.compile(r"((?:stages\.|blocks\.|features\.|layer)[0-9]+\.)[0-9]+\.")
"""How names of our own, timm and torchvision begin where they say stage and block."""


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


def load_pretrained(network: Network, pretrained: Pretrained) -> Loaded:
    """Copies every tensor whose name and shape fit into the network, and tells what was and what was not.

    Head and classifier may have other shapes than the file's and then stay as they are; so do stages after the file's
    last. A stem of another number of channels is summed for one channel, which gives the output that equal channels
    would; for other numbers its kernels are taken round and round and scaled by the ratio, as timm does: equal channels
    give what they gave where the number is a multiple.

    Raises InvalidData, with the network unchanged, if nothing before the classifier fits, a tensor of the stem or the
    stages has another shape, or a stage has another depth.
    """
    target = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(weights.COUNTER)}
    try:
        places = _places(pretrained, network.architecture, target)
        found = {ours: pretrained.tensors[theirs] for theirs, ours in places.items()}
        unused = [name for name in pretrained.tensors if name not in places]
        adapted = _carry_stem(found, network.in_channels)
        _check_body(found, target)
        fitting = {name: tensor for name, tensor in found.items() if tensor.shape == target[name].shape}
        if all(row_of(name) == "classifier" for name in fitting):
            first = f", first {printable(next(iter(pretrained.tensors)))!r:.200}"
            raise InvalidData(
                f"none of its {len(pretrained.tensors)} tensors{first} belongs before the classifier of "
                f"{network.architecture.name}, by its names here, in timm or in torchvision"
            )
        _check_depth(found, target, used=places, unused=unused)
    except InvalidData as error:
        raise InvalidData(f"{pretrained.source or 'pretrained weights'}: {error}") from None
    with torch.no_grad():
        for name, tensor in fitting.items():
            target[name].copy_(tensor)
    return Loaded(
        loaded=tuple(name for name in target if name in fitting),
        initial=tuple(name for name in target if name not in fitting),
        unused=(*(name for name in found if name not in fitting), *unused),
        adapted=adapted,
    )


def load_whole(network: Network, pretrained: Pretrained, layout: str) -> Loaded:
    """As `load_pretrained`, of a file that must hold the whole network in a layout: nothing missing, nothing more.

    Another number of classes leaves the classifier at its initialisation; a network without one takes the rest.

    Raises InvalidData naming the first tensor that is missing, extra or of another shape, with the network unchanged;
    InvalidInput as `imported`.
    """
    stem, *_, kernel, _ = slots(network.architecture, layout, num_classes=1)
    tensors = pretrained.tensors
    try:
        whole = imported(
            tensors,
            network.architecture,
            layout,
            num_classes=_size(tensors, kernel, ours=0) or network.num_classes,
            in_channels=_size(tensors, stem, ours=1) or network.in_channels,
        )
    except InvalidData as error:
        raise InvalidData(f"{pretrained.source or 'pretrained weights'}: {error}") from None
    return load_pretrained(network, replace(pretrained, tensors=whole, ordered=False))


def _size(tensors: Mapping[str, Tensor], slot: Slot, *, ours: int) -> int:
    """The length of a tensor's axis, counted in our layout; 0 if it is not there or has other axes."""
    tensor = tensors.get(slot.name)
    if tensor is None or tensor.ndim != len(slot.shape):
        return 0
    return tensor.shape[slot.order[ours] if slot.order else ours]


def _schemes(architecture: Architecture) -> list[dict[str, str]]:
    """Their name -> our name of every tensor: timm's and torchvision's, where they have a network of such operators."""
    schemes = []
    for layout in ("timm", "torchvision"):
        try:
            schemes.append({theirs: ours for ours, theirs in weights.names(architecture, layout).items()})
        except InvalidInput:
            continue
    return schemes


def _places(pretrained: Pretrained, architecture: Architecture, target: Mapping[str, Tensor]) -> dict[str, str]:
    """The file's name -> our name of each of its tensors that has a place in the network.

    Where several families of names fit, that with the most tensors.
    """
    tensors = pretrained.tensors
    if pretrained.ordered:
        return _places_by_order(tensors, architecture, target)
    schemes = [{name: name for name in target}, *_schemes(architecture)]
    ours = max(schemes, key=lambda scheme: sum(name in scheme for name in tensors))
    return {name: ours[name] for name in tensors if ours.get(name) in target}


def _places_by_order(
    tensors: Mapping[str, Tensor], architecture: Architecture, target: Mapping[str, Tensor]
) -> dict[str, str]:
    """As `_places`, by the tensors' order; head and classifier only where their shapes are the network's too.

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
    stages = {matched[1] for name in used if (matched := _STAGE.match(name))}
    extra = [name for name in unused if (matched := _STAGE.match(name)) and matched[1] in stages]
    if extra:
        raise InvalidData(f"tensor {printable(extra[0])} has no place in the network: a stage has another depth")
