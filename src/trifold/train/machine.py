"""Where a training runs, as a value, and what of it the bits of the result depend on."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from trifold.data.decode import printable
from trifold.data.images import MAX_BYTES
from trifold.errors import InvalidData, InvalidInput
from trifold.kernels import instruction_set
from trifold.train.processes import Processes

SMALL_MULTIPLY_ADDS = 10_000_000
DEVICES = ("auto", "cpu", "cuda")
IN_MEMORY = ("auto", "yes", "no")
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _KEPT_BYTES = -1, -4, 2**30
"""Numbers of glibc's malloc.h, and how much at the heap's end is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a run uses; nothing here is part of what was asked, so none of it is in a run's id.

    threads: torch's; 0: `default_threads`. workers: processes that decode images where they are not held in memory;
    -1: one a core, at most four. device: auto is a GPU where there is one. in_memory: whether images are decoded once
    and held; auto: where they fit into half the free memory, at most 8 GiB. checkpoint_seconds: the most that is lost.
    began: reading of time.monotonic() from which a planned time counts; 0: when the training is called.
    inexact: go on with a run that was begun with other threads, processes, device or versions, though bits will differ.

    Raises InvalidInput naming the field, the value and what is allowed.
    """

    threads: int = 0
    workers: int = -1
    device: str = "auto"
    in_memory: str = "auto"
    checkpoint_seconds: float = 15.0
    inexact: bool = False
    began: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (("threads", 0, 1024), ("workers", -1, 256)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise InvalidInput(f"{name} must be a whole number from {low} to {high}, got {value!r}")
        for name, allowed in (("device", DEVICES), ("in_memory", IN_MEMORY)):
            if getattr(self, name) not in allowed:
                raise InvalidInput(f"{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")
        if not self.checkpoint_seconds >= 0:
            raise InvalidInput(f"checkpoint_seconds must be 0 or more, got {self.checkpoint_seconds!r}")

    @property
    def num_workers(self) -> int:
        """The number of worker processes."""
        return min(4, os.cpu_count() or 1) if self.workers < 0 else self.workers

    def torch_device(self, processes: Processes) -> torch.device:
        """The device of a process. Raises InvalidInput if cuda is asked for and there is none."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InvalidInput("device must be cpu: torch sees no GPU here, got 'cuda'")
        if self.device == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", processes.local_rank % torch.cuda.device_count())

    def holds(self, num_bytes: int) -> bool:
        """Whether so many bytes of images are held in memory."""
        if self.in_memory != "auto":
            return self.in_memory == "yes"
        return num_bytes <= min(MAX_BYTES, free_memory() // 2)


def free_memory() -> int:
    """Bytes of memory that could be had without swapping, as far as the system says."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def keep_freed_memory() -> None:
    """Makes glibc's malloc keep what is freed for the rest of the process.

    Otherwise a step's large tensors are given back to the system and come back in the next one as new pages, each to be
    zeroed and mapped again (docs/kernels.md says what that costs). Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_MAX, 0)


def default_threads(multiply_adds: int, processes: Processes) -> int:
    """1 for networks under 10 M multiply-adds, else what torch has, shared among the processes.

    A step of so small a network is hundreds of operations of microseconds each: on two cores a second thread was
    measured to gain a third at best, and to cost a factor of three to fifty where another process wants the core.
    """
    return 1 if multiply_adds < SMALL_MULTIPLY_ADDS else max(1, torch.get_num_threads() // processes.count)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def computed(threads: int, processes: Processes, device: torch.device) -> dict[str, Any]:
    """What the bits of a training depend on beside what was asked."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "threads": threads,
        "processes": processes.count,
        "device": gpu or "cpu",
        "torch": version("torch"),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "kernels": "off" if gpu else instruction_set(),
    }


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InvalidData naming the first thing that differs from when the run was begun."""
    for name, value in now.items():
        if before.get(name) != value:
            raise InvalidData(
                f"{printable(folder)}: this run was begun with {name} {printable(before.get(name))}, and now it is "
                f"{value}: its bits would differ; go on as it was begun, or give --inexact"
            )


def processor() -> str:
    """The processor's name, or "" where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
