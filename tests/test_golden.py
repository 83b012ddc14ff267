"""A tiny seeded training, with compiled kernels and without, whose stored losses are met to the last bit on the torch
and instructions that made them.

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
from trifold.kernels import instruction_set, using
from trifold.train.log import read_log
from trifold.train.machine import Machine
from trifold.train.recipes import find_recipe
from trifold.train.record import Plan
from trifold.train.run import train

GOLDEN = {kernels: Path(__file__).parent / "golden" / f"tiny-kernels-{kernels}.json" for kernels in ("off", "best")}
"""By what the kernels are asked to be."""
TOLERANCE = 1e-3
"""Relative, on other versions or instructions."""


def trained_losses(kernels: str) -> dict[str, list[float]]:
    """The losses of two epochs with most of what a recipe can do: of each step, and of minival after each epoch.

    kernels: as for `using`.
    """
    whole = open_digits()
    recipe = replace(
        find_recipe("small", TINY), epochs=2, batch_size=32, accumulate=2, ema_decay=0.9, clip_norm=1.0, drop_rate=0.2,
        drop_path_rate=0.2, label_smoothing=0.1, balance="sampler",
    )  # fmt: skip
    architecture = replace(TINY, stages=(replace(TINY.stages[0], layers=2),))  # so that there is a path to drop
    with tempfile.TemporaryDirectory() as folder, using(kernels):
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


def made_by(kernels: str) -> dict[str, str]:
    """What the last bits depend on."""
    instructions = torch.backends.cpu.get_cpu_capability()
    with using(kernels):
        used = instruction_set()
    return {"torch": torch.__version__.partition("+")[0], "instructions": instructions, "kernels": used}


def golden_text(losses: dict[str, list[float]], made: dict[str, str]) -> str:
    """The file's text: losses as hexadecimal floats, which hold every bit."""
    stored = {name: [value.hex() for value in values] for name, values in losses.items()}
    return json.dumps({**made, **stored}, indent=2) + "\n"


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
def losses() -> dict[str, dict[str, list[float]]]:
    return {kernels: trained_losses(kernels) for kernels in GOLDEN}


@pytest.mark.parametrize("kernels", GOLDEN)
def test_the_losses_are_the_stored_ones(kernels: str, losses: dict[str, dict[str, list[float]]]) -> None:
    golden = json.loads(GOLDEN[kernels].read_text(encoding="utf-8"))
    assert differing(golden, losses[kernels], made_by(kernels)) == []
    assert len(golden["steps"]) == 2 * 7  # 211 training images in batches of about 32


def test_kernels_change_last_bits_and_nothing_else(losses: dict[str, dict[str, list[float]]]) -> None:
    golden = {"off": [value.hex() for value in losses["off"]["steps"]]}
    assert made_by("best")["kernels"] == "off" or losses["best"] != losses["off"]
    assert (
        differing({**made_by("off"), "steps": golden["off"]}, {"steps": losses["best"]["steps"]}, {"torch": ""}) == []
    )


def test_one_bit_is_seen_on_the_same_machine_and_a_thousandth_elsewhere(
    losses: dict[str, dict[str, list[float]]],
) -> None:
    found, here = losses["off"], made_by("off")
    golden = json.loads(golden_text(found, here))
    values = found["steps"]
    nearly = {**found, "steps": [values[0] * (1 + 2**-50), *values[1:]]}
    off = {**found, "steps": [values[0] * (1 + 2 * TOLERANCE), *values[1:]]}
    fewer = {**found, "steps": values[1:]}
    elsewhere = {**here, "instructions": "others"}
    assert differing(golden, found, here) == differing(golden, nearly, elsewhere) == []
    assert [text.partition(":")[0] for text in differing(golden, nearly, here)] == ["steps 1"]
    assert [text.partition(":")[0] for text in differing(golden, off, elsewhere)] == ["steps 1"]
    assert differing(golden, fewer, here)[0] == f"steps: {len(values) - 1} in place of {len(values)}"
