"""The record of a run: what was asked, which gives its id, and what came of it; JSON both ways."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trifold.architecture import Architecture, to_dict
from trifold.data.decode import printable
from trifold.errors import InvalidData
from trifold.train.evaluate import Evaluation
from trifold.train.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked of a run, beside the data.

    seed: of weights, order and augmentation. split_seed: of the split. seconds: the wall time that the epochs are
    planned to fill, in place of the recipe's number of epochs; 0: the recipe's. weights: digest of the pretrained
    weights that the network begins with, or "". find_lr: whether the rate is found by a range test at the start, in
    place of the recipe's.
    """

    architecture: Architecture
    recipe: Recipe
    seed: int = 0
    split_seed: int = 0
    seconds: float = 0.0
    weights: str = ""
    find_lr: bool = False

    def __post_init__(self) -> None:
        for name in ("seed", "split_seed"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < 2**31:
                raise InvalidData(f"{name} must be a whole number from 0 to 2^31 - 1, got {value!r}")
        if not 0 <= self.seconds <= 10**8:
            raise InvalidData(f"seconds must be a number from 0 to 10^8, got {self.seconds!r}")


def asked(plan: Plan, fingerprint: str) -> dict[str, Any]:
    """Everything that a run's result depends on, as plain values; fingerprint is the dataset's."""
    return {
        "architecture": to_dict(plan.architecture),
        "recipe": plan.recipe.to_dict(),
        "data": fingerprint,
        "seed": plan.seed,
        "split_seed": plan.split_seed,
        "seconds": plan.seconds,
        "weights": plan.weights,
        "find_lr": plan.find_lr,
    }


def run_id(asked: Mapping[str, Any]) -> str:
    """16 hex digits that change with anything that was asked, of a run or of a study."""
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a run.

    data: as the user named it; note: what must be known about its images.
    images: number of train, minival and test images. skipped: the reason for each bad image left out.
    cost: parameters, multiply_adds and activations of the network with this data's classes and channels.
    epoch: whose weights were kept, chosen on minival. minival_accuracy: at that epoch, in [0, 1].
    test: counts on test, looked at once. nearest: three nearest neighbours by pixel distance on the same split.
    quality: top-1, top-5, per class, calibration on test (`metrics.Quality`).
    seconds: wall time of the training's steps and evaluations, over all sittings. waiting: share of the steps' time, in
    [0, 1], in which images were fetched and augmented. epochs: how many were trained.
    computed: threads, processes, device and versions that the bits depend on, and what was decided at the start.
    versions: of Python and the packages that compute.
    scaling: how the architecture came about (budget, phi …), or empty. loaded: what pretrained weights gave, or empty.
    """

    data: str
    note: str
    images: dict[str, int]
    skipped: tuple[str, ...]
    cost: dict[str, int]
    epoch: int
    minival_accuracy: float
    test: Evaluation
    nearest: Evaluation
    quality: dict[str, Any]
    seconds: float
    waiting: float
    epochs: int
    computed: dict[str, Any]
    versions: dict[str, str]
    scaling: dict[str, Any]
    loaded: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One finished run.

    source: of its data, what `data.sources.open_data` opens from anywhere: a built-in name or an absolute path; "" if
    not known. used: sorted digests of the train and minival samples; empty if not known (older records).
    """

    id: str
    asked: dict[str, Any]
    result: Result
    source: str = ""
    used: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """Share of correct test images, in [0, 1]."""
        return self.result.test.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain values to show, with the figures that follow from the counts spelled out; without source and used."""
        result = asdict(self.result)
        for name, counts in (("test", self.result.test), ("nearest", self.result.nearest)):
            result[name] |= {
                "accuracy": counts.accuracy,
                "interval": list(counts.interval),
                "correct": counts.correct,
                "total": counts.total,
                "per_class": counts.per_class,
            }
        result["num_skipped"] = len(self.result.skipped)
        return {"id": self.id, "asked": self.asked, "result": result}


def _evaluation(data: Mapping[str, Any]) -> Evaluation:
    return Evaluation(classes=tuple(data["classes"]), confusion=tuple(tuple(row) for row in data["confusion"]))


def read_record(path: str | Path) -> Record:
    """The record in a file that write_record wrote. Raises InvalidData if it cannot be read or a field is missing."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        result = {name: data["result"][name] for name in Result.__dataclass_fields__}
        result |= {"test": _evaluation(result["test"]), "nearest": _evaluation(result["nearest"])}
        return Record(
            id=data["id"],
            asked=dict(data["asked"]),
            result=Result(**{**result, "skipped": tuple(result["skipped"])}),
            source=str(data.get("source", "")),
            used=tuple(data.get("used", ())),
        )
    except OSError as error:
        raise InvalidData(f"{printable(path)}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidData(f"{printable(path)}: not a run's record: {printable(error)}") from None


def write_record(path: Path, record: Record) -> None:
    """Writes the record as JSON; the file appears whole or not at all."""
    data = {**record.to_dict(), "source": record.source, "used": record.used}
    write_atomic(path, json.dumps(data, indent=2) + "\n")


def write_atomic(path: Path, text: str) -> None:
    """Writes a text file under a temporary name, synced, then renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
