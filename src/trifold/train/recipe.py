"""A recipe: everything about a training that is not the network, the data or the seed, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trifold.errors import InvalidInput

PADDINGS = ("same", "same_static", "symmetric")
"""As `layers.PADDINGS`, which a recipe cannot import: it needs no torch."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("adamw", "sgd", "rmsprop_tf"),
    "schedule": ("cosine", "exponential", "constant"),
    "decay": ("kernels", "all_but_norm"),
    "policy": ("none", "auto_augment", "rand_augment"),
    "balance": ("none", "weights", "sampler"),
    "normalisation": ("measured", "imagenet", "half"),
    "padding": PADDINGS,
    "precision": ("float32", "bfloat16", "float16"),
}
_WHOLE: dict[str, tuple[int, int]] = {
    "epochs": (1, 100_000),
    "batch_size": (2, 65_536),
    "accumulate": (1, 1024),
    "lr_batch": (0, 65_536),
    "patience": (0, 100_000),
    "head_epochs": (0, 100_000),
    "policy_ops": (1, 8),
    "pad_crop": (0, 256),
}
_RANGES: dict[str, tuple[float, float]] = {
    "lr": (1e-8, 100),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 1),
    "decay_rate": (0.01, 1),
    "decay_epochs": (0.01, 100_000),
    "label_smoothing": (0, 0.99),
    "warmup_epochs": (0, 10_000),
    "ema_decay": (0, 0.999999),
    "clip_norm": (0, 1e6),
    "layer_decay": (0.01, 1),
    "drop_rate": (0, 0.95),
    "drop_path_rate": (0, 0.95),
    "shift": (0, 0.5),
    "rotation": (0, 180),
    "zoom": (0, 0.9),
    "crop_area": (0.05, 1),
    "policy_magnitude": (0, 10),
    "mixup": (0, 10),
    "cutmix": (0, 10),
    "bn_eps": (1e-10, 0.1),
    "bn_momentum": (1e-6, 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train. Numbers of 0 switch their field off where that is sensible.

    batch_size: images a step, over all processes, at least 2 for batch norm; an epoch's images are dealt evenly, so no
    step is much smaller than the others. accumulate: a step's images run through in so many parts, one after another.
    optimizer: adamw, sgd (Nesterov's momentum) or rmsprop_tf (TensorFlow's: epsilon 1e-3 within the root, mean squares
    that begin at 1). momentum: of SGD and RMSProp, or AdamW's first beta.
    lr: the highest learning rate; lr_batch: for so many images a step, and in proportion for others; 0: as it stands.
    schedule: cosine: a line up over warmup_epochs, then half a cosine to 0; exponential: times decay_rate every
    decay_epochs, counted from the first step, with the line up before it (paper §5.2); constant: the line up alone.
    weight_decay: decoupled for AdamW, else added to the gradient. decay: what decays: kernels and matrices, or
    everything but batch norm (as the paper's code has it).
    ema_decay: of the moving average of weights and batch-norm statistics, which is then what is evaluated and kept.
    clip_norm: the gradient's norm is cut to it. patience: epochs without a better minival loss before training stops.
    head_epochs: first so many epochs train the classifier alone. layer_decay: each row of the network, counted back
    from the classifier, has this share of the next one's rate. freeze_bn: batch norm keeps statistics, scale and shift.
    balance: classes of unequal size: weights in the loss, or a sampler that draws each class equally often.
    shift, rotation, zoom, horizontal_flip: see `data.augment.augment`; images that may not be mirrored never are.
    crop_area: random crops of at least this share of the area, stretched to the whole; pad_crop: zeros all round, so
    many pixels, and a crop of the first size.
    policy: see `data.policy`; policy_ops and policy_magnitude (of 10) are RandAugment's N and M.
    mixup, cutmix: alpha of the Beta distribution of their shares; where both are given, each step takes one.
    bn_eps, bn_momentum, padding: see `layers.Numerics`. normalisation: mean and standard deviation measured on train,
    or ImageNet's, or one half each, as pretrained weights need it.
    precision: of the forward pass (autocast); weights stay float32. channels_last: how images lie in memory.
    sync_bn: batch-norm statistics over all processes; GPUs only. compile: with torch.compile. grad_checkpointing:
    blocks' insides are computed again for the gradient, for less memory.

    Raises InvalidInput naming the field, the value and what is allowed.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    accumulate: int = 1
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay: str = "kernels"
    lr_batch: int = 0
    schedule: str = "cosine"
    decay_rate: float = 0.97
    decay_epochs: float = 2.4
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    clip_norm: float = 0.0
    patience: int = 0
    head_epochs: int = 0
    layer_decay: float = 1.0
    freeze_bn: bool = False
    balance: str = "none"
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    horizontal_flip: bool = False
    crop_area: float = 1.0
    pad_crop: int = 0
    policy: str = "none"
    policy_ops: int = 2
    policy_magnitude: float = 9.0
    mixup: float = 0.0
    cutmix: float = 0.0
    bn_eps: float = 1e-3
    bn_momentum: float = 0.1
    padding: str = "symmetric"
    normalisation: str = "measured"
    precision: str = "float32"
    channels_last: bool = True
    sync_bn: bool = False
    compile: bool = False
    grad_checkpointing: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isprintable() or not 1 <= len(self.name) <= 100:
            raise InvalidInput(f"recipe: name must be 1 to 100 printable characters, got {self.name!r:.120}")
        for name, (low, high) in _WHOLE.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise InvalidInput(f"recipe: {name} must be a whole number from {low} to {high}, got {value!r}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InvalidInput(f"recipe: {name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise InvalidInput(f"recipe: {name} must be a number from {least:g} to {most:g}, got {value!r}")
        for name in ("freeze_bn", "horizontal_flip", "channels_last", "sync_bn", "compile", "grad_checkpointing"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(f"recipe: {name} must be true or false, got {getattr(self, name)!r}")
        if self.batch_size < 2 * self.accumulate:
            raise InvalidInput(
                f"recipe: accumulate must leave each part 2 images of batch_size {self.batch_size}, got "
                f"{self.accumulate}"
            )

    @property
    def highest_lr(self) -> float:
        """The highest learning rate at this batch size."""
        return self.lr * self.batch_size / self.lr_batch if self.lr_batch else self.lr

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def fractions(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with whole numbers as fractions where the field has one: `--set lr=1` is lr=1.0, also in digests."""
    return {name: float(one) if name in _RANGES and type(one) is int else one for name, one in values.items()}


def from_dict(data: Mapping[str, Any]) -> Recipe:
    """The recipe that to_dict wrote. Raises InvalidInput if a field is missing, unknown or out of range."""
    try:
        return Recipe(**fractions(data))
    except TypeError as error:
        raise InvalidInput(f"recipe: fields do not fit: {error}") from None


def difference(recipe: Recipe, base: Recipe) -> tuple[tuple[str, Any, Any], ...]:
    """What a recipe changes of another: (field, the base's value, the recipe's), in the order of the fields."""
    return tuple(
        (field.name, getattr(base, field.name), getattr(recipe, field.name))
        for field in fields(Recipe)
        if getattr(base, field.name) != getattr(recipe, field.name)
    )
