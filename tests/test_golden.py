"""A tiny seeded training, whose stored losses are met to the last bit on the torch and instructions that made them.

Where a change is meant to change them, `python tests/golden/make.py` stores them anew.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import TINY
from trifold.data.digits import open_digits
from trifold.train.log import read_log
from trifold.train.machine import Machine
from trifold.train.recipes import find_recipe
from trifold.train.record import Plan
from trifold.train.run import train

GOLDEN = Path(__file__).parent / "golden" / "tiny.json"
TOLERANCE = 1e-3
"""Relative, on other versions or instructions."""


def trained_losses() -> dict[str, list[float]]:
    """The losses of two epochs with most of what a recipe can do: of each step, and of minival after each epoch."""
    whole = open_digits()
    recipe = replace(
        find_recipe("small", TINY), epochs=2, batch_size=32, accumulate=2, ema_decay=0.9, clip_norm=1.0, drop_rate=0.2,
        drop_path_rate=0.2, label_smoothing=0.1, balance="sampler",
    )  # fmt: skip
    architecture = replace(TINY, stages=(replace(TINY.stages[0], layers=2),))  # so that there is a path to drop
    with tempfile.TemporaryDirectory() as folder:
        train(
            replace(whole, samples=whole.samples[::6]),
            Plan(architecture=architecture, recipe=recipe, seed=3),
            run_folder=folder,
            machine=Machine(threads=1, device="cpu", in_memory="yes"),
        )
        entries = read_log(Path(folder) / "log.jsonl")
    return {
        "steps": [entry["loss"] for entry in entries if entry["type"] == "step"],
        "minival": [entry["minival_loss"] for entry in entries if entry["type"] == "epoch"],
    }


def made_by() -> dict[str, str]:
    """What the last bits depend on."""
    return {"torch": torch.__version__.partition("+")[0], "instructions": torch.backends.cpu.get_cpu_capability()}


def golden_text(losses: dict[str, list[float]]) -> str:
    """The file's text: losses as hexadecimal floats, which hold every bit."""
    stored = {name: [value.hex() for value in values] for name, values in losses.items()}
    return json.dumps({**made_by(), **stored}, indent=2) + "\n"


def differing(golden: dict[str, Any], losses: dict[str, list[float]], made: dict[str, str]) -> list[str]:
    """Which losses are not the stored ones: to the last bit where those were made by the same, else by TOLERANCE."""
    same = {name: golden[name] for name in made} == made
    found = []
    for name, values in losses.items():
        stored = [float.fromhex(text) for text in golden[name]]
        if len(stored) != len(values):
            found.append(f"{name}: {len(values)} in place of {len(stored)}")
        for number, (now, then) in enumerate(zip(values, stored, strict=False), start=1):
            if now != (then if same else pytest.approx(then, rel=TOLERANCE)):
                found.append(f"{name} {number}: {now.hex()} in place of {then.hex()}")
    return found


@pytest.fixture(scope="module")
def losses() -> dict[str, list[float]]:
    return trained_losses()


def test_the_losses_are_the_stored_ones(losses: dict[str, list[float]]) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert differing(golden, losses, made_by()) == []
    assert len(golden["steps"]) == 2 * 7  # 211 training images in batches of about 32


def test_one_bit_is_seen_on_the_same_machine_and_a_thousandth_elsewhere(losses: dict[str, list[float]]) -> None:
    golden = json.loads(golden_text(losses))
    values = losses["steps"]
    nearly = {**losses, "steps": [values[0] * (1 + 2**-50), *values[1:]]}
    off = {**losses, "steps": [values[0] * (1 + 2 * TOLERANCE), *values[1:]]}
    fewer = {**losses, "steps": values[1:]}
    elsewhere = {**made_by(), "instructions": "others"}
    assert differing(golden, losses, made_by()) == differing(golden, nearly, elsewhere) == []
    assert [text.partition(":")[0] for text in differing(golden, nearly, made_by())] == ["steps 1"]
    assert [text.partition(":")[0] for text in differing(golden, off, elsewhere)] == ["steps 1"]
    assert differing(golden, fewer, made_by())[0] == f"steps: {len(values) - 1} in place of {len(values)}"
