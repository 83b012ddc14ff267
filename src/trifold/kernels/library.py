"""The compiled library: where it lies, which instruction set it uses, and how its functions are called."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from trifold.errors import InvalidInput

VARIABLE = "TRIFOLD_KERNELS"
SETS = ("base", "avx2", "avx512")
"""Instruction sets by the number that the library knows them by; base is what every processor of its kind has."""

_logger = logging.getLogger(__name__)
_asked: ContextVar[str | None] = ContextVar("asked", default=None)


@cache
def _loaded() -> ctypes.CDLL | None:
    """The library, or None where it was not built or does not load; the reason is logged once."""
    folder = Path(__file__).parent
    found = [path for suffix in EXTENSION_SUFFIXES if (path := folder / f"_compiled{suffix}").exists()]
    if not found:
        _logger.warning("kernels: not compiled (no C compiler when Trifold was installed): torch's own are used")
        return None
    try:
        return ctypes.CDLL(str(found[0]))
    except OSError as error:
        _logger.warning("kernels: %s does not load (%s): torch's own are used", found[0].name, error)
        return None


def _asked_for() -> str:
    """What the program, or else the environment, asks for: best, off or the name of a set that this processor has."""
    asked = _asked.get() or os.environ.get(VARIABLE) or "best"
    if asked in ("best", "off"):
        return asked
    library = _loaded()
    usable = SETS if library is None else SETS[: library.trifold_best() + 1]
    if asked not in usable:
        raise InvalidInput(f"{VARIABLE} must be best, off, {' or '.join(usable)} here, got {asked!r}")
    return asked


def instruction_set() -> str:
    """The instruction set that the kernels use: base, avx2 or avx512; or "off".

    TRIFOLD_KERNELS=off switches them off; the name of a set asks for it, where the processor has it.

    Raises InvalidInput if TRIFOLD_KERNELS is anything else.
    """
    asked = _asked_for()
    if asked == "off" or (library := _loaded()) is None:
        return "off"
    return SETS[library.trifold_best()] if asked == "best" else asked


@contextmanager
def using(name: str) -> Iterator[None]:
    """Within it the kernels are "off", or use the instruction set of this name, whatever the environment says."""
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


Argument = Tensor | tuple[int, ...] | ctypes.Structure | None


def call(name: str, like: Tensor, *arguments: Argument) -> None:
    """Calls a kernel on tensors of one type, float32 or float64, with as many threads as torch uses.

    Kernels that are "off" are not chosen for a network, but compute where they are called.

    Raises RuntimeError if they were not compiled; MemoryError if there is no memory for their scratch.
    """
    library = _loaded()
    if library is None:
        raise RuntimeError(f"trifold::{name} was not compiled; install Trifold where there is a C compiler")
    asked = _asked_for()
    number = SETS.index(asked) if asked in SETS else library.trifold_best()
    given = [_converted(argument) for argument in arguments]
    function = _function(name, len(given))
    if function(number, like.dtype == torch.float64, torch.get_num_threads(), *given):
        raise MemoryError(f"trifold::{name}: no memory for its scratch")


@cache
def _function(name: str, addresses: int) -> Callable[..., int]:
    """The library's function: three numbers and so many addresses."""
    function = getattr(_loaded(), f"trifold_{name}")
    function.argtypes = [ctypes.c_int] * 3 + [ctypes.c_void_p] * addresses
    return function  # type: ignore[no-any-return]  # what a library has is of no known type


def _converted(argument: Argument) -> object:
    """An argument as ctypes passes it as an address; None is none."""
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, tuple):
        return (ctypes.c_int64 * len(argument))(*argument)
    return None if argument is None else ctypes.byref(argument)
