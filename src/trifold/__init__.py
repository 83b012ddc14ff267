"""Trifold: scale a convolutional network's depth, width and resolution together, to a budget.

Importing this loads no torch: the names that need it are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trifold.architecture import Architecture, Block, Head, Stage, Stem, read, to_toml
from trifold.baselines import find, list_models
from trifold.budget import Budget, Fit, fit
from trifold.cost import Cost
from trifold.errors import ImpossibleBudget, InvalidArchitecture, InvalidData, InvalidInput
from trifold.preprocessing import Preprocessing
from trifold.scaling import PAPER, RULES, Coefficients, Multipliers, Rounding, scale
from trifold.weight_sets import WeightSet, find_weights, weight_sets

if TYPE_CHECKING:
    from trifold.create import create_model
    from trifold.network import Network, Numerics, build
    from trifold.train.share import from_hub, push_to_hub

__version__ = "0.1.0"

_NEED_TORCH = {
    "Network": "trifold.network",
    "Numerics": "trifold.network",
    "build": "trifold.network",
    "create_model": "trifold.create",
    "from_hub": "trifold.train.share",
    "push_to_hub": "trifold.train.share",
}

__all__ = [
    "PAPER",
    "RULES",
    "Architecture",
    "Block",
    "Budget",
    "Coefficients",
    "Cost",
    "Fit",
    "Head",
    "ImpossibleBudget",
    "InvalidArchitecture",
    "InvalidData",
    "InvalidInput",
    "Multipliers",
    "Network",
    "Numerics",
    "Preprocessing",
    "Rounding",
    "Stage",
    "Stem",
    "WeightSet",
    "build",
    "create_model",
    "find",
    "find_weights",
    "fit",
    "from_hub",
    "list_models",
    "push_to_hub",
    "read",
    "scale",
    "to_toml",
    "weight_sets",
]


def __getattr__(name: str) -> Any:
    """The names that need torch, imported at their first use."""
    if name in _NEED_TORCH:
        return getattr(importlib.import_module(_NEED_TORCH[name]), name)
    raise AttributeError(f"module 'trifold' has no attribute {name!r}")
