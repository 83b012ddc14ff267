"""A run's log: one typed JSON object a line, written and read here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trifold.data.decode import printable
from trifold.errors import InvalidData
from trifold.train.loop import Epoch


class LogWriter:
    """Appends entries to a new log; every entry is on its way to the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write(self, kind: str, entry: dict[str, Any]) -> None:
        """Writes one entry; its "type" stands first."""
        self.file.write(json.dumps({"type": kind, **entry}) + "\n")
        self.file.flush()

    def write_epoch(self, epoch: Epoch) -> None:
        """Writes one epoch."""
        self.write("epoch", asdict(epoch))

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *error: object) -> None:
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
