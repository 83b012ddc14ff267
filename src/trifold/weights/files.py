"""A network saved with its own description: one safetensors file.

Its header holds, as text: `trifold` (the layout's version), `architecture`, `numerics`, `num_classes`, `in_channels`,
`global_pool` (each as JSON) and whatever metadata the caller gave.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trifold.architecture import Architecture, from_dict, to_dict
from trifold.errors import InvalidData, InvalidInput
from trifold.network import Network, Numerics, build
from trifold.weights.convert import COUNTER, check_shapes
from trifold.weights.layouts import slots

NAME = "weights.safetensors"
"""What such a file is called in a folder of its own."""

LAYOUT = "1"
RESERVED = ("format", "trifold", "architecture", "numerics", "num_classes", "in_channels", "global_pool")


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
            layout = slots(
                described.architecture,
                "trifold",
                num_classes=described.num_classes,
                in_channels=described.in_channels,
            )
            names = list(file.keys())
            check_shapes({name: tuple(file.get_slice(name).get_shape()) for name in names}, layout, "weight file")
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
