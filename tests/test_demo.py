"""What `make demo` and `make bench` run, at smoke size."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from trifold.baselines import find
from trifold.cost import cost
from trifold.train.recipes import find_recipe

ROOT = Path(__file__).parent.parent


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_demo_trains_at_two_budgets_and_shows_both_on_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = script("scripts/demo.py")
    monkeypatch.setattr(demo, "FOLDER", tmp_path / "demo")
    monkeypatch.setattr(demo, "find_recipe", lambda name, network: find_recipe(name, network, {"epochs": 1}))
    demo.main()
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith(("1M ", "3M "))]
    assert [row[0] for row in rows] == ["1M", "3M"]
    assert all("98.6" in row for row in rows)  # three nearest neighbours on the split of seed 0
    with Image.open(tmp_path / "demo" / "budgets.png") as picture:
        assert min(picture.size) > 400


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fvcore still traces by torch.jit
def test_the_peers_of_the_benchmark_count_the_same_network() -> None:
    for package in ("fvcore", "ptflops"):
        pytest.importorskip(package, reason=f"{package} is a peer of `make bench` alone")
    counted = {name: call() / unit for name, (call, unit) in script("benchmarks/run.py").peers(find("mini")).items()}
    expected = cost(find("mini")).multiply_adds
    assert counted["FlopCounterMode"] == expected
    assert all(0.9 * expected < value < 1.3 * expected for value in counted.values())
