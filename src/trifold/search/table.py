"""Evaluation by looking up: a table of candidates and what was measured of each, as tabular benchmarks publish."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trifold.errors import InvalidInput
from trifold.search.asking import Allowed
from trifold.search.space import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What is known of each candidate: numbers by name. A value that was not measured is absent.

    sizes: options of each decision. Raises InvalidInput for an empty table, tokens out of range or a value that is not
    finite.
    """

    sizes: tuple[int, ...]
    rows: Mapping[Tokens, Mapping[str, float]]

    def __post_init__(self) -> None:
        if not self.rows:
            raise InvalidInput("table must hold at least one candidate, got none")
        for tokens, values in self.rows.items():
            if len(tokens) != len(self.sizes) or any(
                not 0 <= token < size for token, size in zip(tokens, self.sizes, strict=True)
            ):
                raise InvalidInput(f"table: tokens must be {len(self.sizes)} indices below {self.sizes}, got {tokens}")
            for name, value in values.items():
                if not math.isfinite(value):
                    raise InvalidInput(f"table: {name} of {tokens} must be a finite number, got {value}")

    def evaluate(self, tokens: Tokens, *names: str) -> dict[str, float]:
        """These values of a candidate; no names: all it has. Raises InvalidInput where one was not measured."""
        held = self.rows.get(tokens)
        if held is None:
            raise InvalidInput(f"table: candidate {tokens} is not in it")
        for name in names:
            if name not in held:
                raise InvalidInput(f"table: {name} of candidate {tokens} was not measured")
        return {name: held[name] for name in names or held}

    def allowed(self, *names: str) -> Allowed:
        """Which candidates have all these values: what a sampler may propose."""

        def measured(tokens: Tokens) -> bool:
            held = self.rows.get(tokens)
            return held is not None and all(name in held for name in names)

        return measured

    def column(self, name: str) -> list[float]:
        """The named value of every candidate that has it, in the table's order."""
        return [held[name] for held in self.rows.values() if name in held]


def read_csv(path: str | Path, *columns: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header, or of one compressed by gzip (`.gz`), as text by column.

    Raises InvalidInput naming the file if it cannot be read, lacks one of these columns, or a row is cut short.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            reader = csv.DictReader(file)
            fields = reader.fieldnames or ()
            absent = [name for name in columns if name not in fields]
            if absent:
                raise InvalidInput(f"{path}: columns must include {', '.join(columns)}; {absent[0]!r} is not there")
            for row in reader:
                if None in row or None in row.values():
                    raise InvalidInput(f"{path}, line {reader.line_num}: must have {len(fields)} fields")
                yield row
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise InvalidInput(f"{path}: cannot be read: {reason}") from None


def number(row: Mapping[str, str], column: str) -> float:
    """A cell as a number. Raises InvalidInput naming the column and the text if it is none, or not finite."""
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInput(f"{column} must be a finite number, got {row[column]!r}")
    return value
