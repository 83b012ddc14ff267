"""The processes that train one network together: who this one is, and what they tell each other."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from trifold.errors import Failed, InvalidInput

Value = TypeVar("Value")

TIMEOUT = timedelta(minutes=30)
"""How long one process waits for the others, who may be decoding images; a killed one is noticed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """One process among all: rank from 0 of `count`; local_rank: its number on its machine, which is its GPU's.

    restarts: how often torchrun has started all of them again after one was lost.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    restarts: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0


ALONE = Processes()


def from_environment() -> Processes:
    """What torchrun says of this process; alone where it was not started by torchrun.

    Raises InvalidInput if one of RANK, WORLD_SIZE and LOCAL_RANK is no whole number.
    """
    try:
        return Processes(
            rank=int(os.environ.get("RANK", "0")),
            count=int(os.environ.get("WORLD_SIZE", "1")),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
            restarts=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
        )
    except ValueError as error:
        raise InvalidInput(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers: {error}") from None


@contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """Within it the processes can speak to each other (gloo; NCCL for what lies on GPUs).

    Raises Failed if another process is lost meanwhile.
    """
    if processes.count == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # torchrun's own store outlives a restart: without a name of its own this start could read the last one's addresses.
    store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"start-{processes.restarts}", store),  # type: ignore[attr-defined]  # torch has it there
        rank=processes.rank,
        world_size=processes.count,
        timeout=TIMEOUT,
    )
    try:
        yield
    except Failed:
        raise
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "onnection" in str(error) or "gloo" in str(error):
            who = f"process {processes.rank} of {processes.count}"
            raise Failed(f"{who} lost the others: {_said(error)}; the same command goes on") from None
        raise
    finally:
        dist.destroy_process_group()


def _said(error: RuntimeError) -> str:
    """The first sentence of what gloo or NCCL says, without the place in its source."""
    line = next(iter(str(error).splitlines()), "")
    return re.sub(r"^\[[^\]]*\]\s*", "", line).partition(". ")[0][:200].rstrip(".")


def summed(processes: Processes, values: Sequence[float]) -> list[float]:
    """Each value summed over all processes, in float64; every process gets the same bits."""
    if processes.count == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return tensor.tolist()


def gathered(processes: Processes, rows: Tensor) -> Tensor:
    """The rows of all processes, dealt as `rows[rank::count]`, in their first order again."""
    if processes.count == 1:
        return rows
    parts: list[Any] = [None] * processes.count
    dist.all_gather_object(parts, rows.cpu())
    whole = torch.empty(sum(len(part) for part in parts), *rows.shape[1:], dtype=rows.dtype)
    for rank, part in enumerate(parts):
        whole[rank :: processes.count] = part
    return whole


def from_first(processes: Processes, make: Callable[[], Value]) -> Value:
    """What the first process makes, given to all; what it raises, all raise."""
    if processes.count == 1:
        return make()
    told: list[Any] = [None, None]
    if processes.first:
        try:
            told[0] = make()
        except Exception as error:
            told[1] = error
    dist.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    value: Value = told[0]
    return value
