"""Recipes: everything about a training that is not the network, the data or the seed, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from trifold.errors import InvalidInput

OPTIMIZERS = ("adamw", "sgd")
PADDINGS = ("same", "same_static", "symmetric")
"""As `layers.PADDINGS`, which a recipe cannot import: it needs no torch."""
_RANGES: dict[str, tuple[float, float]] = {
    "lr": (1e-8, 100),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 1),
    "label_smoothing": (0, 0.99),
    "warmup_epochs": (0, 10_000),
    "drop_rate": (0, 0.95),
    "drop_path_rate": (0, 0.95),
    "shift": (0, 0.5),
    "rotation": (0, 180),
    "zoom": (0, 0.9),
    "bn_eps": (1e-10, 0.1),
    "bn_momentum": (1e-6, 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    batch_size: images a step, at least 2 for batch norm; an epoch's images are dealt evenly, so no step is much
    smaller than the others.
    lr: the highest learning rate; it rises linearly over warmup_epochs, then falls along half a cosine to 0.
    momentum: of SGD (Nesterov's), or AdamW's first beta. weight_decay: on kernels and matrices only.
    shift, rotation, zoom, horizontal_flip: see `data.augment.augment`; images that may not be mirrored never are.
    bn_eps, bn_momentum, padding: see `layers.Numerics`.

    Raises InvalidInput naming the field, the value and what is allowed.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    warmup_epochs: float = 0.0
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    horizontal_flip: bool = False
    bn_eps: float = 1e-3
    bn_momentum: float = 0.1
    padding: str = "symmetric"

    def __post_init__(self) -> None:
        for name, low, high in (("epochs", 1, 100_000), ("batch_size", 2, 65_536)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise InvalidInput(f"recipe: {name} must be a whole number from {low} to {high}, got {value!r}")
        for name, allowed in (("optimizer", OPTIMIZERS), ("padding", PADDINGS)):
            if getattr(self, name) not in allowed:
                raise InvalidInput(f"recipe: {name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise InvalidInput(f"recipe: {name} must be a number from {least:g} to {most:g}, got {value!r}")
        if not isinstance(self.horizontal_flip, bool):
            raise InvalidInput(f"recipe: horizontal_flip must be true or false, got {self.horizontal_flip!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def small() -> Recipe:
    """The recipe for images of 8 to 64 pixels and networks of a few million multiply-adds, on a CPU, in minutes.

    Source: AdamW with decoupled decay (1711.05101), half a cosine (1608.03983), label smoothing of the paper's size
    (paper §5.2); the amounts of augmentation are our own first choice, made without looking at test.
    Command: `results/digits/run.sh`; `trifold fit digits --budget multiply-adds=3M --seed S --split-seed S`, S = 0–4,
    and the same at 1M.
    Machine: two cores of an AMD EPYC, torch 2.13.0 on one thread, other work on the other core.
    Time: 83 to 107 s at 3M, 35 to 37 s at 1M.
    Expected on test (359 images a seed; mean, least to most, five seeds, each with a split of its own; results/digits):
    99.55 %, 99.16 to 100 % at 3M; 98.94 %, 98.05 to 100 % at 1M; three nearest neighbours on the same splits 99.00 %.
    """
    return Recipe(
        name="small",
        epochs=25,
        batch_size=64,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.05,
        label_smoothing=0.1,
        warmup_epochs=2.0,
        drop_rate=0.1,
        shift=0.1,
        rotation=10.0,
        zoom=0.1,
        horizontal_flip=True,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"small": small}


def find_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of that name with some fields changed.

    Raises InvalidInput if there is no such recipe or field, or a value is out of range.
    """
    if name not in RECIPES:
        raise InvalidInput(f"recipe must be {' or '.join(RECIPES)}, got {name!r}")
    known = [field.name for field in fields(Recipe)]
    for field in changes or {}:
        if field not in known:
            raise InvalidInput(f"recipe has no field {field!r}; its fields are {', '.join(known)}")
    return replace(RECIPES[name](), **(changes or {}))


def from_dict(data: Mapping[str, Any]) -> Recipe:
    """The recipe that to_dict wrote. Raises InvalidInput if a field is missing, unknown or out of range."""
    try:
        return Recipe(**data)
    except TypeError as error:
        raise InvalidInput(f"recipe: fields do not fit: {error}") from None
