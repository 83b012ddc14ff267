"""Archives of TensorFlow checkpoints that are none, or that would write where they may not."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from trifold.errors import InvalidData
from trifold.weights.readers import pretrained


def packed(path: Path, files: dict[str, bytes], *, links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return path


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "must hold one TensorFlow checkpoint, got 0 and no list of them"),
        ({"b0/readme.txt": b"hello"}, "must hold one TensorFlow checkpoint, got 0 and no list of them"),
        ({"a.index": b"", "b.index": b""}, "must hold one TensorFlow checkpoint, got 2 and no list of them"),
        ({"x/a.index": b"", "y/a.index": b""}, "holds two files called 'a.index'"),
        (
            {"a.index": b"", "b.index": b"", "checkpoint": b"none"},
            "its file checkpoint names no checkpoint that is there",
        ),
        ({"b0/model.ckpt.index": b"index"}, "no file model.ckpt.data-... lies beside it"),
        ({f"{number}.txt": b"" for number in range(1001)}, "holds more than 1000 files"),
    ],
    ids=["empty", "other", "several", "twice", "list", "no data", "many"],
)
def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    path = packed(tmp_path / "b0.tar.gz", files)
    with pytest.raises(InvalidData) as caught:
        pretrained(path)
    assert str(caught.value) == f"{path}: {said}"


def test_nothing_is_written_outside_and_links_are_left_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside.index"
    outside.write_bytes(b"untouched")
    name = f"../../../..{tmp_path}/outside.index"
    path = packed(tmp_path / "b0.tar.gz", {name: b"overwritten", str(outside): b"overwritten"}, links={})
    with pytest.raises(InvalidData, match=r"holds two files called 'outside.index'"):
        pretrained(path)
    assert outside.read_bytes() == b"untouched"
    path = packed(tmp_path / "links.tar.gz", {}, links={"b0/model.ckpt.index": str(outside)})
    with pytest.raises(InvalidData, match="must hold one TensorFlow checkpoint, got 0"):
        pretrained(path)


def test_an_archive_that_unpacks_to_far_more_than_it_takes_is_refused_before_it_does(tmp_path: Path) -> None:
    path = packed(tmp_path / "bomb.tar.gz", {"model.ckpt.data-00000-of-00001": bytes(80 << 20)})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InvalidData, match="bytes that unpack to"):
        pretrained(path)


@pytest.mark.parametrize(
    "content", [b"", b"no archive", gzip.compress(b"no archive", mtime=0), gzip.compress(b"x" * 2000, mtime=0)]
)
def test_a_damaged_archive_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b0.tar.gz").write_bytes(content)
    with pytest.raises(
        InvalidData, match=r"b0.tar.gz: (not a .gz file with tensors|must hold one TensorFlow checkpoint)"
    ):
        pretrained(tmp_path / "b0.tar.gz")


def test_every_way_of_cutting_an_archive_short_is_one_line(tmp_path: Path) -> None:
    whole = packed(tmp_path / "whole.tar.gz", {"b0/model.ckpt.index": b"i" * 300}).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut.tar.gz").write_bytes(whole[:length])
        with pytest.raises(InvalidData):
            pretrained(tmp_path / "cut.tar.gz")
