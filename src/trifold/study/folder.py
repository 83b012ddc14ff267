"""A study's folder: what was asked, what came of each training, and the page; the last two can be made again."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import optuna

from trifold.data.decode import printable
from trifold.errors import InvalidData, InvalidInput
from trifold.train.record import write_atomic
from trifold.trials import Job, Storage, Trained, open_study

STUDY, RECORDS, PAGE = "study.json", "records.jsonl", "report.html"
"""What was asked; a line a training; the page that is made of both."""

TRIALS = "trials.db"
"""Optuna's storage where none is named: SQLite."""


class Kept(NamedTuple):
    """What a study's folder holds.

    question: the study's. about: plain values that no score depends on: the data's name, the command.
    """

    question: dict[str, Any]
    about: dict[str, Any]
    found: dict[Job, Trained]


def open_in(
    folder: Path, storage: Storage, question: Mapping[str, Any], *, pruner: optuna.pruners.BasePruner | None = None
) -> optuna.Study:
    """Makes the folder and opens the study, as `trials.open_study` does; where that refuses, no new folder is left."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return open_study(storage, question, pruner=pruner)
    except InvalidInput:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def write_study(folder: Path, question: Mapping[str, Any], about: Mapping[str, Any], *, renewed: bool = False) -> None:
    """Makes the folder and writes what is asked, unless that stands there; renewed: `about` is written all the same.

    Raises InvalidData if it holds another study, or cannot be made.
    """
    plain = json.loads(json.dumps(question))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STUDY).exists():
            if _study(folder)["question"] != plain:
                raise InvalidData(f"{printable(folder)}: holds a study that asks something else; give another --out")
            if not renewed:
                return
        write_atomic(folder / STUDY, json.dumps({"question": plain, "about": about}, indent=1) + "\n")
    except OSError as error:
        raise InvalidData(f"{printable(folder)}: cannot be made a study's folder: {error.strerror}") from None


def write_records(folder: Path, found: Mapping[Job, Trained], name: str = RECORDS) -> None:
    """Writes a line a training, in the order of candidates and seeds; never fewer than stand there."""
    with contextlib.suppress(OSError):
        if len((folder / name).read_text(encoding="utf-8").splitlines()) > len(found):
            return  # a worker that knew more was faster
    lines = [
        {
            "candidate": candidate,
            "seed": seed,
            "score": None if one.failed else one.score,
            "stopped": one.stopped,
            "whole": one.whole,
            **({"failed": one.failed} if one.failed else {}),
            "curve": list(one.curve.values()),
            **one.facts,
        }
        for (candidate, seed), one in sorted(found.items())
    ]
    write_atomic(folder / name, "".join(json.dumps(line) + "\n" for line in lines))


def read_study(folder: str | Path) -> Kept:
    """What a study's folder holds. Raises InvalidData naming file, line and what is wrong."""
    folder = Path(folder)
    study = _study(folder)
    return Kept(study["question"], study["about"], read_records(folder))


def read_records(folder: Path, name: str = RECORDS) -> dict[Job, Trained]:
    """The trainings in a file of `write_records`; none where there is no file. Raises InvalidData as `read_study`."""
    found = {}
    text = _text(folder / name) if (folder / name).exists() else ""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            entry = json.loads(line)
            job = int(entry.pop("candidate")), int(entry.pop("seed"))
            failed, score = str(entry.pop("failed", "")), entry.pop("score")
            found[job] = Trained(
                score=math.nan if failed else float(score),
                stopped=int(entry.pop("stopped")),
                whole=bool(entry.pop("whole")),
                curve=dict(enumerate(map(float, entry.pop("curve")), start=1)),
                failed=failed,
                facts=entry,
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InvalidData(
                f"{printable(folder / name)}: line {number} must be a training's record, got {printable(line):.60}"
            ) from None
    return found


def _study(folder: Path) -> dict[str, Any]:
    text = _text(folder / STUDY)
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict) or not {"question", "about"} <= values.keys():
        raise InvalidData(f"{printable(folder / STUDY)}: must hold a study's question, as `trifold` writes it")
    return values


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise InvalidData(f"{printable(path)}: cannot be read: {reason}") from None
