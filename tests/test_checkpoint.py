"""Checkpoint files, the lock, and what a killed writer leaves."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trifold.errors import Failed, InvalidData
from trifold.train.checkpoint import load, previous, read, save
from trifold.train.folder import FILES, LOCK, clear_unfinished, locked, make_folder, writing
from trifold.train.log import LogWriter, read_log


def state(number: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    weights = torch.randn(4, 3, generator=generator)
    return {"training": {"weights": weights, "steps": [number, 2], "sums": [0.1 * number], "none": None}, "bytes": 7}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    first, second = one["training"], other["training"]
    rest = [{k: v for k, v in part.items() if k != "weights"} for part in (first, second)]
    return torch.equal(first["weights"], second["weights"]) and rest[0] == rest[1] and one["bytes"] == other["bytes"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The second of two checkpoints."""
    path = tmp_path / "checkpoint.pt"
    for number in (1, 2):
        save(path, state(number))
    return path


# ---- files ----


def test_the_last_two_are_kept_and_read_back_to_the_bit(path: Path) -> None:
    save(path, state(3))
    assert {entry.name for entry in path.parent.iterdir()} == {"checkpoint.pt", "checkpoint.previous.pt"}
    assert same(read(path), state(3))
    assert same(read(previous(path)), state(2))
    loaded = load(path)
    assert loaded is not None
    assert same(loaded, state(3))


def test_tensors_keep_their_type_their_bits_and_their_order_in_memory(tmp_path: Path) -> None:
    odd = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])
    last = torch.arange(48.0).view(1, 3, 4, 4).to(memory_format=torch.channels_last)
    save(tmp_path / "c.pt", {"odd": odd, "half": odd.half(), "last": last, "count": torch.tensor(3)})
    back = read(tmp_path / "c.pt")
    assert back["odd"].view(torch.int32).tolist() == odd.view(torch.int32).tolist()
    assert (back["half"].dtype, back["count"].dtype) == (torch.float16, torch.int64)
    assert back["last"].stride() == last.stride()


def test_there_is_none_where_none_was_written(tmp_path: Path) -> None:
    assert load(tmp_path / "checkpoint.pt") is None


def test_the_one_before_is_found_where_the_last_has_not_got_its_name_yet(path: Path) -> None:
    path.replace(previous(path))
    loaded = load(path)
    assert loaded is not None
    assert same(loaded, state(2))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(path: Path, where: float, bit: int) -> None:
    whole = (path.parent / "checkpoint.previous.pt").read_bytes()
    data = bytearray(whole)
    data[int(where * len(data))] ^= 1 << bit
    damaged = path.with_name("damaged.pt")
    damaged.write_bytes(data)
    with pytest.raises(InvalidData, match=r"damaged\.pt: is damaged or was cut short$"):
        read(damaged)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_any_cut_is_noticed(path: Path, share: float) -> None:
    data = previous(path).read_bytes()
    cut = path.with_name("cut.pt")
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InvalidData, match=r"cut\.pt: is damaged or was cut short$"):
        read(cut)


def test_a_damaged_one_falls_back_on_the_one_before_with_one_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(path.read_bytes()[:100])
    loaded = load(path)
    assert loaded is not None
    assert same(loaded, state(1))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: is damaged or was cut short; going on from the checkpoint before it, {previous(path)}"
    ]


def test_two_damaged_ones_are_one_line_and_no_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in (path, previous(path)):
        file.write_bytes(b"\0" * 1000)
    with pytest.raises(InvalidData) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: is damaged or was cut short; no older checkpoint is whole: start anew with --overwrite"
    )
    assert caplog.records == []


class _Full:
    """A file on a full disk: takes so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


@pytest.mark.parametrize("room", [0, 100, 1200])
def test_a_full_disk_is_one_line_and_the_last_two_stand(path: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *mode: _Full(original(self, *mode), room))
    with pytest.raises(Failed) as caught:
        save(path, state(3))
    monkeypatch.undo()
    assert str(caught.value) == (
        f"{path}: cannot be written: No space left on device; the last checkpoint stands: make room and give the same "
        "command again"
    )
    assert {entry.name for entry in path.parent.iterdir()} == {"checkpoint.pt", "checkpoint.previous.pt"}
    assert same(read(path), state(2))
    assert same(read(previous(path)), state(1))


class _Disturbed:
    """A file in whose nth write a signal's handler raises."""

    def __init__(self, file: Any, at: int) -> None:
        self.file, self.left = file, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> int:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        return int(self.file.write(data))

    def __enter__(self) -> _Disturbed:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


@pytest.mark.parametrize("at", [1, 2, 5, 9])
def test_a_workers_death_told_within_a_write_is_not_taken_for_the_disks(
    path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *mode: _Disturbed(original(self, *mode), at))
    with pytest.raises(RuntimeError, match=r"DataLoader worker .* is killed"):
        save(path, state(3))
    monkeypatch.undo()
    assert {entry.name for entry in path.parent.iterdir()} == {"checkpoint.pt", "checkpoint.previous.pt"}
    assert same(read(path), state(2))


def test_nothing_gets_its_name_before_it_is_on_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        sync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        done.append(f"{self.name} -> {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_rename)
    save(path, state(3))
    assert done == [
        "sync .checkpoint.pt.tmp",
        "checkpoint.pt -> checkpoint.previous.pt",
        ".checkpoint.pt.tmp -> checkpoint.pt",
        f"sync {path.parent.name}",
    ]


# ---- lock ----

_HOLD = """
import os, sys, time
from pathlib import Path
from trifold.train.folder import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:  # as a loader's worker, which outlives a killed training
        os.close(1)
        sys.stdin.read()
        os._exit(0)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_and_told_by_whom_until_the_first_is_killed(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdin is not None
    assert first.stdout.readline() == "locked\n"
    with pytest.raises(InvalidData, match=rf"is being written to by process {first.pid} on .+; wait for it"):
        locked(tmp_path).__enter__()
    first.kill()
    first.wait()
    with locked(tmp_path):  # though its child lives on with the open file
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    first.stdin.close()
    first.stdout.close()


def test_a_full_disk_takes_the_lock_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *mode, **named: _Full(original(self, *mode, **named), 0))
    with locked(tmp_path):
        pass
    assert (tmp_path / LOCK).read_bytes() == b""


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refused)
    with locked(tmp_path):
        assert [record.getMessage() for record in caplog.records] == [
            f"{tmp_path}: cannot be locked against a second writer: No locks available"
        ]


# ---- the rest of the folder ----


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidData, match="file/run: cannot be made a run folder: Not a directory"):
        make_folder(tmp_path / "file" / "run")


def test_only_a_runs_own_unfinished_files_are_deleted(tmp_path: Path) -> None:
    unfinished = [f".{name}.tmp" for name in FILES] + [".record.json.0a1b2c3d.tmp"]
    others = [".notes.tmp", "checkpoint.pt.tmp", ".checkpoint.pt", *FILES]
    for name in unfinished + others:
        (tmp_path / name).touch()
    clear_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_only_what_cannot_be_written_becomes_a_failure(tmp_path: Path) -> None:
    with (
        pytest.raises(Failed, match="cannot be written to: No space left on device; what was saved stands"),
        writing(tmp_path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(InvalidData, match="something else"), writing(tmp_path):
        raise InvalidData("something else")


def test_a_log_is_cut_to_what_is_kept_and_a_shorter_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with LogWriter(path) as log:
        log.write("start", {"id": "x"})
        length = log.synced()
        log.write("step", {"step": 1})
    with LogWriter(path, keep=length) as log:
        log.write("step", {"step": 2})
        longer = log.synced()
    assert read_log(path) == [{"type": "start", "id": "x"}, {"type": "step", "step": 2}]
    with pytest.raises(InvalidData, match=f"has {longer} bytes, fewer than the {longer + 1} of the checkpoint"):
        LogWriter(path, keep=longer + 1)
    assert path.stat().st_size == longer
