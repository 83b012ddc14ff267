"""Checkpoints: written whole or not at all, the last two kept, read back only if every byte is as it was written."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from trifold.data.decode import printable
from trifold.errors import Failed, InvalidData

logger = logging.getLogger(__name__)

_DIGEST_BYTES = 32


class _Interrupted(Exception):
    """A signal's handler raised `reason` within a write."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class _Hashing:
    """A file to write to that also hashes what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash = file, hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self.failed: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Writes and hashes."""
        self.hash.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.failed = error
            raise

    def flush(self) -> None:
        """Flushes the file."""
        self.file.flush()


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint under a temporary name, synced, then renamed; the one before it stays as `previous(path)`.

    state: tensors, numbers, strings, and dicts and lists of them.

    Raises Failed if it cannot be written, a full disk say; the last good one stands. What a signal's handler raises
    meanwhile, of a worker's death say, is raised as it is.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        _write(temporary, state)
        if path.exists():
            path.replace(previous(path))
        temporary.replace(path)
        sync_folder(path.parent)
    except _Interrupted as interrupted:
        temporary.unlink(missing_ok=True)
        raise interrupted.reason from None
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else (str(error).splitlines() or [""])[0]
        raise Failed(
            f"{printable(path)}: cannot be written: {reason}; the last checkpoint stands: make room and give the same "
            "command again"
        ) from None


def _write(path: Path, state: dict[str, Any]) -> None:
    """Writes the state and its digest, and waits until both are on the disk."""
    with path.open("wb") as file:
        hashing = _Hashing(file)
        try:
            torch.save(state, hashing)  # type: ignore[arg-type]  # all that torch calls of a file is write and flush
        except RuntimeError as error:  # torch raises one of its own over the one that says what is wrong
            if hashing.failed is None and isinstance(error.__context__, Exception):
                raise _Interrupted(error.__context__) from None
            raise hashing.failed or error from None
        file.write(hashing.hash.digest())
        file.flush()
        os.fsync(file.fileno())


def previous(path: Path) -> Path:
    """Where the checkpoint before the last one lies."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def sync_folder(folder: Path) -> None:
    """Names given in the folder are on the disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(path: Path) -> dict[str, Any] | None:
    """The last good checkpoint, or None where there is none at all.

    Raises InvalidData if there are some but none is whole.
    """
    damaged = ""
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            state = read(candidate)
        except InvalidData as error:
            damaged = damaged or str(error)
            continue
        if damaged:
            logger.warning("%s; going on from the checkpoint before it, %s", damaged, printable(candidate))
        return state
    if damaged:
        raise InvalidData(f"{damaged}; no older checkpoint is whole: start anew with --overwrite")
    return None


def read(path: Path) -> dict[str, Any]:
    """The state in one checkpoint file. Raises InvalidData if a byte is missing or other than it was written."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidData(f"{printable(path)}: cannot be read: {error.strerror}") from None
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if len(data) <= _DIGEST_BYTES or hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        raise InvalidData(f"{printable(path)}: is damaged or was cut short")
    state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    return state
