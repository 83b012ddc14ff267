"""torchvision's sets, on tiny files in each set's own layout; the checksums of CIFAR and the flowers are the test's."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from trifold._torchvision import torchvision
from trifold.data.dataset import Dataset
from trifold.data.known_sets import KNOWN_SETS
from trifold.data.sources import is_there, open_data
from trifold.data.split import split
from trifold.errors import InvalidData

Make = Callable[[Path, pytest.MonkeyPatch], Iterable[Path]]


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def pixels_of(name: str, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """CIFAR's rows: 3072 bytes an image, channel by channel."""
    return np.random.default_rng(list(name.encode())).integers(0, 256, (count, 3072), dtype=np.uint8)


def make_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, kind: type[torchvision.datasets.CIFAR10]) -> list[Path]:
    """Four images of two classes a batch; the class is told the checksums of these files."""
    folder = root / kind.base_folder
    folder.mkdir()
    key = "labels" if kind is torchvision.datasets.CIFAR10 else "fine_labels"
    content = {
        name: pickle.dumps({"data": pixels_of(name, 4), key: [1, 0, 1, 0]})
        for name, _ in kind.train_list + kind.test_list
    }
    content[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: ["boat", "ape"]})
    md5 = {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in content.items()}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    for field in ("train_list", "test_list"):
        monkeypatch.setattr(kind, field, [[name, md5[name]] for name, _ in getattr(kind, field)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5[kind.meta["filename"]]})
    return [folder / name for name in content]


def cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    return make_cifar(root, monkeypatch, torchvision.datasets.CIFAR10)


def cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    return make_cifar(root, monkeypatch, torchvision.datasets.CIFAR100)


def flowers102(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """One image of each of the 102 classes in each split."""
    kind, folder = torchvision.datasets.Flowers102, root / "flowers-102"
    for i in range(306):
        picture(folder / "jpg" / f"image_{i + 1:05d}.jpg", i)
    savemat(folder / "imagelabels.mat", {"labels": np.arange(306) % 102 + 1})
    ids = np.arange(1, 307)
    savemat(folder / "setid.mat", {"trnid": ids[:102], "valid": ids[102:204], "tstid": ids[204:]})
    files = {"label": folder / "imagelabels.mat", "setid": folder / "setid.mat"}
    md5 = {
        key: (path.name, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest())
        for key, path in files.items()
    }
    monkeypatch.setattr(kind, "_file_dict", {**kind._file_dict, **md5})
    return [*files.values()]


def stanford_cars(root: Path, _: pytest.MonkeyPatch) -> list[Path]:
    folder, kind = root / "stanford_cars", [("fname", "O"), ("class", "u1")]
    (folder / "devkit").mkdir(parents=True)
    for number, (split_name, file) in enumerate(
        {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}.items()
    ):
        names = [f"{i:05d}.jpg" for i in range(1, 5)]
        for i, name in enumerate(names):
            picture(folder / f"cars_{split_name}" / name, 100 * number + i)
        savemat(folder / file, {"annotations": np.array(list(zip(names, (2, 1, 2, 1), strict=True)), dtype=kind)})
    classes = np.array(["Audi R8 Coupe 2012", "Ram C/V Cargo Van 2012"], dtype=object)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": classes})
    return [folder / "devkit/cars_meta.mat", folder / "cars_test_annos_withlabels.mat"]


def fgvc_aircraft(root: Path, _: pytest.MonkeyPatch) -> list[Path]:
    folder = root / "fgvc-aircraft-2013b" / "data"
    text(folder / "variants.txt", "737-700", "A 340/500")
    for number, name in enumerate(("train", "val", "test")):
        ids = [f"{1000 * number + i}" for i in range(4)]
        for i, image in enumerate(ids):
            picture(folder / "images" / f"{image}.jpg", 100 * number + i)
        labels = ("A 340/500", "737-700") * 2
        text(
            folder / f"images_variant_{name}.txt",
            *(f"{image} {label}" for image, label in zip(ids, labels, strict=True)),
        )
    return [folder / "variants.txt", folder / "images_variant_val.txt"]


def oxford_pets(root: Path, _: pytest.MonkeyPatch) -> list[Path]:
    folder = root / "oxford-iiit-pet"
    for number, name in enumerate(("trainval", "test")):
        ids = [f"{breed}_{10 * number + i}" for i in range(2) for breed in ("Maine_Coon", "beagle")]
        for i, image in enumerate(ids):
            picture(folder / "images" / f"{image}.jpg", 100 * number + i)
        text(folder / "annotations" / f"{name}.txt", *(f"{image} {i % 2 + 1} 1 1" for i, image in enumerate(ids)))
    return [folder / "annotations/trainval.txt", folder / "annotations/test.txt"]


def food101(root: Path, _: pytest.MonkeyPatch) -> list[Path]:
    folder = root / "food-101"
    for number, name in enumerate(("train", "test")):
        listed = {label: [f"{label}/{10 * number + i}" for i in range(2)] for label in ("waffles", "apple_pie")}
        for j, image in enumerate(image for images in listed.values() for image in images):
            picture(folder / "images" / f"{image}.jpg", 100 * number + j)
        text(folder / "meta" / f"{name}.json", json.dumps(listed))
    return [folder / "meta/train.json", folder / "meta/test.json"]


MAKERS: dict[str, Make] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "flowers102": flowers102,
    "stanford_cars": stanford_cars,
    "fgvc_aircraft": fgvc_aircraft,
    "oxford_pets": oxford_pets,
    "food101": food101,
}

EXPECTED: dict[str, tuple[tuple[str, ...], dict[str, int], tuple[str, str]]] = {
    "cifar10": (("boat", "ape"), {"train": 20, "test": 4}, ("train/00000", "ape")),
    "cifar100": (("boat", "ape"), {"train": 4, "test": 4}, ("train/00000", "ape")),
    "stanford_cars": (
        ("Audi R8 Coupe 2012", "Ram C/V Cargo Van 2012"),
        {"train": 4, "test": 4},
        ("stanford_cars/cars_train/00001.jpg", "Ram C/V Cargo Van 2012"),
    ),
    "fgvc_aircraft": (
        ("737-700", "A 340/500"),
        {"train": 4, "minival": 4, "test": 4},
        ("fgvc-aircraft-2013b/data/images/0.jpg", "A 340/500"),
    ),
    "oxford_pets": (
        ("Maine Coon", "Beagle"),
        {"train": 4, "test": 4},
        ("oxford-iiit-pet/images/Maine_Coon_0.jpg", "Maine Coon"),
    ),
    "food101": (
        ("apple_pie", "waffles"),
        {"train": 4, "test": 4},
        ("food-101/images/waffles/0.jpg", "waffles"),
    ),
}
"""Classes in the set's own order, images of each split, the first image's name and class."""


def sizes(dataset: Dataset) -> dict[str, int]:
    splits = [sample.split for sample in dataset.samples]
    return {name: splits.count(name) for name in dict.fromkeys(splits)}


def test_every_known_set_has_a_maker_here() -> None:
    assert MAKERS.keys() == KNOWN_SETS.keys() == EXPECTED.keys() | {"flowers102"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_set_is_read_in_its_own_layout_with_its_official_splits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MAKERS[name](tmp_path, monkeypatch)
    found = open_data(f"{name}:{tmp_path}")
    classes, counts, first = EXPECTED[name]
    assert (found.classes, sizes(found)) == (classes, counts)
    assert (found.samples[0].name, found.classes[found.samples[0].label]) == first
    assert found.source == f"{name}:{tmp_path}"
    assert is_there(found.source)
    assert not is_there(f"{name}:{tmp_path}/nowhere")


def test_the_flowers_keep_their_three_splits_and_102_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flowers102(tmp_path, monkeypatch)
    found = open_data(f"flowers102:{tmp_path}")
    assert sizes(found) == {"train": 102, "minival": 102, "test": 102}
    assert (found.classes[0], found.classes[101]) == ("pink primrose", "blackberry lily")
    assert found.samples[5].content == tmp_path / "flowers-102/jpg/image_00006.jpg"
    assert [len(part) for part in split(found)] == [102, 102, 102]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifars_pixels_survive_exactly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS[name](tmp_path, monkeypatch)
    found = open_data(f"{name}:{tmp_path}")
    first_file = {"cifar10": "data_batch_1", "cifar100": "train"}[name]
    rows = pixels_of(first_file, 4).reshape(4, 3, 32, 32)
    for i in range(4):
        assert np.array_equal(np.asarray(found.samples[i].open()), rows[i].transpose(1, 2, 0))
    assert found.modes == {"RGB": len(found.samples)}


def test_a_set_without_minival_has_one_cut_from_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10(tmp_path, monkeypatch)
    assert [len(part) for part in split(open_data(f"cifar10:{tmp_path}"))] == [18, 2, 4]


@pytest.mark.parametrize("name", MAKERS)
def test_a_set_that_is_absent_says_which_files_are_expected_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="is not there or is damaged") as caught:
        open_data(f"{name}:{tmp_path}")
    message = str(caught.value)
    assert message.startswith(f"{name}:{tmp_path}: ")
    assert KNOWN_SETS[name].files in message
    assert message.endswith("nothing is downloaded")
    assert "download=True" not in message
    assert "\n" not in message


@pytest.mark.parametrize("name", MAKERS)
def test_a_damaged_list_is_refused_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in MAKERS[name](tmp_path, monkeypatch):
        content = file.read_bytes()
        cut = [] if file.suffix == ".txt" else [content[: len(content) // 2]]  # half a list of lines is a list
        for damaged in (*cut, b"\xff\0 no list", b""):
            file.write_bytes(damaged)
            with pytest.raises(InvalidData) as caught:
                open_data(f"{name}:{tmp_path}")
            assert "\n" not in str(caught.value)
        file.write_bytes(content)
    open_data(f"{name}:{tmp_path}")


def test_an_image_of_the_list_that_is_absent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    food101(tmp_path, monkeypatch)
    gone = tmp_path / "food-101/images/waffles/0.jpg"
    gone.unlink()
    with pytest.raises(InvalidData, match=f"{gone}: cannot be read: No such file or directory"):
        open_data(f"food101:{tmp_path}")
    assert [file.path for file in open_data(f"food101:{tmp_path}", skip_bad=True).skipped] == [str(gone)]


def test_a_label_without_a_class_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stanford_cars(tmp_path, monkeypatch)
    names = np.array(["Audi", "Ram"], dtype=object)
    savemat(tmp_path / "stanford_cars/devkit/cars_meta.mat", {"class_names": names})
    kind = [("fname", "O"), ("class", "u1")]
    wrong = np.array([("00001.jpg", 1), ("00002.jpg", 9)], dtype=kind)
    savemat(tmp_path / "stanford_cars/devkit/cars_train_annos.mat", {"annotations": wrong})
    with pytest.raises(InvalidData, match=r"cars_train/00002.jpg: label is 8; allowed are 0 to 1"):
        open_data(f"stanford_cars:{tmp_path}")


def test_a_name_without_a_root_is_refused_unless_a_folder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for data in ("food101", "food101:"):
        with pytest.raises(
            InvalidData, match="food101: must be followed by the folder that holds it, as in food101:/data"
        ):
            open_data(data)
    for label in ("a", "b"):
        picture(tmp_path / "food101" / label / "0.png", ord(label))
    assert open_data("food101").classes == ("a", "b")


def test_a_root_is_found_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    food101(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    found = open_data("food101:.")
    assert (found.name, found.source) == ("food101:.", f"food101:{tmp_path}")
    monkeypatch.chdir("/")
    assert open_data(found.source).fingerprint == found.fingerprint
