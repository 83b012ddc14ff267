"""Weight files: a network saved with its own description, and state dicts of timm and torchvision mapped both ways.

A file is safetensors. Its header holds, as text: `trifold` (the layout's version), `architecture`, `numerics`,
`num_classes`, `in_channels`, `global_pool` (each as JSON) and whatever metadata the caller gave.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trifold.architecture import Architecture, Block, from_dict, to_dict
from trifold.cost import Convolution, convolutions
from trifold.errors import InvalidData, InvalidInput
from trifold.network import Network, Numerics, build

LAYOUT = "1"
RESERVED = ("format", "trifold", "architecture", "numerics", "num_classes", "in_channels", "global_pool")
COUNTER = "num_batches_tracked"
"""Batch norm's step counter, which nothing here reads: left out of files, ignored in state dicts."""


class Place(NamedTuple):
    """One convolution (or the classifier) of a network, by what is needed to name it.

    position: of its block within the stage, from 0; flat: within all stages; part: which of the block's convolutions
    with batch norm it is, from 0; unit: which of its convolutions and squeeze-excites.
    roles: of the block's convolutions with batch norm, the shortcut left out.
    """

    block: Block
    convolution: Convolution
    position: int
    flat: int
    part: int
    unit: int
    roles: tuple[str, ...]
    last_stage: int


Names = tuple[str, str]
"""A convolution's module and its batch norm's; the second is "" where it has a bias instead."""


def _places(architecture: Architecture, *, num_classes: int, in_channels: int) -> Iterator[Place]:
    """Every convolution of the network in the order in which it runs."""
    position, flat, stage = 0, -1, 0
    last = len(architecture.stages) + 1
    for block in architecture.blocks(num_classes=num_classes, in_channels=in_channels):
        position = position + 1 if block.stage == stage else 0
        stage = block.stage
        flat += 0 < stage < last
        spelled = convolutions(block)
        roles = tuple(c.role for c in spelled if not c.bias and c.role != "shortcut")
        part = unit = 0
        for convolution in spelled:
            yield Place(block, convolution, position, flat, part, unit, roles, last)
            part += not convolution.bias
            unit += convolution.role != "reduce"  # reduce and excite are one unit


def _trifold(place: Place) -> Names:
    """The names of `trifold.network`."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "classifier", ""
    if block.stage in (0, place.last_stage):
        prefix = "head" if block.stage else "stem"
    else:
        prefix = f"stages.{block.stage - 1}.{place.position}."
        if place.convolution.bias:
            return f"{prefix}squeeze_excite.{role}", ""
        prefix += "spatial_2" if role == "spatial" and place.roles[: place.part].count("spatial") else role
    return f"{prefix}.conv", f"{prefix}.norm"


_TIMM_BLOCKS: dict[tuple[str, ...], tuple[Names, ...]] = {
    ("expand", "depthwise", "project"): (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    ("depthwise", "project"): (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    ("expand", "project"): (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
    ("spatial",): (("conv", "bn1"),),
}
"""timm's names of a block's convolutions by their roles (timm/models/_efficientnet_blocks.py)."""


def _timm(place: Place) -> Names:
    """timm's names in its EfficientNet, MobileNet and MnasNet classes."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "classifier", ""
    if block.stage == 0:
        return "conv_stem", "bn1"
    if block.stage == place.last_stage:
        return "conv_head", "bn2"
    prefix = f"blocks.{block.stage - 1}.{place.position}."
    if place.convolution.bias:
        return f"{prefix}se.conv_{'reduce' if role == 'reduce' else 'expand'}", ""
    convolution, norm = _TIMM_BLOCKS[place.roles][place.part]
    return prefix + convolution, prefix + norm


def _resnet(place: Place) -> Names:
    """The names of ResNets, equal in timm and torchvision; squeeze-excite as timm has it."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "fc", ""
    if block.stage == 0:
        return "conv1", "bn1"
    prefix = f"layer{block.stage}.{place.position}."
    if place.convolution.bias:
        return f"{prefix}se.{'fc1' if role == 'reduce' else 'fc2'}", ""
    if role == "shortcut":
        return f"{prefix}downsample.0", f"{prefix}downsample.1"
    return f"{prefix}conv{place.part + 1}", f"{prefix}bn{place.part + 1}"


def _torchvision(place: Place) -> Names:
    """torchvision's names in its EfficientNet class."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "classifier.1", ""
    if block.stage in (0, place.last_stage):
        prefix = f"features.{block.stage}"
    else:
        prefix = f"features.{block.stage}.{place.position}.block.{place.unit}"
    if place.convolution.bias:
        return f"{prefix}.{'fc1' if role == 'reduce' else 'fc2'}", ""
    return f"{prefix}.0", f"{prefix}.1"


def _torchvision_mobilenet(place: Place) -> Names:
    """torchvision's names in its MobileNetV2 class, which numbers blocks through and leaves the projection bare."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "classifier.1", ""
    if block.stage == 0:
        return "features.0.0", "features.0.1"
    if block.stage == place.last_stage:
        return f"features.{place.flat + 2}.0", f"features.{place.flat + 2}.1"
    prefix = f"features.{place.flat + 1}.conv."
    if role == "project":
        return f"{prefix}{place.part}", f"{prefix}{place.part + 1}"
    return f"{prefix}{place.part}.0", f"{prefix}{place.part}.1"


def _timm_scheme(architecture: Architecture) -> Callable[[Place], Names]:
    """How timm names an architecture's tensors. Raises InvalidInput if it has no class for such a network."""
    operators = {stage.operator for stage in architecture.stages}
    if operators <= {"mbconv", "separable", "fused_mbconv", "conv"}:
        return _timm
    if operators <= {"basic", "bottleneck"} and not architecture.head.channels:
        return _resnet
    raise InvalidInput(f"architecture {architecture.name}: timm has no network of {', '.join(sorted(operators))}")


def _torchvision_scheme(architecture: Architecture) -> Callable[[Place], Names]:
    """How torchvision names an architecture's tensors: MBConv throughout without squeeze-excite is its MobileNetV2.

    Raises InvalidInput if it has no class for such a network.
    """
    operators = {stage.operator for stage in architecture.stages}
    squeezed = any(stage.se_ratio for stage in architecture.stages)
    if operators == {"mbconv"} and not squeezed:
        return _torchvision_mobilenet
    if operators <= {"mbconv", "fused_mbconv"}:
        return _torchvision
    if operators <= {"basic", "bottleneck"} and not squeezed and not architecture.head.channels:
        return _resnet
    described = ", ".join(sorted(operators)) + (" with squeeze-excite" if squeezed else "")
    raise InvalidInput(f"architecture {architecture.name}: torchvision has no network of {described}")


def _tensors(place: Place, names: Names) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor of a convolution and its batch norm, in torch's order."""
    role, inputs, outputs, kernel_size, groups, _, bias = place.convolution
    kernel = (outputs, inputs) if role == "linear" else (outputs, inputs // groups, kernel_size, kernel_size)
    convolution, norm = names
    yield f"{convolution}.weight", kernel
    if bias:
        yield f"{convolution}.bias", (outputs,)
        return
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        yield f"{norm}.{tensor}", (outputs,)


def _layout(
    architecture: Architecture, scheme: Callable[[Place], Names], num_classes: int, in_channels: int
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor under a naming scheme; equal places in equal order whatever the scheme."""
    places = _places(architecture, num_classes=num_classes, in_channels=in_channels)
    return {name: shape for place in places for name, shape in _tensors(place, scheme(place))}


def _check(shapes: Mapping[str, tuple[int, ...]], layout: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raises InvalidData naming the first tensor that is missing, extra or of another shape, and how many are."""
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


def _renamed(
    state_dict: Mapping[str, Tensor], source: dict[str, tuple[int, ...]], target: dict[str, tuple[int, ...]], who: str
) -> dict[str, Tensor]:
    """The tensors of a state dict laid out as source, under the names of target."""
    kept = {name: tensor for name, tensor in state_dict.items() if not name.endswith(f".{COUNTER}")}
    _check({name: tuple(tensor.shape) for name, tensor in kept.items()}, source, who)
    return {new: kept[old] for old, new in zip(source, target, strict=True)}


def timm_names(architecture: Architecture, *, num_classes: int = 1000) -> dict[str, str]:
    """Our name -> timm's name of every tensor, batch norm's step counters left out.

    Raises InvalidInput if timm has no class for such a network.
    """
    scheme = _timm_scheme(architecture)
    layouts = (_layout(architecture, names, num_classes, 3) for names in (_trifold, scheme))
    return dict(zip(*layouts, strict=True))


def torchvision_names(architecture: Architecture, *, num_classes: int = 1000) -> dict[str, str]:
    """Our name -> torchvision's name of every tensor, batch norm's step counters left out.

    Raises InvalidInput if torchvision has no class for such a network.
    """
    scheme = _torchvision_scheme(architecture)
    layouts = (_layout(architecture, names, num_classes, 3) for names in (_trifold, scheme))
    return dict(zip(*layouts, strict=True))


def from_timm(
    state_dict: Mapping[str, Tensor], architecture: Architecture, *, num_classes: int = 1000, in_channels: int = 3
) -> dict[str, Tensor]:
    """timm's state dict under our names, for `Network.load_state_dict`; the tensors are shared, not copied.

    Raises InvalidData naming a tensor that is missing, extra or of another shape; InvalidInput if timm has no class
    for such a network.
    """
    theirs = _layout(architecture, _timm_scheme(architecture), num_classes, in_channels)
    return _renamed(state_dict, theirs, _layout(architecture, _trifold, num_classes, in_channels), "timm's state dict")


def to_timm(
    state_dict: Mapping[str, Tensor], architecture: Architecture, *, num_classes: int = 1000, in_channels: int = 3
) -> dict[str, Tensor]:
    """Our state dict under timm's names; errors as in `from_timm`."""
    theirs = _layout(architecture, _timm_scheme(architecture), num_classes, in_channels)
    return _renamed(state_dict, _layout(architecture, _trifold, num_classes, in_channels), theirs, "state dict")


def from_torchvision(
    state_dict: Mapping[str, Tensor], architecture: Architecture, *, num_classes: int = 1000, in_channels: int = 3
) -> dict[str, Tensor]:
    """torchvision's state dict under our names; errors as in `from_timm`."""
    theirs = _layout(architecture, _torchvision_scheme(architecture), num_classes, in_channels)
    ours = _layout(architecture, _trifold, num_classes, in_channels)
    return _renamed(state_dict, theirs, ours, "torchvision's state dict")


def to_torchvision(
    state_dict: Mapping[str, Tensor], architecture: Architecture, *, num_classes: int = 1000, in_channels: int = 3
) -> dict[str, Tensor]:
    """Our state dict under torchvision's names; errors as in `from_timm`."""
    theirs = _layout(architecture, _torchvision_scheme(architecture), num_classes, in_channels)
    return _renamed(state_dict, _layout(architecture, _trifold, num_classes, in_channels), theirs, "state dict")


class _Description(NamedTuple):
    """What a weight file says of its network."""

    architecture: Architecture
    numerics: Numerics
    num_classes: int
    in_channels: int
    global_pool: str


def header(network: Network) -> dict[str, str]:
    """The texts by which a weight file describes its network, under the names in RESERVED."""
    description: dict[str, Any] = {
        "architecture": to_dict(network.architecture),
        "numerics": asdict(network.numerics),
        "num_classes": network.num_classes,
        "in_channels": network.in_channels,
        "global_pool": network.global_pool,
    }
    texts = {name: json.dumps(value, separators=(",", ":")) for name, value in description.items()}
    return {"format": "pt", "trifold": LAYOUT} | texts


def save(path: str | Path, network: Network, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a network's tensors and description to a file that appears whole or not at all.

    metadata: the caller's own texts, given back by `load`; names that the file itself uses are refused. Up to 8 KiB of
    it stay within the bound of `cost.file_bytes`.

    Raises InvalidInput if metadata are not texts, use a reserved name, or the file cannot be written.
    """
    path = Path(path)
    own = dict(metadata or {})
    for name, text in own.items():
        if name in RESERVED:
            raise InvalidInput(f"metadata name {name!r} is used by the file itself, as are {', '.join(RESERVED)}")
        if not isinstance(name, str) or not isinstance(text, str):
            raise InvalidInput(f"metadata must hold texts, got {name!r:.60}: {text!r:.60}")
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
        if not name.endswith(f".{COUNTER}")
    }
    _write(path, tensors, header(network) | own)


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes under a temporary name beside the file, waits until that is on the disk, then gives it its name."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask gives; save_file replaces the file by a private one
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(mode)
        _synchronise(temporary)
        temporary.replace(path)
        _synchronise(path.parent)
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"{path}: cannot be written: {_line(error)}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _synchronise(path: Path) -> None:
    """Returns when a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(error: Exception) -> str:
    """An error's text as one short line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:300]


def _description(metadata: Mapping[str, str]) -> _Description:
    """The description in a file's header. Raises ValueError or TypeError if it is absent or breaks a rule."""
    absent = [name for name in RESERVED if name != "format" and name not in metadata]
    if absent:
        raise InvalidData(f"not written by trifold: its header has no {absent[0]!r}")
    if metadata["trifold"] != LAYOUT:
        raise InvalidData(f"layout {metadata['trifold']!r:.20} is not known; this version of trifold reads {LAYOUT}")
    return _Description(
        architecture=from_dict(json.loads(metadata["architecture"])),
        numerics=Numerics(**json.loads(metadata["numerics"])),
        num_classes=json.loads(metadata["num_classes"]),
        in_channels=json.loads(metadata["in_channels"]),
        global_pool=json.loads(metadata["global_pool"]),
    )


def load(path: str | Path) -> tuple[Network, dict[str, str]]:
    """The network in a file that `save` wrote, on the CPU in evaluation mode, and the caller's metadata.

    Tensors keep the floating-point type they were saved in. Raises InvalidData if the file is absent, truncated, not
    one of trifold's, or its tensors are not those of its architecture.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidData(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            described = _description(metadata)
            layout = _layout(described.architecture, _trifold, described.num_classes, described.in_channels)
            names = list(file.keys())
            _check({name: tuple(file.get_slice(name).get_shape()) for name in names}, layout, "weight file")
            tensors = {name: file.get_tensor(name).clone() for name in names}
        with torch.device("meta"):
            network = build(
                described.architecture,
                num_classes=described.num_classes,
                in_channels=described.in_channels,
                numerics=described.numerics,
                global_pool=described.global_pool,
            )
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise InvalidData(f"{path}: {_line(error)}") from None
    network.load_state_dict(tensors, assign=True)
    return network.eval(), {name: text for name, text in metadata.items() if name not in RESERVED}
