"""Writes tests/golden/ anew: `python tests/golden/make.py`, after a change that is meant to change losses."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.test_golden import GOLDEN, golden_text, made_by, trained_losses

if __name__ == "__main__":
    for kernels, path in GOLDEN.items():
        path.write_text(golden_text(trained_losses(kernels), made_by(kernels)), encoding="utf-8")
