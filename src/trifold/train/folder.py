"""The run folder: the names of its files, which run it holds, and making room for another."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trifold.data.decode import printable
from trifold.errors import Failed, InvalidData, InvalidInput
from trifold.train.record import Record, read_record
from trifold.weights import files

logger = logging.getLogger(__name__)

ARCHITECTURE, WEIGHTS, LOG, RECORD = "architecture.toml", files.NAME, "log.jsonl", "record.json"
RECIPE = "recipe.toml"
CHECKPOINT, LOCK, EVENTS = "checkpoint.pt", ".lock", "tensorboard"
CURVES, CONFUSION, PAGE = "curves.png", "confusion.png", "report.html"
_MAKING = f".{EVENTS}.making"
CHECKPOINTS = (CHECKPOINT, "checkpoint.previous.pt")
FILES = (RECORD, WEIGHTS, ARCHITECTURE, RECIPE, CURVES, CONFUSION, PAGE, *CHECKPOINTS, LOG)
"""What a run folder holds. The log is begun first, names the run and is deleted last; the record is written last.

The checkpoint goes when the record is there. TensorBoard's events lie in a folder of their own.
"""


class OtherRun(InvalidData):
    """The folder holds a run of another id than the one asked for."""


class InUse(InvalidData):
    """Another process writes to the folder."""


def finished_run(folder: Path, wanted: str, *, overwrite: bool) -> Record | None:
    """The finished run of this id that the folder holds, or None where a run may begin; changes nothing.

    overwrite: a run may also begin where this or another run is.

    Raises OtherRun if the folder holds another run; InvalidData if it is no run folder but holds something.
    """
    held = _names(folder)
    begun = _begun_id(folder / LOG)
    if overwrite:
        if begun is None and RECORD in held and not _is_record(folder / RECORD):
            raise _foreign(folder, held)
    elif RECORD in held:
        record = read_record(folder / RECORD)
        _check_id(folder, record.id, wanted)
        if WEIGHTS not in held:
            logger.warning("%s has lost its %s: it is trained anew", printable(folder), WEIGHTS)
            return None
        logger.info("%s holds this run already", printable(folder))
        return record
    elif begun is not None:
        _check_id(folder, begun, wanted)
    if begun is None and RECORD not in held and held and not _is_empty_log(folder, held):
        raise _foreign(folder, held)
    return None


def begun_run(folder: Path, wanted: str) -> tuple[dict[str, Any], int] | None:
    """The start entry of an unfinished run of this id and its length in bytes, or None where there is none."""
    try:
        with (folder / LOG).open("rb") as file:
            line = file.readline()
        entry = json.loads(line)
    except (OSError, ValueError, RecursionError):
        return None
    fits = isinstance(entry, dict) and entry.get("type") == "start" and entry.get("id") == wanted
    fits = fits and {"computed", "decided"} <= entry.keys()
    return (entry, len(line)) if fits and line.endswith(b"\n") else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within it no other process writes to the run folder; the lock goes with the process, however it ends.

    Raises InUse if another process has it, InvalidData if the folder cannot be written to.
    """
    try:
        file = (folder / LOCK).open("a+b", buffering=0)
    except OSError as error:
        raise InvalidData(f"{printable(folder)}: cannot be written to: {error.strerror}; give another folder") from None
    with file:
        try:
            # Not flock, which worker processes inherit: they outlive a killed training by seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            file.seek(0)
            holder = printable(file.read(100).decode(errors="replace").strip()) or "another process"
            raise InUse(
                f"{printable(folder)}: is being written to by {holder}; wait for it, or give another folder"
            ) from None
        except OSError as error:  # a file system without locks
            logger.warning("%s: cannot be locked against a second writer: %s", printable(folder), error.strerror)
        with suppress(OSError):  # a full disk takes no name; the lock holds without one
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
        yield


def in_use(folder: Path) -> bool:
    """Whether another process writes to the run folder. Raises InvalidData if it cannot be written to."""
    if not (folder / LOCK).exists():
        return False
    try:
        with locked(folder):
            return False
    except InUse:
        return True


def make_folder(folder: Path) -> None:
    """Makes the folder where it is absent. Raises InvalidData if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidData(f"{printable(folder)}: cannot be made a run folder: {error.strerror}") from None


def clear(folder: Path, names: Sequence[str] = FILES) -> None:
    """Deletes a run's files; others stay. Raises InvalidData if one cannot be. Only after `finished_run` allowed it."""
    if LOG in names:
        shutil.rmtree(folder / EVENTS, ignore_errors=True)
    for name in names:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise InvalidData(f"{printable(folder / name)}: cannot be deleted: {error.strerror}") from None


def clear_unfinished(folder: Path) -> None:
    """Deletes what a killed writer left under temporary names of a run's files."""
    for name in FILES:
        for path in folder.glob(f".{name}*.tmp"):
            with suppress(OSError):
                path.unlink()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within it a file that cannot be written, for a full disk say, raises Failed with one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except InvalidInput as error:  # from `weights.save`
        if "cannot be written" not in str(error):
            raise
        reason = str(error).rpartition("cannot be written: ")[2]
    else:
        return
    raise Failed(
        f"{printable(folder)}: cannot be written to: {reason}; what was saved stands: make room and give the same "
        "command again"
    ) from None


def _names(folder: Path) -> set[str]:
    """What lies in the folder; nothing if it is absent. Raises InvalidData if it is a file or cannot be read."""
    if folder.exists() and not folder.is_dir():
        raise InvalidData(f"{printable(folder)}: is a file; a run needs a folder")
    try:
        held = {path.name for path in folder.iterdir()} if folder.exists() else set()
        held = {
            name
            for name in held
            if name not in (LOCK, _MAKING) and not (name.startswith(".") and name.endswith(".tmp"))
        }
    except OSError as error:
        raise InvalidData(f"{printable(folder)}: cannot be read: {error.strerror}") from None
    for name in sorted(held & set(FILES)):
        if (folder / name).is_dir():
            raise InvalidData(f"{printable(folder)}: is not a run folder: its {name} is a folder; give a new one")
    return held


def _begun_id(log: Path) -> str | None:
    """The id in a log's first line, or None; the rest, which a killed run may have cut short, is not looked at."""
    try:
        with log.open(encoding="utf-8") as file:
            entry = json.loads(file.readline(2**24))
    except (OSError, ValueError, RecursionError):
        return None
    named = isinstance(entry, dict) and entry.get("type") == "start" and isinstance(entry.get("id"), str)
    return str(entry["id"]) if named else None


def _is_record(path: Path) -> bool:
    try:
        read_record(path)
    except InvalidData:
        return False
    return True


def _is_empty_log(folder: Path, held: set[str]) -> bool:
    """Whether the folder is that of a run killed before its first line."""
    return held == {LOG} and (folder / LOG).stat().st_size == 0


def _foreign(folder: Path, held: set[str]) -> InvalidData:
    named = sorted(held - set(FILES)) or sorted(held)
    return InvalidData(f"{printable(folder)}: is not a run folder: it holds {printable(named[0])!r}; give a new one")


def _check_id(folder: Path, held: str, wanted: str) -> None:
    if held != wanted:
        raise OtherRun(
            f"{printable(folder)}: holds run {printable(held)}, but asked is run {wanted} (network, recipe, data or "
            "seed differ); give another folder, or replace it with --overwrite"
        )
