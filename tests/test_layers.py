"""The layer table, read against every import in the package: imports point down the layers."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "trifold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a module may import.

    part: the name other rows shun it by. reaches: the highest layer it may import. shuns: parts that it does not know,
    whatever their layer. bare: the standard library only, nothing third-party, and its part's other bare modules.
    lazy: only layer 0 and what AT_IMPORT_TIME names while it is imported, anything else inside functions.
    """

    layer: int
    part: str
    reaches: int
    shuns: frozenset[str] = frozenset()
    bare: bool = False
    lazy: bool = False


DESCRIPTION = Row(layer=0, part="description", reaches=0, bare=True)
NETWORK = Row(layer=1, part="network", reaches=1)
GUARD = Row(layer=1, part="torchvision", reaches=0)
DATA = Row(layer=1, part="data", reaches=1, shuns=frozenset({"network", "report"}))
REPORT = Row(layer=1, part="report", reaches=1, shuns=frozenset({"network", "data", "torchvision"}))
TRAINING = Row(layer=2, part="train", reaches=2)
USES = Row(layer=3, part="uses", reaches=3)
STUDY = Row(layer=4, part="study", reaches=4)

# A name ending in ".*" is a package with all its modules, unless one of them has a row of its own.
TABLE: dict[str, Row] = {
    "errors": DESCRIPTION,
    "architecture": DESCRIPTION,
    "baselines": DESCRIPTION,
    "published": DESCRIPTION,
    "paper": DESCRIPTION,
    "explain": DESCRIPTION,
    "table": DESCRIPTION,
    "scaling": DESCRIPTION,
    "cost": DESCRIPTION,
    "budget": DESCRIPTION,
    "stages": DESCRIPTION,
    "preprocessing": DESCRIPTION,
    "weight_sets": DESCRIPTION,
    "weight_set_rows": DESCRIPTION,
    "_torchvision": GUARD,
    "layers": NETWORK,
    "kernels.*": NETWORK,
    "network": NETWORK,
    "weights.*": NETWORK,
    "create": NETWORK,
    "measure": NETWORK,
    "export.*": NETWORK,
    "engines.*": NETWORK,
    "data.*": DATA,
    "report.*": REPORT,
    "train.*": TRAINING,
    "train.recipe": Row(layer=2, part="train", reaches=0, bare=True),
    "train.recipes": Row(layer=2, part="train", reaches=0, bare=True),
    "train.schedule": Row(layer=2, part="train", reaches=0, bare=True),
    "trials": USES,
    "claimed": USES,
    "search.*": USES,
    "search.space": Row(layer=3, part="uses", reaches=0, bare=True),
    "search.reward": Row(layer=3, part="uses", reaches=0, bare=True),
    "search.survey": Row(layer=3, part="uses", reaches=0, bare=True),
    "doctor.*": USES,
    "serve": USES,
    "study.*": STUDY,
    "study.directions": Row(layer=4, part="study", reaches=0, bare=True),
    "study.comparison": Row(layer=4, part="study", reaches=0, bare=True),
    "study.hours": Row(layer=4, part="study", reaches=0, bare=True),
    "cli.*": Row(layer=5, part="cli", reaches=5, lazy=True),
    "__main__": Row(layer=5, part="cli", reaches=5, lazy=True),
    "__init__": Row(layer=5, part="public names", reaches=5, lazy=True),
}

AT_IMPORT_TIME = {"cli": frozenset({"click"}), "public names": frozenset[str]()}
"""What a lazy part may import while it is imported, beside layer 0 and itself."""
LAYER_0 = sorted(name for name, row in TABLE.items() if row is DESCRIPTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module by its full dotted name; deferred if importing the importer does not import it."""

    target: str
    deferred: bool
    line: int


def find_row(module: str) -> Row | None:
    """The row of a module named from the package down ("data.sources"), or None if the table has none."""
    package = module.rpartition(".")[0] or module
    return TABLE.get(module) or TABLE.get(f"{package}.*")


def module_name(path: Path) -> str:
    """A file's name from the package down: "errors", "train.loop", "train"; "__init__" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def imports_of(source: str, *, package: str) -> Iterator[Import]:
    """Every import in a module's source; package is the full name that its relative imports start from."""
    yield from walk_imports(ast.parse(source), package, deferred=False)


def walk_imports(node: ast.AST, package: str, *, deferred: bool) -> Iterator[Import]:
    """Every import below a syntax node; those in functions and under TYPE_CHECKING are deferred."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(target=alias.name, deferred=deferred, line=node.lineno)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            target = resolve(node, alias.name, package)
            yield Import(target=target, deferred=deferred, line=node.lineno)
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for statement in node.body:
            yield from walk_imports(statement, package, deferred=True)
        for statement in node.orelse:
            yield from walk_imports(statement, package, deferred=deferred)
    else:
        deferred = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk_imports(child, package, deferred=deferred)


def resolve(node: ast.ImportFrom, name: str, package: str) -> str:
    """The module that ``from x import name`` imports: x.name where the table has a row for it, else x."""
    base = node.module or ""
    if node.level:
        anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*anchor, *([base] if base else [])])
    child = f"{base}.{name}".removeprefix("trifold.")
    known = child in TABLE or f"{child}.*" in TABLE
    return f"{base}.{name}" if base.split(".")[0] == "trifold" and known else base


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What a module's imports break, one sentence each; empty if nothing."""
    row = find_row(module)
    if row is None:
        return [f"{module} has no row in the layer table"]
    full = "trifold" if module == "__init__" else f"trifold.{module}"
    package = full if is_package or module == "__init__" else full.rpartition(".")[0]
    found = (describe(module, row, imported) for imported in imports_of(source, package=package))
    return [sentence for sentence in found if sentence]


def describe(module: str, row: Row, imported: Import) -> str:
    """What one import breaks, as a sentence; empty if nothing."""
    where = f"{module}, line {imported.line}: {imported.target}"
    root, _, rest = imported.target.partition(".")
    early = row.lazy and not imported.deferred
    if root == "trifold":
        return describe_own(where, row, rest or "__init__", early=early)
    if root in sys.stdlib_module_names:
        return ""
    if row.bare:
        return f"{where} is not in the standard library"
    if early and root not in AT_IMPORT_TIME[row.part]:
        return f"{where} must be imported inside a function"
    if root == "matplotlib" and row.part != "report":
        return f"{where} belongs in report/ only"
    return ""


def describe_own(where: str, row: Row, target: str, *, early: bool) -> str:
    """What an import of this package's own module breaks, as a sentence; empty if nothing."""
    other = find_row(target)
    if other is None:
        return f"{where} has no row in the layer table"
    siblings = row.bare and other.bare and row.part == other.part
    if other.layer > row.reaches and not siblings:
        return f"{where} is of layer {other.layer}, above {row.reaches}"
    if other.part in row.shuns:
        return f"{where} is {other.part}, which {row.part} does not know"
    if early and other.layer > 0 and target != "__init__" and other.part != row.part:
        return f"{where} must be imported inside a function"
    return ""


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_imports_point_down_the_layers(path: Path) -> None:
    assert violations(module_name(path), path.read_text("utf-8"), is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("cost", "import torch", "not in the standard library"),
        ("cost", "def count():\n    import numpy as np", "not in the standard library"),
        (
            "cost",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
            "not in the standard library",
        ),
        ("cost", "from trifold.network import build", "trifold.network is of layer 1, above 0"),
        ("cost", "from trifold import network", "trifold.network is of layer 1, above 0"),
        ("cost", "from . import network", "trifold.network is of layer 1, above 0"),
        ("cost", "from .network import build", "trifold.network is of layer 1, above 0"),
        ("cost", "from trifold import Architecture", "trifold is of layer 5, above 0"),
        ("cost", "import trifold.kernels.depthwise", "trifold.kernels.depthwise is of layer 1, above 0"),
        ("network", "from trifold.train.loop import fit", "is of layer 2, above 1"),
        ("network", "from trifold.train import recipe", "trifold.train.recipe is of layer 2, above 1"),
        ("network", "try:\n    import matplotlib.pyplot\nexcept ImportError:\n    pass", "belongs in report/ only"),
        ("_torchvision", "from trifold.data import sources", "is of layer 1, above 0"),
        ("data.loader", "from trifold.network import build", "is network, which data does not know"),
        ("data.loader", "from ..layers import MBConv", "trifold.layers is network, which data does not know"),
        ("data.loader", "from trifold.report.figure import draw", "is report, which data does not know"),
        ("report.page", "import trifold.data.sources", "is data, which report does not know"),
        ("report.page", "from trifold import measure", "is network, which report does not know"),
        ("train.loop", "from trifold.search.space import sample", "is of layer 3, above 2"),
        ("train.recipe", "from trifold.layers import MBConv", "is of layer 1, above 0"),
        ("train.recipe", "from .loop import fit", "trifold.train.loop is of layer 2, above 0"),
        ("train.schedule", "import torch", "not in the standard library"),
        ("search.space", "import optuna", "not in the standard library"),
        ("study.directions", "from trifold.train.recipe import Recipe", "is of layer 2, above 0"),
        ("serve", "import trifold.cli", "is of layer 5, above 3"),
        ("cli", "import torch", "must be imported inside a function"),
        ("cli", "from trifold.network import build", "must be imported inside a function"),
        ("cli", "class Command:\n    from trifold.train import fit", "must be imported inside a function"),
        ("__init__", "from trifold.network import build", "must be imported inside a function"),
        ("__init__", "import click", "must be imported inside a function"),
        ("cost", "from trifold.helpers import flatten", "trifold.helpers has no row in the layer table"),
        ("helpers", "", "helpers has no row in the layer table"),
        ("helpers.text", "", "helpers.text has no row in the layer table"),
    ],
)
def test_the_checker_catches(module: str, source: str, complaint: str) -> None:
    found = violations(module, source)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "cost",
            "import math\nfrom trifold.architecture import Block\nfrom trifold import errors\nfrom . import scaling",
        ),
        ("network", "import torch\nfrom trifold.layers import MBConv\nfrom trifold.kernels import depthwise"),
        ("export", "def gate():\n    from trifold.data.loader import Loader"),
        ("data.loader", "from trifold._torchvision import v2\nfrom . import sources\nfrom ..errors import DataError"),
        ("report.figure", "import matplotlib.pyplot as plt\nfrom trifold.cost import Cost"),
        ("train.loop", "from trifold.train import recipe\nfrom trifold.data.loader import Loader"),
        ("train.recipe", "from dataclasses import dataclass\nfrom trifold.architecture import Architecture"),
        ("study.family", "from trifold.search.run import search\nfrom trifold.study import directions"),
        ("cli", "import click\nfrom trifold import errors, __version__\ndef main():\n    import trifold.study.family"),
        ("__init__", "from trifold.cost import Cost\ndef __getattr__(name):\n    from trifold.network import build"),
        ("__init__", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from trifold.network import build"),
    ],
)
def test_the_checker_allows(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_relative_imports_of_a_package_start_from_itself() -> None:
    found = violations("train", "from .loop import fit\nfrom ..search import run", is_package=True)
    assert found == ["train, line 2: trifold.search is of layer 3, above 2"]


@pytest.mark.parametrize("module", ["__init__", *LAYER_0])
def test_the_description_loads_nothing_heavy(module: str) -> None:
    name = "trifold" if module == "__init__" else f"trifold.{module}"
    program = f"import sys, {name}; print(*sorted({{'torch', 'numpy', 'matplotlib'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
