"""A dataset in numbers: counts, sizes, equal images, what was left out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trifold.data.dataset import Dataset, Sample
from trifold.data.scan import EqualImages, Sizes, scan
from trifold.data.sources import open_data
from trifold.errors import InvalidData


def save(path: Path, seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes in two splits; one image in both splits, one in both classes, one twice in its class."""
    for i in range(6):
        save(tmp_path / "train" / "cat" / f"{i}.png", i)
    for i in range(2):
        save(tmp_path / "train" / "dog" / f"{i}.png", 10 + i, (40, 20), "L")
        save(tmp_path / "test" / "cat" / f"{i}.png", 20 + i)
        save(tmp_path / "test" / "dog" / f"{i}.png", 30 + i)
    save(tmp_path / "test" / "cat" / "leaked.png", 3)
    save(tmp_path / "train" / "dog" / "cat.png", 4)
    save(tmp_path / "train" / "cat" / "twice.png", 5)
    (tmp_path / "train" / "cat" / "bad.png").write_text("no picture")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no picture")
    return tmp_path


def test_everything_is_counted(folder: Path) -> None:
    found = scan(open_data(folder, skip_bad=True))
    assert found.images == 15
    assert found.counts == {"train": {"cat": 7, "dog": 3}, "test": {"cat": 3, "dog": 2}}
    assert list(found.counts) == ["train", "test"]
    assert (found.widths, found.heights) == (Sizes(12, 12, 40), Sizes(10, 10, 20))
    assert found.modes == {"L": 2, "RGB": 13}
    assert [Path(file.path).name for file in found.bad] == ["bad.png"]
    assert found.ignored == 1
    assert found.imbalance == pytest.approx(7 / 3)


def test_equal_images_are_grouped_with_their_classes_and_splits(folder: Path) -> None:
    found = scan(open_data(folder, skip_bad=True))
    leaked = EqualImages(("test/cat/leaked.png", "train/cat/3.png"), ("cat", "cat"), ("test", "train"))
    ambiguous = EqualImages(("train/cat/4.png", "train/dog/cat.png"), ("cat", "dog"), ("train", "train"))
    twice = EqualImages(("train/cat/5.png", "train/cat/twice.png"), ("cat", "cat"), ("train", "train"))
    assert found.equal == (leaked, ambiguous, twice)
    assert (found.leaked, found.ambiguous) == ((leaked,), (ambiguous,))


def test_without_given_splits_there_is_one_count_and_no_leak() -> None:
    found = scan(open_data("digits"))
    assert list(found.counts) == [""]
    assert sum(found.counts[""].values()) == 1797
    assert (found.equal, found.leaked) == ((), ())
    assert found.imbalance == pytest.approx(183 / 174)


def test_a_class_without_images_makes_the_imbalance_infinite() -> None:
    digits = open_data("digits")
    some = tuple(sample for sample in digits.samples if sample.label)
    assert scan(replace(digits, samples=some)).imbalance == float("inf")


def test_a_set_without_images_is_refused() -> None:
    with pytest.raises(InvalidData, match="digits: has no images; at least 1 a class is needed"):
        scan(replace(open_data("digits"), samples=()))


def test_60000_images_of_1000_classes_are_scanned_in_seconds() -> None:
    samples = tuple(
        Sample(name=str(i), label=i % 1000, split="", width=8, height=8, mode="L", digest=str(i), content=b"")
        for i in range(60_000)
    )
    dataset = Dataset(name="large", classes=tuple(map(str, range(1000))), samples=samples)
    start = time.process_time()
    assert set(dataset.class_counts.values()) == {60}
    assert scan(dataset).imbalance == 1
    assert time.process_time() - start < 5  # some 0.2 s; counting class by class takes a minute
