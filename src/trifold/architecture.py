"""A network described as data: rows like the paper's Table 1, unrolled in one place into fully resolved blocks."""

from __future__ import annotations

import json
import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from trifold.errors import InvalidArchitecture

OPERATORS = ("mbconv", "fused_mbconv", "separable", "bottleneck", "basic", "conv")
ACTIVATIONS = ("silu", "relu", "relu6", "hard_swish", "gelu")
SHORTCUT_ALWAYS = ("bottleneck", "basic")
"""Operators whose shortcut becomes a 1x1 projection where the shape changes (He et al. 2015, option B)."""

MAX_CHANNELS = 65_536
MAX_LAYERS = 1_000
MAX_STAGES = 100
MAX_RESOLUTION = 8_192


def _shown(value: object) -> str:
    """The value as a message shows it: short, on one line, whatever it is."""
    try:
        return f"{value!r:.60}"
    except ValueError:
        return "a number of thousands of digits"


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    """Raises InvalidArchitecture unless value is a whole number from low to high."""
    if type(value) is not int or not low <= value <= high:
        raise InvalidArchitecture(f"{name} must be a whole number from {low} to {high}, got {_shown(value)}")


def _check_kernel(value: object) -> None:
    if type(value) is not int or not 1 <= value <= 31 or value % 2 == 0:
        raise InvalidArchitecture(f"kernel_size must be an odd whole number from 1 to 31, got {_shown(value)}")


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if type(value) is not type(allowed[0]) or value not in allowed:
        raise InvalidArchitecture(f"{name} must be {' or '.join(map(str, allowed))}, got {_shown(value)}")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidArchitecture(f"{name} must be a number from {low:g} to {high:g}, got {_shown(value)}")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidArchitecture(f"{name} must be true or false, got {_shown(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One row of the paper's Table 1: `layers` blocks of one kind; only the first has the stride (paper §3.1, eq. 1).

    channels: output channels of every block.
    expand_ratio: width inside the block over its input (`expand_of="input"`, as in MBConv) or over its output
    (`"output"`, as in a ResNet bottleneck: 0.25).
    se_ratio: squeeze width over the block's *input* channels; 0 means no squeeze-excite.
    skip: whether a shortcut is added where the shape allows it (bottleneck and basic project it where it does not).

    Raises InvalidArchitecture naming the field, the value and what is allowed.
    """

    operator: str
    channels: int
    layers: int = 1
    kernel_size: int = 3
    stride: int = 1
    expand_ratio: float = 1
    expand_of: str = "input"
    se_ratio: float = 0
    activation: str = "silu"
    skip: bool = True

    def __post_init__(self) -> None:
        _check_choice("operator", self.operator, OPERATORS)
        _check_whole("channels", self.channels, 1, MAX_CHANNELS)
        _check_whole("layers", self.layers, 1, MAX_LAYERS)
        _check_kernel(self.kernel_size)
        _check_choice("stride", self.stride, (1, 2))
        _check_number("expand_ratio", self.expand_ratio, 0.01, 64)
        _check_choice("expand_of", self.expand_of, ("input", "output"))
        _check_number("se_ratio", self.se_ratio, 0, 4)
        _check_choice("activation", self.activation, ACTIVATIONS)
        _check_bool("skip", self.skip)
        if self.operator in ("separable", "basic", "conv") and self.expand_ratio != 1:
            raise InvalidArchitecture(
                f"expand_ratio must be 1 for operator {self.operator}, got {_shown(self.expand_ratio)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem:
    """The first convolution with batch norm and activation; then a 3x3 max-pool of stride 2 where `max_pool`."""

    channels: int
    kernel_size: int = 3
    stride: int = 2
    activation: str = "silu"
    max_pool: bool = False

    def __post_init__(self) -> None:
        _check_whole("channels", self.channels, 1, MAX_CHANNELS)
        _check_kernel(self.kernel_size)
        _check_choice("stride", self.stride, (1, 2))
        _check_choice("activation", self.activation, ACTIVATIONS)
        _check_bool("max_pool", self.max_pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The 1x1 convolution with batch norm and activation before global pooling; 0 channels means none."""

    channels: int = 0
    activation: str = "silu"

    def __post_init__(self) -> None:
        _check_whole("channels", self.channels, 0, MAX_CHANNELS)
        _check_choice("activation", self.activation, ACTIVATIONS)


class Block(NamedTuple):
    """One fully resolved block: nothing about it is left to be worked out by those who read it.

    stage: 0 for the stem, 1 to n for the rows of the description, n + 1 for the head.
    operator: one of OPERATORS, or "max_pool", or "linear" (global pooling and classifier).
    mid_channels: width inside the block; equal to in_channels where there is no expansion.
    squeeze_channels: 0 where there is no squeeze-excite.
    in_size, out_size: height (= width) in pixels.
    shortcut: "none", "identity" or "projection".
    """

    stage: int
    operator: str
    kernel_size: int
    stride: int
    in_channels: int
    mid_channels: int
    squeeze_channels: int
    out_channels: int
    in_size: int
    out_size: int
    activation: str
    shortcut: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A whole network as data: stem, stages, head and the resolution (pixels) it is meant for."""

    name: str
    resolution: int
    stem: Stem
    stages: tuple[Stage, ...]
    head: Head

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isprintable() or not 1 <= len(self.name) <= 100:
            raise InvalidArchitecture(f"name must be 1 to 100 printable characters, got {_shown(self.name)}")
        _check_whole("resolution", self.resolution, 4, MAX_RESOLUTION)
        if not isinstance(self.stages, tuple) or not all(isinstance(stage, Stage) for stage in self.stages):
            raise InvalidArchitecture(f"stages must be a tuple of Stage, got {_shown(self.stages)}")
        if not 1 <= len(self.stages) <= MAX_STAGES:
            raise InvalidArchitecture(f"stages must hold 1 to {MAX_STAGES} rows, got {len(self.stages)}")

    def blocks(self, *, num_classes: int = 1000, in_channels: int = 3) -> tuple[Block, ...]:
        """Every block from stem to classifier, in order, with channels and sizes resolved.

        Cost, network, latency tables and reports all read this; nothing else unrolls stages. Equal blocks that
        follow each other are one object. Strided sizes are ceil(n / stride): what SAME and symmetric padding both
        give for odd kernels. num_classes 0 leaves the classifier out.

        Raises InvalidArchitecture if num_classes or in_channels is out of range.
        """
        _check_whole("num_classes", num_classes, 0, 1_000_000)
        _check_whole("in_channels", in_channels, 1, MAX_CHANNELS)
        stem, size = self.stem, self.resolution
        out_size = -(-size // stem.stride)
        rows = [
            Block(0, "conv", stem.kernel_size, stem.stride, in_channels, in_channels, 0, stem.channels, size, out_size,
                  stem.activation, "none")
        ]  # fmt: skip
        channels, size = stem.channels, out_size
        if stem.max_pool:
            out_size = -(-size // 2)
            rows.append(Block(0, "max_pool", 3, 2, channels, channels, 0, channels, size, out_size, "none", "none"))
            size = out_size
        for number, stage in enumerate(self.stages, start=1):
            first = _resolve(stage, number, channels, size, stage.stride)
            rows.append(first)
            channels, size = first.out_channels, first.out_size
            if stage.layers > 1:
                rows.extend([_resolve(stage, number, channels, size, 1)] * (stage.layers - 1))
        last = len(self.stages) + 1
        if self.head.channels:
            rows.append(Block(last, "conv", 1, 1, channels, channels, 0, self.head.channels, size, size,
                              self.head.activation, "none"))  # fmt: skip
            channels = self.head.channels
        if num_classes:
            rows.append(Block(last, "linear", 1, 1, channels, channels, 0, num_classes, 1, 1, "none", "none"))
        return tuple(rows)

    @property
    def num_blocks(self) -> int:
        """Number of blocks in the stages, stem and head not counted (16 for B0)."""
        return sum(stage.layers for stage in self.stages)


def inner_channels(stage: Stage, in_channels: int, out_channels: int) -> int:
    """The width inside a block of the stage with these channels; MBConv expands where it is not in_channels."""
    if stage.operator in ("separable", "conv"):
        return in_channels
    if stage.operator == "basic":
        return out_channels
    return max(1, int((in_channels if stage.expand_of == "input" else out_channels) * stage.expand_ratio))


def _resolve(stage: Stage, number: int, in_channels: int, size: int, stride: int) -> Block:
    """The block of a stage that takes in_channels at size pixels (squeeze and expansion as in TensorFlow's code)."""
    out_channels = stage.channels
    mid_channels = inner_channels(stage, in_channels, out_channels)
    squeeze = max(1, int(in_channels * stage.se_ratio)) if stage.se_ratio else 0
    same_shape = stride == 1 and in_channels == out_channels
    if not stage.skip:
        shortcut = "none"
    elif same_shape:
        shortcut = "identity"
    else:
        shortcut = "projection" if stage.operator in SHORTCUT_ALWAYS else "none"
    return Block(number, stage.operator, stage.kernel_size, stride, in_channels, mid_channels, squeeze, out_channels,
                 size, -(-size // stride), stage.activation, shortcut)  # fmt: skip


def to_dict(architecture: Architecture) -> dict[str, Any]:
    """The architecture as plain numbers, strings, lists and dicts; fields at their default are left out of stages."""
    return {
        "name": architecture.name,
        "resolution": architecture.resolution,
        "stem": _row(architecture.stem),
        "stages": [_row(stage) for stage in architecture.stages],
        "head": _row(architecture.head),
    }


def _row(value: Stage | Stem | Head) -> dict[str, Any]:
    row = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: item for name, item in row.items() if item != type(value).__dataclass_fields__[name].default}


def from_dict(data: object, *, source: str = "architecture") -> Architecture:
    """The architecture that to_dict wrote, or that a TOML or JSON file holds.

    Raises InvalidArchitecture naming source, row, field, value and what is allowed; unknown fields are refused.
    """
    table = _table(data, source, Architecture)
    rows = table["stages"]
    if not isinstance(rows, list | tuple):
        raise InvalidArchitecture(f"{source}: stages must be a list with one row a stage, got {_shown(rows)}")
    stem = _build(table["stem"], f"{source}: stem", Stem)
    stages = tuple(_build(row, f"{source}: stages row {i}", Stage) for i, row in enumerate(rows, start=1))
    head = _build(table.get("head", {}), f"{source}: head", Head)
    try:
        return Architecture(name=table["name"], resolution=table["resolution"], stem=stem, stages=stages, head=head)
    except InvalidArchitecture as error:
        raise InvalidArchitecture(f"{source}: {error}") from None


T = TypeVar("T", Stage, Stem, Head)


def _build(data: object, where: str, kind: type[T]) -> T:
    values = _table(data, where, kind)
    try:
        return kind(**values)
    except InvalidArchitecture as error:
        raise InvalidArchitecture(f"{where}: {error}") from None


def _table(data: object, where: str, kind: type[Any]) -> dict[str, Any]:
    """The data as a dict with every required field of kind and no other."""
    if not isinstance(data, dict):
        raise InvalidArchitecture(f"{where} must be a table of fields, got {_shown(data)}")
    allowed = [field.name for field in fields(kind)]
    for name in data:
        if name not in allowed:
            raise InvalidArchitecture(f"{where}: unknown field {_shown(name)}; allowed are {', '.join(allowed)}")
    required = [field.name for field in fields(kind) if field.default is MISSING and field.name != "head"]
    for name in required:
        if name not in data:
            raise InvalidArchitecture(f"{where}: field {name} is missing")
    return data


def read(path: str | Path) -> Architecture:
    """The architecture in a .toml or .json file.

    Raises InvalidArchitecture if the file is absent, not TOML or JSON, or breaks a rule of the description.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidArchitecture(f"{path}: cannot be read: {reason}") from None
    try:
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise InvalidArchitecture(f"{path}: not valid {kind}: {' '.join(str(error).split())}") from None
    return from_dict(data, source=str(path))


def to_toml(architecture: Architecture) -> str:
    """The architecture as TOML text, one row a stage; `from_dict(tomllib.loads(text))` gives it back."""
    data = to_dict(architecture)
    rows = "".join(f"  {_inline(row)},\n" for row in data["stages"])
    return (
        f"name = {_toml_value(data['name'])}\nresolution = {data['resolution']}\n"
        f"stem = {_inline(data['stem'])}\nstages = [\n{rows}]\nhead = {_inline(data['head'])}\n"
    )


def _inline(row: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{name} = {_toml_value(value)}" for name, value in row.items()) + " }"


def _toml_value(value: str | float | bool) -> str:
    """A TOML literal; JSON's strings, numbers and booleans are also TOML's."""
    return json.dumps(value, ensure_ascii=False)
