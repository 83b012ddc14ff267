"""A finished run and the images that it is looked at with, opened once for all checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from trifold import architecture
from trifold.data.dataset import Dataset, Sample
from trifold.data.decode import printable
from trifold.data.sources import open_data
from trifold.data.split import split
from trifold.doctor.data import check_data
from trifold.doctor.findings import Finding
from trifold.errors import InvalidData
from trifold.train import recipe
from trifold.train.folder import LOG, RECORD
from trifold.train.log import read_epochs, read_log
from trifold.train.loop import Epoch
from trifold.train.record import Plan, Record, read_record
from trifold.train.use import Trained, load_run, trained_on


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the checks of a run look at.

    plan: as asked, with the epochs and the rate that were decided. steps: how many were taken; kept_steps: up to the
    epoch whose weights were kept. own: whether the images are those of the training; then train, minival and test are
    its own parts, else the splits that the source gives, all for a missing train or test, none for a missing minival.
    in_data: what `check_data` finds in the images at the run's resolution.
    """

    trained: Trained
    record: Record
    plan: Plan
    epochs: tuple[Epoch, ...]
    steps: int
    kept_steps: int
    dataset: Dataset
    own: bool
    train: tuple[Sample, ...]
    minival: tuple[Sample, ...]
    test: tuple[Sample, ...]
    in_data: tuple[Finding, ...]


def open_case(run: str | Path, dataset: Dataset | None) -> Case:
    """The run folder with these images, or with those it was trained on.

    Raises InvalidData if the folder holds no finished run, its files do not fit, or its images are gone.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise InvalidData(f"{printable(run)}: must be the folder of a finished run")
    trained, record = load_run(folder), read_record(folder / RECORD)
    if dataset is None:
        dataset = open_data(trained_on(folder), skip_bad=bool(record.result.skipped))
    steps = [entry for entry in read_log(folder / LOG) if entry["type"] == "step"]
    epochs = tuple(read_epochs(folder / LOG))
    if not steps or not epochs:
        raise InvalidData(f"{printable(folder / LOG)}: must hold the steps and epochs of a finished run, got none")
    own = dataset.fingerprint == trained.fingerprint
    train, minival, test = _parts(dataset, trained, own=own)
    return Case(
        trained=trained,
        record=record,
        plan=_plan(record),
        epochs=epochs,
        steps=len(steps),
        kept_steps=sum(entry["epoch"] <= record.result.epoch for entry in steps),
        dataset=dataset,
        own=own,
        train=train,
        minival=minival,
        test=test,
        in_data=check_data(dataset, resolution=trained.preprocessing.resolution),
    )


def _plan(record: Record) -> Plan:
    """What was asked, as a value. Raises InvalidInput if a field is missing or does not fit."""
    asked = record.asked
    missing = [
        name for name in ("architecture", "recipe", "seed", "split_seed", "seconds", "weights") if name not in asked
    ]
    if missing:
        raise InvalidData(f"record {record.id}: what was asked must have the field {missing[0]!r}; the run is too old")
    recipe_asked, decided = recipe.from_dict(asked["recipe"]), record.result.computed
    epochs = int(decided.get("epochs", recipe_asked.epochs))
    rate = float(decided.get("lr", recipe_asked.highest_lr))
    return Plan(
        architecture=architecture.from_dict(asked["architecture"]),
        recipe=replace(recipe_asked, epochs=epochs, lr=rate, lr_batch=0),
        seed=asked["seed"],
        split_seed=asked["split_seed"],
        seconds=asked["seconds"],
        weights=asked["weights"],
        find_lr=asked.get("find_lr", False),  # which older records do not have
    )


def _parts(
    dataset: Dataset, trained: Trained, *, own: bool
) -> tuple[tuple[Sample, ...], tuple[Sample, ...], tuple[Sample, ...]]:
    samples = dataset.samples
    if own:
        parts = split(dataset, seed=trained.split_seed)
        train, minival, test = (tuple(samples[i] for i in part) for part in parts)
        return train, minival, test
    given = {name: tuple(s for s in samples if s.split == name) for name in ("train", "minival", "test")}
    return given["train"] or samples, given["minival"], given["test"] or samples
