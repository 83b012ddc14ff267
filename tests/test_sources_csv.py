"""A .csv of labels: what it may say, and the one line that each mistake in it gets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trifold.data.sources import is_there, open_data
from trifold.data.split import split
from trifold.errors import InvalidData


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with twelve different images, 00.png to 11.png."""
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i:02d}.png")
    return tmp_path


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "labels.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def rows(labels: str) -> str:
    """A line for each image, labelled with the letters."""
    return "".join(f"pictures/{i:02d}.png,{label}\n" for i, label in enumerate(labels))


def test_paths_start_at_the_files_folder_and_classes_are_sorted(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(images, "path,label\n" + rows("ddccddcc"))
    found = open_data(str(file))
    assert found.classes == ("c", "d")
    assert [sample.name for sample in found.samples[:2]] == ["pictures/00.png", "pictures/01.png"]
    assert [sample.label for sample in found.samples] == [1, 1, 0, 0, 1, 1, 0, 0]
    assert (found.source, found.name) == (str(file), str(file))
    monkeypatch.chdir(images)
    again = open_data("labels.csv")
    assert (again.fingerprint, again.source, again.name) == (found.fingerprint, str(file), "labels.csv")
    assert is_there(found.source)
    assert not is_there(str(images / "other.csv"))


def test_absolute_paths_inside_the_folder_are_the_same_images(images: Path) -> None:
    relative = open_data(write(images, "path,label\n" + rows("aabb")))
    text = "".join(f"{images}/pictures/./{i:02d}.png,{label}\n" for i, label in enumerate("aabb"))
    assert open_data(write(images, "path,label\n" + text)).fingerprint == relative.fingerprint


def test_paths_outside_the_folder_keep_their_whole_name(images: Path) -> None:
    (images / "tables").mkdir()
    found = open_data(write(images / "tables", "path,label\n../pictures/00.png,a\n../pictures/01.png,b\n"))
    assert [sample.name for sample in found.samples] == [f"{images}/pictures/0{i}.png" for i in (0, 1)]


@pytest.mark.parametrize("heading", ["path", "image", "file", "Image", " FILE "])
def test_the_path_has_three_names_in_any_case(images: Path, heading: str) -> None:
    assert len(open_data(write(images, f"Label,id,{heading}\na,7,pictures/00.png\nb,8,pictures/01.png\n")).samples) == 2


def test_the_splits_of_the_file_are_kept(images: Path) -> None:
    words = ("train", "VAL", "test", "train", "valid", "test")
    lines = [f"pictures/{i:02d}.png,{'ab'[i // 3]},{word}\n" for i, word in enumerate(words)]
    found = open_data(write(images, "path,label,split\n" + "".join(lines)))
    assert [sample.split for sample in found.samples] == ["train", "minival", "test"] * 2
    assert split(found) == ((0, 3), (1, 4), (2, 5))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("10", "2", "1"), ("1", "2", "10")),
        (("10", "2", "-1"), ("-1", "2", "10")),
        (("10", "2", "one"), ("10", "2", "one")),
        (("10", "2", "1.5"), ("1.5", "10", "2")),
    ],
)
def test_whole_numbers_are_sorted_by_value_and_all_else_by_name(
    images: Path, labels: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    text = "".join(f"pictures/{i:02d}.png,{label}\n" for i, label in enumerate(labels))
    assert open_data(write(images, "path,label\n" + text)).classes == classes


def test_a_byte_order_mark_quotes_and_windows_line_ends_are_read(images: Path) -> None:
    text = '\ufeffpath,label\r\n"pictures/00.png", "a, b"\r\n\r\npictures/01.png,c \r\n'
    assert open_data(write(images, text)).classes == ("a, b", "c")


MISTAKES: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "labels.csv: is empty; allowed is a header with path and label"),
    "no rows": ("path,label\n", "labels.csv: has no rows below its header"),
    "no label column": ("path,class\npictures/00.png,a\n", "line 1: has no column label, only path, class; needed are"),
    "no path column": ("name,label\npictures/00.png,a\n", "line 1: has no column path, only name, label; needed are"),
    "semicolons": ("path;label\npictures/00.png;a\n", "line 1: has no column path, only path;label; .* with commas"),
    "two path columns": ("path,image,label\nx,y,a\n", "line 1: has the columns path and image, which both mean the"),
    "a field too many": ("path,label\npictures/00.png,a,b\n", "line 2: has 3 fields; the header has 2"),
    "empty path": ("path,label\n,a\n", "line 2: path is empty; allowed is the path of an image"),
    "empty label": ("path,label\npictures/00.png,a\npictures/01.png, \n", "line 3: label is empty; allowed is the"),
    "unprintable label": (
        "path,label\npictures/00.png,a\u2028b\n",
        r"line 2: label is 'a\?b'; allowed are printable characters",
    ),
    "unknown split": (
        "path,label,split\npictures/00.png,a,dev\n",
        "line 2: split is 'dev'; allowed are train, val, valid, validation, minival, test",
    ),
    "empty split": ("path,label,split\npictures/00.png,a,\n", "line 2: split is empty; allowed are train"),
    "same path": (
        "path,label\npictures/00.png,a\npictures/01.png,b\npictures/../pictures/00.png,b\n",
        "line 4: path is 'pictures/../pictures/00.png', as in line 2; allowed is each path once",
    ),
    "missing file": (
        "path,label\npictures/00.png,a\npictures/99.png,b\n",
        r"line 3: path is 'pictures/99.png', where there is no file; allowed are image files \(convert or remove it",
    ),
    "a folder": ("path,label\npictures/00.png,a\npictures,b\n", "line 3: path is 'pictures', which is a folder"),
    "a null": (b"path,label\npictures/00.png,a\nx\0y,b\n", r"line 3: (path is 'x\?y', where there is no|is not CSV)"),
    "not UTF-8": (b"path,label\npictures/00.png,a\nx.png,\xe9\n", "line 3: has the byte 0xe9, which is not UTF-8"),
    "an open quote": ('path,label\n"pictures/00.png,a\n', "line 2: is not CSV: unexpected end of data"),
    "one class": ("path,label\n" + rows("aaa"), "labels.csv: has 1 class, 'a'; at least 2 are needed"),
    "no train": ("path,label,split\npictures/00.png,a,test\n", "has the splits test; a file with splits needs train"),
    "a split without a class": (
        "path,label,split\npictures/00.png,a,train\npictures/01.png,b,train\npictures/02.png,a,test\n",
        "class 'b' has no images in test; at least 1 is needed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_that_names_the_file(images: Path, mistake: str) -> None:
    text, message = MISTAKES[mistake]
    file = write(images, text)
    with pytest.raises(InvalidData, match=message) as caught:
        open_data(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_absent_files_are_all_named_and_left_out_with_skip_bad(images: Path) -> None:
    (images / "dangling.png").symlink_to(images / "nowhere.png")
    os.mkfifo(images / "pipe.png")
    (images / "text.png").write_text("no picture")
    bad = "".join(f"{name},a\n" for name in ("gone.png", "dangling.png", "pipe.png", "text.png"))
    file = write(images, "path,label\n" + rows("aabb") + bad)
    with pytest.raises(InvalidData, match="4 of 8 images cannot be used"):
        open_data(file)
    found = open_data(file, skip_bad=True)
    assert len(found.samples) == 4
    reasons = ("where there is no file", "a dangling link", "no regular file", "not an image that Pillow can read")
    for file_left_out, reason in zip(found.skipped, reasons, strict=True):
        assert reason in file_left_out.reason


def test_a_csv_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"no\.csv: cannot be read: No such file or directory"):
        open_data(tmp_path / "no.csv")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InvalidData, match=r"pipe\.csv: is no regular file"):
        open_data(tmp_path / "pipe.csv")
