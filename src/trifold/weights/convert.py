"""State dicts of other libraries under our names and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from trifold.architecture import Architecture
from trifold.errors import InvalidData
from trifold.weights.layouts import Slot, slots

COUNTER = "num_batches_tracked"
"""Batch norm's step counter, which nothing here reads: left out of files, ignored in state dicts."""


def check_shapes(shapes: Mapping[str, tuple[int, ...]], expected: Iterable[Slot], source: str) -> None:
    """Raises InvalidData naming the first tensor that is missing, extra or of another shape, and how many are."""
    layout = {slot.name: slot.shape for slot in expected}
    problems = {
        "is missing": [name for name in layout if name not in shapes],
        "has no place in this network": [name for name in shapes if name not in layout],
    }
    for what, names in problems.items():
        if names:
            others = f" (as are {len(names) - 1} more)" if what == "is missing" and names[1:] else ""
            raise InvalidData(f"{source}: tensor {names[0]!r:.200} {what}{others}")
    for name, shape in layout.items():
        if tuple(shapes[name]) != shape:
            raise InvalidData(f"{source}: tensor {name} must have shape {shape}, got {tuple(shapes[name])}")


def imported(
    state_dict: Mapping[str, Tensor],
    architecture: Architecture,
    layout: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> dict[str, Tensor]:
    """A state dict in a layout under our names, for `Network.load_state_dict`; tensors are shared, not copied.

    Raises InvalidData naming a tensor that is missing, extra or of another shape; InvalidInput if the layout is not
    known or its library has no class for such a network.
    """
    theirs, ours = _both(architecture, layout, num_classes, in_channels)
    kept = _kept(state_dict, theirs, f"{layout}'s state dict")
    return {
        one.name: kept[other.name].permute(other.order) if other.order else kept[other.name]
        for one, other in zip(ours, theirs, strict=True)
    }


def exported(
    state_dict: Mapping[str, Tensor],
    architecture: Architecture,
    layout: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> dict[str, Tensor]:
    """Our state dict in a layout; errors as in `imported`."""
    theirs, ours = _both(architecture, layout, num_classes, in_channels)
    kept = _kept(state_dict, ours, "state dict")
    return {
        other.name: kept[one.name].permute(_inverse(other.order)) if other.order else kept[one.name]
        for one, other in zip(ours, theirs, strict=True)
    }


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _both(architecture: Architecture, layout: str, num_classes: int, in_channels: int) -> tuple[list[Slot], list[Slot]]:
    """The network's tensors in the layout and in ours."""
    theirs, ours = (
        slots(architecture, own, num_classes=num_classes, in_channels=in_channels) for own in (layout, "trifold")
    )
    return theirs, ours


def _kept(state_dict: Mapping[str, Tensor], expected: Sequence[Slot], source: str) -> dict[str, Tensor]:
    """The tensors without step counters. Raises InvalidData unless they are those expected."""
    kept = {name: tensor for name, tensor in state_dict.items() if not name.endswith(f".{COUNTER}")}
    check_shapes({name: tuple(tensor.shape) for name, tensor in kept.items()}, expected, source)
    return kept
