"""A network, a recipe and data small enough to train in seconds; test modules import the fixtures by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trifold.architecture import Architecture, Head, Stage, Stem
from trifold.data.dataset import Dataset
from trifold.data.digits import open_digits
from trifold.train.recipes import find_recipe
from trifold.train.record import Plan, Record
from trifold.train.run import train

TINY = Architecture(
    name="tiny",
    resolution=8,
    stem=Stem(channels=8, stride=1),
    stages=(Stage(operator="mbconv", channels=8, stride=2, expand_ratio=2, se_ratio=0.25),),
    head=Head(channels=16),
)
QUICK = replace(find_recipe("small", TINY), epochs=2, batch_size=32, drop_path_rate=0.1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Every sixth of the digits: 300, some 30 a class."""
    whole = open_digits()
    return replace(whole, samples=whole.samples[::6])


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(architecture=TINY, recipe=QUICK)


@pytest.fixture(scope="module")
def finished(digits: Dataset, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, train(digits, plan, run_folder=folder)
