"""The guard of trifold._torchvision: it declares what is missing, and nothing where torchvision is complete."""

import subprocess
import sys

import pytest
import torch

from trifold import _torchvision
from trifold._torchvision import torchvision, v2

DECLARE_BOTH = """
import torch
complete = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    complete.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def run_fresh(program: str) -> str:
    """What a program prints in a fresh interpreter, where a warning is an error."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_transforms_work() -> None:
    images = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    augment = v2.Compose([v2.Resize(32), v2.RandAugment(), v2.RandomCrop(28)])
    assert augment(images).shape == (2, 3, 28, 28)


def test_models_work() -> None:
    model = torchvision.models.efficientnet_b0().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_288_548
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_timm_works() -> None:
    import timm

    model = timm.create_model("efficientnet_b0")
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_288_548


def test_after_the_import_nothing_is_missing() -> None:
    assert _torchvision.missing_operators() == ()
    assert _torchvision.declare_missing_operators() is None


def test_fresh_interpreter_imports_timm_after_the_guard() -> None:
    assert run_fresh("import trifold._torchvision, timm; print(timm.__name__)") == "timm"


def test_declares_nothing_where_the_operators_are_registered() -> None:
    program = DECLARE_BOTH + "from trifold import _torchvision\nprint(_torchvision._DECLARATION)"
    assert run_fresh(program) == "None"


def test_declares_nothing_where_the_extension_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torchvision, "missing_operators", lambda: ("nms", "qnms"))
    loaded: list[str] = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    assert _torchvision.declare_missing_operators() is None
    assert len(loaded) == 1


def test_an_extension_that_does_not_load_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise OSError(f"libtorch_cuda.so: cannot open shared object file, wanted by {path}")

    monkeypatch.setattr(torch.ops, "load_library", refuse)
    assert not _torchvision.load_extension()


def test_a_missing_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="torchvision is not installed"):
        _torchvision.load_extension()
