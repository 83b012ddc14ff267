"""What every test shares: the torchvision guard, a quiet torch, reproducible properties, the folder of real data."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

import trifold._torchvision  # noqa: F401  must come before any test imports timm, which imports torchvision

torch.set_num_threads(1)  # small layers gain nothing from a second thread and lose much where a core is shared

settings.register_profile(
    "trifold",
    deadline=None,  # the first call of a test may import or compile
    derandomize=True,  # the same examples on every machine
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is not a failure
)
settings.register_profile(  # pytest --hypothesis-profile=thorough: for an hour's hunt
    "thorough",
    deadline=None,
    max_examples=2000,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("trifold")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that TRIFOLD_DATA names; the test is skipped where it names none."""
    folder = os.environ.get("TRIFOLD_DATA")
    if not folder:
        pytest.skip("TRIFOLD_DATA is not set: it names the folder of real data that this test reads")
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"TRIFOLD_DATA must name a folder, got {folder!r}")
    return path
