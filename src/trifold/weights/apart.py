"""Files read in a process of their own, by libraries that a damaged file can make crash, hang or fill the memory.

Of HDF5 1.14.6 that was seen: of 20,000 small files with a few bytes changed some 20 made it run without end, 2 made it
write where it may not. TensorFlow ends the process on what it thinks impossible.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trifold.data.decode import printable
from trifold.errors import InvalidData
from trifold.weights import bounds

_CHILD = Path(__file__).with_name("apart_child.py")

_MAX_LISTING = 64 << 20
"""Bytes of a list of tensors; a network of 10,000 has one of 1 MB."""

_TYPES = {
    name: np.dtype("uint16" if name == "bfloat16" else name)
    for name in (
        *("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
    )
}
"""How an array is held until it is a tensor, by its type's name; the types that torch has."""

_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "OPENBLAS_NUM_THREADS": "1",  # whose threads take memory that nothing here needs
    "OMP_NUM_THREADS": "1",
    "HDF5_USE_FILE_LOCKING": "FALSE",  # a file system may be read-only
    "HDF5_PLUGIN_PRELOAD": "::",  # no compiled filter is loaded, whatever a file asks for
}


class Row(NamedTuple):
    """An array of a file by name. type: numpy's name, or bfloat16, or what the library calls it."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in memory. Raises InvalidData unless it holds plain numbers."""
        if self.type not in _TYPES:
            raise InvalidData(f"array {self.name!r:.200} must hold plain numbers, got {self.type}")
        return prod(self.shape) * _TYPES[self.type].itemsize


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that another process has open. texts: what it says beside its arrays, as the child describes it."""

    rows: tuple[Row, ...]
    texts: dict[str, Any]
    size: int
    _process: subprocess.Popen[bytes]

    def read(self, numbers: Sequence[int]) -> list[Tensor]:
        """The arrays of those rows, once only. Raises InvalidData if they are too large for the file, EOFError."""
        wanted = [self.rows[number] for number in numbers]
        bounds.check(sum(row.bytes for row in wanted), self.size)
        out, back = self._process.stdin, self._process.stdout
        assert out is not None
        assert back is not None
        out.write(json.dumps(list(numbers)).encode() + b"\n")
        out.flush()
        return [_tensor(back, row) for row in wanted]


@contextmanager
def opened(kind: str, path: Path, *, size: int, memory: int, seconds: int) -> Iterator[Opened]:
    """A file opened by a library, of which only what is asked for is read.

    kind: hdf5 or tensorflow. size: bytes that the file takes, by which its arrays are judged. memory: bytes that the
    process may have beside twice the allowance for arrays; seconds: of processor time, beside one for every 4 MB.

    Raises InvalidData if the child refuses the file; EOFError if it broke off, for whatever reason.
    """
    limits = (memory + 2 * bounds.allowance(size), seconds + (size >> 22))
    command = [sys.executable, "-P", str(_CHILD), kind, str(path.absolute()), *map(str, limits)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | _QUIET,
    ) as process:
        try:
            assert process.stdout is not None
            yield _opened(process, json.loads(_listing(process.stdout)), size)
        except BrokenPipeError:
            raise EOFError(f"{path}: the process that read it has ended") from None
        finally:
            process.kill()
            if process.stdin is not None:
                _close(process.stdin)


def _close(pipe: IO[bytes]) -> None:
    """Closes a pipe whose reader may be gone."""
    with suppress(BrokenPipeError):
        pipe.close()


def _opened(process: subprocess.Popen[bytes], listing: dict[str, Any], size: int) -> Opened:
    if "refused" in listing:
        raise InvalidData(printable(listing["refused"]))
    rows = tuple(Row(str(name), str(kind), tuple(map(int, shape))) for name, kind, shape in listing["rows"])
    if any(length < 0 for row in rows for length in row.shape):
        raise EOFError("an array of negative size")
    return Opened(rows, listing["texts"], size, process)


def _listing(pipe: IO[bytes]) -> bytes:
    length = int.from_bytes(_exactly(pipe, bytearray(8)), "little")
    if length > _MAX_LISTING:
        raise InvalidData(f"a list of its arrays takes {length} bytes; allowed are {_MAX_LISTING}")
    return bytes(_exactly(pipe, bytearray(length)))


def _exactly(pipe: IO[bytes], buffer: bytearray | memoryview) -> bytearray | memoryview:
    """The buffer, filled. Raises EOFError."""
    rest = memoryview(buffer)
    while rest:
        count = pipe.readinto(rest)  # type: ignore[attr-defined]  # every binary pipe has it
        if not count:
            raise EOFError("the process that reads the file has ended")
        rest = rest[count:]
    return buffer


def _tensor(pipe: IO[bytes], row: Row) -> Tensor:
    array: np.ndarray[Any, Any] = np.empty(row.shape, _TYPES[row.type])
    _exactly(pipe, array.reshape(-1).view(np.uint8).data)
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if row.type == "bfloat16" else tensor
