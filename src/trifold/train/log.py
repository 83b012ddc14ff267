"""A run's log: one typed JSON object a line, written and read here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trifold.data.decode import printable
from trifold.errors import Failed, InvalidData
from trifold.train.loop import Epoch


class LogWriter:
    """Appends entries to a log, a new one or the first `keep` bytes of an old one.

    An entry has left the process when `write` returns.

    Raises Failed where it cannot be written, a full disk say; InvalidData if the old one is shorter than `keep`.
    """

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        self.path = path
        with self._named():
            self.file = path.open("ab")
            length = path.stat().st_size
            if length < keep:
                self.file.close()
                raise InvalidData(
                    f"{printable(path)}: has {length} bytes, fewer than the {keep} of the checkpoint beside it; start "
                    "anew with --overwrite"
                )
            self.file.truncate(keep)

    def write(self, kind: str, entry: dict[str, Any]) -> None:
        """Writes one entry; its "type" stands first."""
        with self._named():
            self.file.write((json.dumps({"type": kind, **entry}) + "\n").encode())
            self.file.flush()

    def synced(self) -> int:
        """The log's length in bytes, all of them on the disk."""
        with self._named():
            os.fsync(self.file.fileno())
            return os.fstat(self.file.fileno()).st_size

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Failed(f"{printable(self.path)}: cannot be written: {error.strerror}") from None

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # what a full disk did not take has been said already
            self.file.close()


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Every entry of a log. Raises InvalidData naming file and line where it is not a typed JSON object."""
    entries = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidData(f"{printable(path)}: cannot be read: {printable(error)}") from None
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or "type" not in entry:
            raise InvalidData(f"{printable(path)}: line {number} must be a JSON object with a type, got {line!r:.60}")
        entries.append(entry)
    return entries


def read_epochs(path: str | Path) -> list[Epoch]:
    """The epochs of a log. Raises InvalidData as read_log does, or if an epoch's fields do not fit."""
    build: Callable[..., Epoch] = Epoch
    try:
        return [
            build(**{name: value for name, value in entry.items() if name != "type"})
            for entry in read_log(path)
            if entry["type"] == "epoch"
        ]
    except TypeError as error:
        raise InvalidData(f"{printable(path)}: an epoch's fields do not fit: {error}") from None
