"""Pretrained weights read from a file of any kind that holds them, without knowing the network they are for.

An .npz names its arrays as one of the layouts does, or `<index>_<anything>`, the index counted from 0 in the order of
timm's state dict without batch norm's step counters; it may then end early.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trifold.data.decode import printable
from trifold.errors import InvalidData, InvalidInput
from trifold.weights import bounds, files
from trifold.weights.archive import read_archive
from trifold.weights.contents import Pretrained, Stamp
from trifold.weights.convert import COUNTER
from trifold.weights.keras_files import read_h5, read_keras
from trifold.weights.tensorflow_files import INDEX, index_of, parts_of, read_checkpoint

__all__ = ["Pretrained", "pretrained"]

_READ_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    MemoryError,
    ArithmeticError,
    AssertionError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    SafetensorError,
)
"""What torch, numpy, safetensors and zipfile raise on damaged files, and ours of what another process said of one."""

_WRAPPERS = ("state_dict", "model")
"""Keys under which checkpoints of other trainers hold the state dict."""

_INDEXED = re.compile(r"([0-9]{1,6})_.+")

_STEMS = frozenset(
    {
        "stem.conv.weight",  # ours
        "conv_stem.weight",  # timm
        "conv1.weight",  # ResNets
        "features.0.0.weight",  # torchvision
        "_conv_stem.weight",  # lukemelas
        "stem_conv/kernel",
        "conv2d/kernel",
        "stem/conv2d/kernel",  # tensorflow
    }
)
"""What the first tensor is called in each layout."""

_ZIP = b"PK\x03\x04"


def pretrained(path: str | Path) -> Pretrained:
    """The tensors of a run folder, a file of a kind in READERS, or a TensorFlow checkpoint (prefix, index or folder).

    Nothing in a file is run: pickles are read as tensors and plain values only, of Keras' models only the arrays.

    Raises InvalidData if the file is absent, cut short, of another kind, without tensors, says that it holds far more
    than it can, or holds a value that is not a finite number.
    """
    path = Path(path)
    try:
        file = index_of(path) or (path / files.NAME if path.is_dir() else path)
        if not file.is_file():
            raise InvalidData(f"has no {files.NAME}" if path.is_dir() else "no such file")
        kind = file.suffix.lower()
        if kind not in READERS:
            raise InvalidData(f"a weights file must end in {', '.join(READERS)}")
    except (InvalidData, OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InvalidData(f"{printable(path)}: {_short(error, path)}") from None
    try:
        stamps = tuple(Stamp.of(part) for part in (parts_of(file) if kind == INDEX else [file]))
        found = replace(READERS[kind](file), source=printable(file), files=stamps)
        _check_numbers(found.tensors)
    except InvalidInput as error:
        raise InvalidData(f"{printable(file)}: {_short(error, file)}") from None
    except pickle.UnpicklingError:
        raise InvalidData(f"{printable(file)}: holds other things than tensors; a state dict is needed") from None
    except PermissionError as error:
        raise InvalidData(f"{printable(file)}: cannot be read: {error.strerror}") from None
    except _READ_ERRORS:  # whose own texts speak of the reader's options
        raise InvalidData(f"{printable(file)}: not a {kind} file with tensors, or cut short or damaged") from None
    return found


def _short(error: Exception, path: Path) -> str:
    """An error's text on one line, without the path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(text.removeprefix(f"{path}: "))[:1000]


def _check_numbers(tensors: Mapping[str, Tensor]) -> None:
    """Raises InvalidData if there are no tensors or one has a value that is not a finite number."""
    if not tensors:
        raise InvalidData("holds no tensors")
    for name, tensor in tensors.items():
        # The sum is a tenth of the work; where it is not finite, that may be for its size alone.
        if not (math.isfinite(tensor.sum()) or tensor.isfinite().all()):
            raise InvalidData(f"tensor {name!r:.200} holds values that are not finite numbers")


def _read_safetensors(path: Path) -> Pretrained:
    """One of our own files, or another's in the same format."""
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        if "trifold" not in metadata:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            return Pretrained(tensors=_bare(tensors), description=f"{len(tensors)} tensors")
    network, own = files.load(path)
    mean, std = _scale(own.get("preprocessing", ""))
    return Pretrained(
        tensors=_bare(network.state_dict()),
        description=f"{network.architecture.name}, {network.num_classes} classes, saved by trifold",
        layout="trifold",
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
    """A state dict that torch saved, bare or under one of _WRAPPERS.

    A zip file is mapped into memory, not read: torch then checks that a tensor lies within it, and else does not
    (torch/csrc/jit/python/init.cpp, get_storage_from_record).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        zipped = file.read(len(_ZIP)) == _ZIP
    if zipped:
        with zipfile.ZipFile(path) as archive:
            bounds.members(archive, size, stored=True)
    with warnings.catch_warnings():  # of unusual and of damaged pickles: either they are read or they are refused
        warnings.simplefilter("ignore")
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise InvalidData(f"must hold a state dict, got {type(content).__name__}")
    tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    for name, tensor in tensors.items():
        _check_dense(name, tensor)
    bounds.check(sum(tensor.nbytes for tensor in tensors.values()), size)
    return Pretrained(tensors=_bare(tensors), description=f"{len(tensors)} tensors")


def _check_dense(name: str, tensor: Tensor) -> None:
    """Raises InvalidData unless every number of a tensor is in memory, one after the other or transposed."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not dense or tensor.nbytes > tensor.untyped_storage().nbytes():
        raise InvalidData(f"tensor {name!r:.200} must hold all its numbers, got one that is sparse, repeated or empty")


def _read_npz(path: Path) -> Pretrained:
    """Arrays in the order of timm's state dict, or by the names of a layout."""
    with zipfile.ZipFile(path) as archive:
        members = bounds.members(archive, path.stat().st_size)
        infos = {name.removesuffix(".npy"): info for name, info in members.items()}
        if _STEMS & infos.keys():
            tensors = {name: _array(archive, info) for name, info in infos.items()}
            return Pretrained(tensors=_bare(tensors), description=f"{len(tensors)} arrays")
        tensors = {name: _array(archive, infos[name]) for name in _in_order(infos)}
    return Pretrained(tensors=tensors, description=f"{len(tensors)} arrays in timm's order", ordered=True)


def _in_order(names: Mapping[str, Any]) -> list[str]:
    """Names by their indices. Raises InvalidData if one has none, or they are not 0 to the last."""
    numbers = {}
    for name in names:
        matched = _INDEXED.fullmatch(name)
        if matched is None:
            raise InvalidData(f"array names must have the form <index>_<name>, got {name!r:.200}")
        numbers[name] = int(matched[1])
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise InvalidData(f"array indices must be 0 to {len(numbers) - 1}, each once")
    return sorted(numbers, key=numbers.__getitem__)


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    """The array in a member, whose own header must agree with the member's size. Raises ValueError if it does not."""
    with archive.open(info) as file:
        version = npy.read_magic(file)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, by_columns, dtype = read_header(file)
        if dtype.kind not in "fiu" or min(shape, default=0) < 0:
            raise ValueError(f"an array of {dtype}")
        content = bytearray(math.prod(shape) * dtype.itemsize)
        whole = len(content) == info.file_size - file.tell()
        if not whole or file.readinto(content) != len(content) or file.read(1):  # type: ignore[attr-defined]
            raise ValueError("an array of another size than its member's")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")
    return torch.from_numpy(array.astype(dtype.newbyteorder("="), order="C", copy=False))


READERS: dict[str, Callable[[Path], Pretrained]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
    ".h5": read_h5,
    ".hdf5": read_h5,
    ".keras": read_keras,
    INDEX: read_checkpoint,
    ".gz": read_archive,
}
"""By the end of a file's name."""


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without step counters, and without the "module." that data-parallel training puts before names."""
    named = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in named.items() if name.rpartition(".")[2] != COUNTER}
