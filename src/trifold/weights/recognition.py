"""Whose names the tensors of a weights file have, and what follows from that for a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from trifold.architecture import Architecture
from trifold.errors import InvalidData, InvalidInput
from trifold.layers import PAPER_NUMERICS, TORCH_NUMERICS, Numerics
from trifold.weight_sets import WEIGHT_SETS
from trifold.weights.contents import Pretrained
from trifold.weights.layouts import LAYOUTS, Slot, slots

_LUKEMELAS = Numerics(bn_eps=1e-3, bn_momentum=0.01, padding="same_static")


def layout_of(pretrained: Pretrained, architecture: Architecture) -> str:
    """The layout that the file says it has, else that in which the most of its tensors have a place.

    Raises InvalidInput if the library of the layout that the file says has no class for such a network.
    """
    if pretrained.layout:
        LAYOUTS[pretrained.layout][0](architecture)
        return pretrained.layout
    if pretrained.ordered:
        return "timm"
    fitting = {}
    for layout in LAYOUTS:
        try:
            fitting[layout] = sum(slot.name in pretrained.tensors for slot in slots(architecture, layout))
        except InvalidInput:
            continue
    return max(fitting, key=fitting.__getitem__)


def spots(architecture: Architecture, layout: str) -> dict[str, Slot]:
    """A layout's name of each tensor -> our name of it and the order of its axes that gives ours; errors as `slots`.

    The shapes are those of some network of the architecture, its number of classes and channels left aside.
    """
    ours, theirs = (slots(architecture, own) for own in ("trifold", layout))
    return {other.name: Slot(one.name, one.shape, other.order) for one, other in zip(ours, theirs, strict=True)}


def in_our_order(tensor: Tensor, slot: Slot, name: str) -> Tensor:
    """The tensor with its axes as ours. Raises InvalidData if it has not so many."""
    if not slot.order:
        return tensor
    if tensor.ndim != len(slot.order):
        raise InvalidData(f"tensor {name} must have {len(slot.order)} axes, got shape {tuple(tensor.shape)}")
    return tensor.permute(slot.order)


def sizes(pretrained: Pretrained, architecture: Architecture) -> tuple[int, int]:
    """The classes and the channels of images that a file's tensors are for; 0 where it has no such tensor.

    Errors as `layout_of`.
    """
    layout = layout_of(pretrained, architecture)
    stem, *_, kernel, _ = slots(architecture, layout, num_classes=1)
    if pretrained.ordered:
        tensors = dict(
            zip((slot.name for slot in slots(architecture, layout)), pretrained.tensors.values(), strict=False)
        )
    else:
        tensors = dict(pretrained.tensors)
    return size(tensors, kernel, ours=0), size(tensors, stem, ours=1)


def size(tensors: Mapping[str, Tensor], slot: Slot, *, ours: int) -> int:
    """The length of a tensor's axis, counted in our layout; 0 if it is not there or has other axes."""
    tensor = tensors.get(slot.name)
    if tensor is None or tensor.ndim != len(slot.shape):
        return 0
    return tensor.shape[slot.order[ours] if slot.order else ours]


def numerics_of(pretrained: Pretrained, architecture: Architecture) -> Numerics | None:
    """What a file's weights need to be computed with, as far as the file or its library's own networks say.

    None for a state dict under our names, and under timm's where it has the same network with and without `tf_`.
    Errors as `layout_of`.
    """
    if pretrained.numerics is not None:
        return pretrained.numerics
    layout = layout_of(pretrained, architecture)
    if layout in ("timm", "torchvision"):
        return _published(architecture.name, layout, TORCH_NUMERICS)
    return {"trifold": None, "lukemelas": _LUKEMELAS}.get(layout, PAPER_NUMERICS)


def _published(architecture: str, layout: str, default: Numerics) -> Numerics | None:
    """The numerics of an architecture's public weights in a layout, the default without any, None if they differ."""
    found = {
        (one.bn_eps, one.padding): Numerics(bn_eps=one.bn_eps, bn_momentum=one.bn_momentum, padding=one.padding)
        for one in WEIGHT_SETS
        if (one.architecture, one.layout) == (architecture, layout)
    }
    if len(found) > 1:
        return None
    return next(iter(found.values()), default)
