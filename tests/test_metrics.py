"""Quality against scikit-learn, torchmetrics and numbers worked by hand."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from torch import Tensor

from trifold.errors import InvalidData
from trifold.train.metrics import Pair, Quality, from_dict, most_confused, quality

HAND = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.05, 0.9, 0.05]])
HAND_LABELS = torch.tensor([0, 1, 1, 1])


def draw(num_images: int, num_classes: int, seed: int = 0) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num_images, num_classes, generator=generator)
    labels = torch.randint(0, num_classes, (num_images,), generator=generator)
    logits[torch.arange(num_images), labels] += 1.5
    return logits.softmax(1), labels, tuple(f"class {i}" for i in range(num_classes))


def their_balanced_accuracy(true: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> float:
    with warnings.catch_warnings():  # a class that is predicted but has no images is left out, as we leave it out
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
        return float(balanced_accuracy_score(true, predicted))


def test_numbers_worked_by_hand() -> None:
    found = quality(HAND, HAND_LABELS, ("a", "b", "c"))
    assert found.loss == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(0.8) + math.log(0.9)) / 4)
    assert found.confusion == ((1, 0, 0), (1, 2, 0), (0, 0, 0))
    assert (found.top1, found.top5, found.total) == (0.75, None, 4)
    assert found.precision == (0.5, 1.0, None)
    assert found.recall == (1.0, 2 / 3, None)
    assert found.f1 == (2 / 3, 0.8, None)
    assert found.macro_f1 == pytest.approx((2 / 3 + 0.8) / 2)
    assert found.balanced_accuracy == pytest.approx(5 / 6)


def test_bins_worked_by_hand() -> None:
    found = quality(HAND, HAND_LABELS, ("a", "b", "c"))
    filled = {i: part for i, part in enumerate(found.bins) if part.count}
    assert list(filled) == [9, 10, 12, 13]  # 0.6 and 0.9 within [9/15, 10/15) and [13/15, 14/15)
    assert [part.confidence for part in filled.values()] == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert [part.accuracy for part in filled.values()] == [0.0, 1.0, 1.0, 1.0]
    assert {part.count for part in filled.values()} == {1}
    assert found.calibration_error == pytest.approx((0.6 + 0.3 + 0.2 + 0.1) / 4)
    assert (found.bins[0].confidence, found.bins[0].accuracy) == (None, None)


@pytest.mark.parametrize(("num_images", "num_classes"), [(500, 2), (400, 5), (300, 6), (60, 40)])
def test_agrees_with_scikit_learn(num_images: int, num_classes: int) -> None:
    chances, labels, classes = draw(num_images, num_classes)
    found = quality(chances, labels, classes)
    true, predicted, every = labels.numpy(), chances.argmax(1).numpy(), np.arange(num_classes)
    exact = chances.double().numpy() / chances.double().numpy().sum(1, keepdims=True)
    assert found.loss == pytest.approx(log_loss(true, exact, labels=every), abs=1e-6)
    assert np.array_equal(np.array(found.confusion), confusion_matrix(true, predicted, labels=every))
    if num_classes > 5:
        assert found.top5 == top_k_accuracy_score(true, exact, k=5, labels=every)
    assert found.balanced_accuracy == pytest.approx(their_balanced_accuracy(true, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(true, predicted, average="macro", zero_division=np.nan))
    theirs = precision_recall_fscore_support(true, predicted, labels=every, zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1"), theirs, strict=False):
        ours = [math.nan if value is None else value for value in getattr(found, name)]
        np.testing.assert_allclose(ours, values, rtol=1e-12)


@given(st.integers(0, 2**20), st.integers(1, 60), st.integers(2, 9))
def test_the_bins_hold_every_image_once_and_sum_to_the_calibration_error(seed: int, images: int, num: int) -> None:
    found = quality(*draw(images, num, seed))
    assert sum(part.count for part in found.bins) == images
    gaps = (part.count * abs(part.accuracy - part.confidence) for part in found.bins if part.count)  # type: ignore[operator]
    assert sum(gaps) / images == pytest.approx(found.calibration_error)
    hits = sum(part.count * part.accuracy for part in found.bins if part.accuracy is not None)
    assert hits / images == pytest.approx(found.top1)


def test_probabilities_of_nought_one_and_a_hair_more_are_taken_as_they_are() -> None:
    chances = torch.tensor([[1.0, 0.0], [1.0000001, 0.0], [0.0, 1.0]])
    found = quality(chances, torch.tensor([0, 0, 0]), ("a", "b"))
    assert found.loss == pytest.approx(-math.log(torch.finfo(torch.float32).tiny) / 3)
    assert found.bins[-1].count == 3
    assert found.calibration_error == pytest.approx(1 / 3)


def test_goes_through_json_and_back() -> None:
    for found in (quality(HAND, HAND_LABELS, ("a", "b", "c")), quality(*draw(50, 7))):
        plain = found.to_dict()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        assert from_dict(plain) == found


@pytest.mark.parametrize("change", [{"loss": None}, {"bins": [{}]}, {"confusion": [[1, 2]]}, {"classes": 3}])
def test_other_fields_are_refused_in_one_line(change: dict[str, object]) -> None:
    plain = quality(HAND, HAND_LABELS, ("a", "b", "c")).to_dict()
    with pytest.raises(InvalidData, match=r"^quality: .+$"):
        from_dict({**plain, **change})
    with pytest.raises(InvalidData, match="fields do not fit: 'confusion'"):
        from_dict({name: value for name, value in plain.items() if name != "confusion"})


@pytest.mark.parametrize(
    ("chances", "labels", "complaint"),
    [
        (HAND[:0], HAND_LABELS[:0], "images must be at least 1, got 0"),
        (HAND[:, :2], HAND_LABELS, "classes must be at least 2, one a probability, got 3 for 2"),
        (HAND * 2, HAND_LABELS, r"probabilities must be in \[0, 1\], got 0.1 to 1.8"),
        (HAND * math.nan, HAND_LABELS, "got nan to nan"),
        (HAND, torch.tensor([0, 1, 1, 3]), "labels must be from 0 to 2, got 3"),
        (HAND, torch.tensor([0, 1, 1, -1]), "labels must be from 0 to 2, got -1"),
    ],
)
def test_bad_input_is_named(chances: Tensor, labels: Tensor, complaint: str) -> None:
    with pytest.raises(InvalidData, match=complaint):
        quality(chances, labels, ("a", "b", "c"))


def test_the_most_confused_come_first_and_equal_ones_by_name() -> None:
    confusion = ((5, 2, 0), (3, 1, 2), (2, 0, 0))
    assert most_confused(confusion, ("c", "b", "a")) == (
        Pair("b", "c", 3, 0.5),
        Pair("a", "c", 2, 1.0),
        Pair("b", "a", 2, 1 / 3),
        Pair("c", "b", 2, 2 / 7),
    )
    assert most_confused(confusion, ("c", "b", "a"), most=1) == (Pair("b", "c", 3, 0.5),)
    assert most_confused(((1, 0), (0, 2)), ("a", "b")) == ()


def test_torchmetrics_waits_until_it_is_needed() -> None:
    code = "import sys, trifold.train.metrics; sys.exit('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0


def test_a_quality_is_a_value() -> None:
    one, two = (quality(HAND, HAND_LABELS, ("a", "b", "c")) for _ in range(2))
    assert one == two
    assert isinstance(one, Quality)
    assert len({one, two}) == 1
