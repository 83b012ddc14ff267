"""EfficientNet-B4's real tensors, loaded by our reader, against timm's activations of the panda, and used wrongly."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

RESULTS = Path(__file__).parent.parent / "results" / "real_b4"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_b4_distances", RESULTS / "distances.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MADE_BY: Any = script()
RECORDED = json.loads((RESULTS / "table.json").read_text())["activations"]


@pytest.fixture(scope="module")
def reference(data_dir: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = MADE_BY.reference_of(data_dir)
    return found


def distances(data_dir: Path, reference: dict[str, Tensor], name: str) -> dict[str, float]:
    numerics, scale, channels = MADE_BY.SETTINGS[name]
    found: dict[str, float] = MADE_BY.distances(MADE_BY.network_of(data_dir, numerics), reference, scale, channels)
    return found


def test_every_stored_array_is_met_to_1e_5(data_dir: Path, reference: dict[str, Tensor]) -> None:
    found = distances(data_dir, reference, "right")
    assert len(found) == 47  # mean and std after the stem and 22 blocks, and the last output whole
    assert max(found.values()) <= 1e-5, found


@pytest.mark.parametrize("name", [name for name in MADE_BY.SETTINGS if name != "right"])
def test_nothing_used_wrongly_meets_it_and_all_are_as_far_away_as_recorded(
    data_dir: Path, reference: dict[str, Tensor], name: str
) -> None:
    found = distances(data_dir, reference, name)
    # Already the stem's own statistics differ where padding or input is wrong; epsilon's difference grows from there.
    assert min(found.values()) > 5e-5
    assert max(found.values()) > 1e-1
    assert found["block21_output"] > 5e-2
    assert max(found.values()) == pytest.approx(RECORDED[name]["most"], rel=0.01)
    assert min(found.values()) == pytest.approx(RECORDED[name]["least"], rel=0.05)
    assert found["block21_output"] == pytest.approx(RECORDED[name]["block21_output"], rel=0.01)


def test_the_recorded_bar_leaves_four_orders_between_right_and_wrong() -> None:
    assert list(RECORDED) == list(MADE_BY.SETTINGS)
    wrong = [row["median"] for name, row in RECORDED.items() if name != "right"]
    assert RECORDED["right"]["most"] < 1e-6
    assert min(wrong) > 1e4 * RECORDED["right"]["most"]
