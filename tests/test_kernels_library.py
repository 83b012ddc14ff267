"""Which instruction set the kernels use, where they were not compiled, and whose threads they run on."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from trifold.errors import InvalidInput
from trifold.kernels import depthwise, instruction_set
from trifold.kernels.library import SETS, _loaded

LIBRARY = _loaded()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the kernels were not compiled: no C compiler with OpenMP")
USABLE = SETS[: LIBRARY.trifold_best() + 1] if LIBRARY else ()


def test_the_environment_switches_them_off_or_names_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIFOLD_KERNELS", "off")
    assert instruction_set() == "off"
    monkeypatch.setenv("TRIFOLD_KERNELS", "base")
    assert instruction_set() == "base"
    monkeypatch.delenv("TRIFOLD_KERNELS")
    assert instruction_set() == USABLE[-1]
    monkeypatch.setenv("TRIFOLD_KERNELS", "of")
    with pytest.raises(InvalidInput, match=r"TRIFOLD_KERNELS must be best, off, base .* got 'of'"):
        instruction_set()


def test_without_a_compiled_library_torchs_own_are_used_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trifold.kernels.library.EXTENSION_SUFFIXES", [".no-such-suffix"])
    _loaded.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert instruction_set() == "off"
            assert instruction_set() == "off"
        assert [record.message.partition(" (")[0] for record in caplog.records] == ["kernels: not compiled"]
        with pytest.raises(RuntimeError, match="depthwise_forward was not compiled"):
            depthwise(torch.zeros(1, 2, 3, 3), torch.zeros(2, 1, 3, 3), 1, (1, 1), (3, 3))
    finally:
        _loaded.cache_clear()


def test_they_share_torchs_own_pool_of_threads() -> None:
    """A second OpenMP runtime would start threads of its own."""
    program = (
        "import os, torch; torch.set_num_threads(2); torch.randn(999, 999) @ torch.randn(999, 999);"
        "from trifold.kernels import depthwise; before = len(os.listdir('/proc/self/task'));"
        "depthwise(torch.zeros(8, 32, 9, 9), torch.zeros(32, 1, 3, 3), 1, (1, 1), (9, 9));"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    if sys.platform != "linux":
        pytest.skip("threads are counted in /proc")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
