"""The run folder: the names of its files, which run it holds, and making room for another."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from trifold.data.decode import printable
from trifold.errors import InvalidData
from trifold.train.record import Record, read_record

logger = logging.getLogger(__name__)

ARCHITECTURE, WEIGHTS, LOG, RECORD = "architecture.toml", "weights.safetensors", "log.jsonl", "record.json"
CURVES, CONFUSION = "curves.png", "confusion.png"
FILES = (RECORD, WEIGHTS, ARCHITECTURE, CURVES, CONFUSION, LOG)
"""What a run folder holds. The log is begun first, names the run and is deleted last; the record is written last."""


class OtherRun(InvalidData):
    """The folder holds a run of another id than the one asked for."""


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


def make_folder(folder: Path) -> None:
    """Makes the folder where it is absent. Raises InvalidData if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidData(f"{printable(folder)}: cannot be made a run folder: {error.strerror}") from None


def clear(folder: Path) -> None:
    """Deletes a run's files; others stay. Raises InvalidData if one cannot be. Only after `finished_run` allowed it."""
    for name in FILES:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise InvalidData(f"{printable(folder / name)}: cannot be deleted: {error.strerror}") from None


def _names(folder: Path) -> set[str]:
    """What lies in the folder; nothing if it is absent. Raises InvalidData if it is a file or cannot be read."""
    if folder.exists() and not folder.is_dir():
        raise InvalidData(f"{printable(folder)}: is a file; a run needs a folder")
    try:
        held = {path.name for path in folder.iterdir()} if folder.exists() else set()
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
