"""The rows of an architecture's Table 1 add up to its cost."""

from __future__ import annotations

import pytest

from trifold.baselines import find, list_models
from trifold.cost import cost
from trifold.stages import stage_rows


@pytest.mark.parametrize("name", list_models())
def test_rows_add_up_to_the_whole(name: str) -> None:
    architecture = find(name)
    rows, whole = (
        stage_rows(architecture, num_classes=10, in_channels=1),
        cost(architecture, num_classes=10, in_channels=1),
    )
    assert sum(row.parameters for row in rows) == whole.parameters
    assert sum(row.multiply_adds for row in rows) == whole.multiply_adds
    assert sum(row.activations for row in rows) == whole.activations
    assert [row.stage for row in rows] == list(range(1, len(rows) + 1))


def test_b0_has_the_papers_operators_and_resolutions() -> None:
    rows = stage_rows(find("efficientnet_b0"))
    assert [row.operator for row in rows][:4] == [
        "conv, k3x3",
        "MBConv1, k3x3, SE",
        "MBConv6, k3x3, SE",
        "MBConv6, k5x5, SE",
    ]
    assert [row.resolution for row in rows] == [224, 112, 112, 56, 28, 14, 14, 7, 7, 1]
    assert [row.layers for row in rows] == [1, 1, 2, 2, 3, 3, 4, 1, 1, 1]
