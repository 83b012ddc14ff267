"""Pretrained weights read from a file of any kind that holds them, without knowing the network they are for.

An .npz names its arrays `<index>_<anything>`, the index counted from 0 in the
order of timm's state dict without batch norm's step counters; it may end early.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trifold import weights
from trifold.architecture import Architecture
from trifold.data.decode import printable
from trifold.errors import InvalidData, InvalidInput
from trifold.network import Numerics
from trifold.train.folder import WEIGHTS

_READ_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    SafetensorError,
)
"""What torch, numpy and safetensors raise on damaged files."""

_WRAPPERS = ("state_dict", "model")
"""Keys under which checkpoints of other trainers hold the state dict."""

_INDEXED = re.compile(r"([0-9]{1,6})_.+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """The tensors of a weights file, not yet fitted to a network.

    tensors: on the CPU, by the file's own names; source: the file's path as errors show it;
    digest: its SHA-256; description: what it holds, one line.
    ordered: the names say nothing, the tensors are in the order of timm's state dict.
    architecture, numerics, mean and std (of pixel values in [0, 1]): where the file says so, else None.
    """

    tensors: Mapping[str, Tensor]
    description: str
    source: str = ""
    digest: str = ""
    ordered: bool = False
    architecture: Architecture | None = None
    numerics: Numerics | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def pretrained(path: str | Path) -> Pretrained:
    """The tensors of a run folder or of a .safetensors, .npz, .pth, .pt or .bin file.

    Nothing in a file is run: pickles are read as tensors and plain values only.

    Raises InvalidData if the file is absent, cut short, of another kind, without tensors, or holds a value that is not
    a finite number.
    """
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise InvalidData(f"{printable(path)}: " + (f"has no {WEIGHTS}" if path.is_dir() else "no such file"))
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise InvalidData(f"{printable(file)}: a weights file must end in {', '.join(_READERS)}")
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise InvalidData(f"{printable(file)}: cannot be read: {error.strerror}") from None
    try:
        found = replace(reader(file), source=printable(file), digest=digest)
        _check_finite(found.tensors)
    except InvalidInput as error:
        raise InvalidData(f"{printable(file)}: {printable(str(error).removeprefix(f'{file}: '))}") from None
    except pickle.UnpicklingError:
        raise InvalidData(f"{printable(file)}: holds other things than tensors; a state dict is needed") from None
    except _READ_ERRORS:  # whose own texts speak of the reader's options
        kind = file.suffix.lower()
        raise InvalidData(f"{printable(file)}: not a {kind} file with tensors, or cut short or damaged") from None
    return found


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises InvalidData if there are no tensors or one has a value that is not a finite number."""
    if not tensors:
        raise InvalidData("holds no tensors")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InvalidData(f"tensor {name!r:.200} holds values that are not finite numbers")


def _read_safetensors(path: Path) -> Pretrained:
    """One of our own files, or another's in the same format."""
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        if "trifold" not in metadata:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            return Pretrained(tensors=_bare(tensors), description=f"{len(tensors)} tensors")
    network, own = weights.load(path)
    mean, std = _scale(own.get("preprocessing", ""))
    return Pretrained(
        tensors=_bare(network.state_dict()),
        description=f"{network.architecture.name}, {network.num_classes} classes, saved by trifold",
        architecture=network.architecture,
        numerics=network.numerics,
        mean=mean,
        std=std,
    )


def _scale(text: str) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and standard deviation of a run's preprocessing, or None where the file was not written by a run."""
    if not text:
        return None, None
    preprocessing = json.loads(text)
    return tuple(map(float, preprocessing["mean"])), tuple(map(float, preprocessing["std"]))


def _read_torch(path: Path) -> Pretrained:
    """A state dict that torch saved, bare or under one of _WRAPPERS."""
    with warnings.catch_warnings():  # of an unusual pickle protocol: either it is read or it is refused
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise InvalidData(f"must hold a state dict, got {type(content).__name__}")
    tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    return Pretrained(tensors=_bare(tensors), description=f"{len(tensors)} tensors")


def _read_npz(path: Path) -> Pretrained:
    """Arrays in the order of timm's state dict."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        numbers = {}
        for name in arrays.files:
            matched = _INDEXED.fullmatch(name)
            if matched is None:
                raise InvalidData(f"array names must have the form <index>_<name>, got {name!r:.200}")
            numbers[name] = int(matched[1])
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise InvalidData(f"array indices must be 0 to {len(numbers) - 1}, each once")
        ordered = sorted(numbers, key=numbers.__getitem__)
        tensors = {name: torch.from_numpy(arrays[name]) for name in ordered}
    return Pretrained(tensors=tensors, description=f"{len(tensors)} arrays in timm's order", ordered=True)


_READERS: dict[str, Callable[[Path], Pretrained]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
}


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without step counters, and without the "module." that data-parallel training puts before names."""
    named = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in named.items() if name.rpartition(".")[2] != weights.COUNTER}
