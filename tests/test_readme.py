"""Every command and every line of code in the README runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("trifold ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image to predict."""
    path = tmp_path_factory.mktemp("readme")
    Image.fromarray((load_digits().images[0] * 15.9375).astype("uint8")).save(path / "image.png")
    return path


def run(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_readmes_commands_run_in_order(folder: Path) -> None:
    found = commands()
    assert {line.split()[1] for line in found} == {
        "show", "list", "scale", "family", "explain", "paper", "fit", "train", "evaluate", "predict", "doctor",
        "directions", "coefficients", "ablate", "search", "report", "cam", "transfer", "miniature", "weights", "share",
        "export",
    }  # fmt: skip
    outputs = {line: run(line, folder) for line in found}
    assert "5,288,548" in outputs["trifold show b0"]
    assert "binding: " in next(out for line, out in outputs.items() if "params=8M" in line)


def test_the_readmes_python_runs_and_says_what_it_shows(folder: Path) -> None:
    (code,) = blocks("python")
    out = run(f"{sys.executable} -c '{code}'", folder)
    phi, binding, resolution, parameters = re.fullmatch(r"(\S+) \('(\w+)',\) (\d+) (\d+)\n", out).groups()  # type: ignore[union-attr]  # no match is a failure
    assert (binding, int(resolution)) == ("parameters", 232)
    assert float(phi) > 0
    assert int(parameters) <= 8_000_000


def test_the_readmes_description_is_a_network(folder: Path) -> None:
    (description,) = blocks("toml")
    (folder / "described.toml").write_text(description)
    assert "mine at 96x96" in run("trifold show described.toml", folder)


def test_make_knows_the_readmes_targets() -> None:
    done = subprocess.run(["make", "--dry-run", "demo", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "scripts/demo.py" in done.stdout
    assert "pytest" in done.stdout


def test_the_readmes_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link
