"""A search space as data: a baseline and the options of each decision (MnasNet's factorised space, 1807.11626 §4.1).

Within a stage all blocks are alike, so a candidate is one choice a stage and field: an index into each decision's
options. Needs no torch: candidates are made, checked and costed in tens of microseconds.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby, product
from pathlib import Path
from typing import Any, NamedTuple

from trifold.architecture import SHORTCUT_ALWAYS, Architecture, Stage, from_dict, to_dict
from trifold.errors import InvalidArchitecture, InvalidInput
from trifold.scaling import Rounding, round_channels

Tokens = tuple[int, ...]
"""A candidate: the index of the chosen option of each decision, in the order of the space's decisions."""

Option = str | int | float | bool

STAGE_FIELDS = ("operator", "kernel_size", "se_ratio", "skip", "expand_ratio", "width", "layers")
"""What can be chosen of a stage. width: what the baseline's channels are multiplied by; layers: what is added to the
baseline's; the others are `architecture.Stage`'s own and stand as they are."""

RESOLUTION = "resolution"
"""What can be chosen of the whole network, in pixels; its decision has the stage 0."""

_WITHOUT_EXPANSION = ("separable", "basic", "conv")
_ORDERED = ("kernel_size", "se_ratio", "expand_ratio", "width", "layers", RESOLUTION)

Measure = Callable[[Architecture], float]
"""What a candidate costs: multiply-adds, parameters, milliseconds …"""


class Decision(NamedTuple):
    """Something to be chosen. stage: from 1; 0 for the whole network. field: of STAGE_FIELDS, or RESOLUTION."""

    stage: int
    field: str
    options: tuple[Option, ...]

    @property
    def name(self) -> str:
        """As a storage and a table show it: "stage 2 kernel_size"."""
        return _name(self.stage, self.field)


def _name(stage: int, field_name: str) -> str:
    return f"stage {stage} {field_name}" if stage else field_name


MNASNET: Mapping[str, tuple[Option, ...]] = {
    "operator": ("conv", "separable", "mbconv"),
    "kernel_size": (3, 5, 7),
    "se_ratio": (0, 0.25),
    "skip": (True, False),
    "expand_ratio": (3, 6),
    "width": (0.75, 1, 1.25),
    "layers": (-1, 0, 1),
}
"""Every stage's options in MnasNet's space (1807.11626 §4.1), with the kernel of 7 that later searches added. Its third
skip operation, pooling, is not in our blocks."""


MOST_ROWS = 200_000
"""How many combinations a stage may have: all are made, and checked, with the space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What a search may choose, around a baseline; a field without a decision stays as it is there.

    decisions: at least one, none twice, in the order of their stages. rounding: how multiplied channels become whole.

    Raises InvalidInput naming the decision, the option and what is allowed.
    """

    baseline: Architecture
    decisions: tuple[Decision, ...]
    rounding: Rounding = field(default_factory=Rounding)
    _rows: tuple[tuple[slice, dict[Tokens, Stage]], ...] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        if not self.decisions:
            raise InvalidInput("space: there is nothing to choose: it must hold at least one decision")
        for one in self.decisions:
            _check_decision(one, len(self.baseline.stages))
        seen = [(one.stage, one.field) for one in self.decisions]
        for stage, name in seen:
            if seen.count((stage, name)) > 1:
                raise InvalidInput(f"space: {_name(stage, name)} must be decided once, got it twice")
        if [stage for stage, _ in seen] != sorted(stage for stage, _ in seen):
            raise InvalidInput("space: decisions must stand in the order of their stages")
        for pixels in self.resolutions:
            try:
                replace(self.baseline, resolution=pixels)
            except InvalidArchitecture as error:
                raise InvalidInput(f"space: {error}") from None
        object.__setattr__(self, "_rows", tuple(map(self._stage_rows, range(1, len(self.baseline.stages) + 1))))

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many options each decision has."""
        return tuple(len(one.options) for one in self.decisions)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The resolutions to choose from, in pixels; the baseline's where they are no decision."""
        found = [one.options for one in self.decisions if one.stage == 0]
        return found[0] if found else (self.baseline.resolution,)  # type: ignore[return-value]  # checked when made

    def architecture(self, tokens: Tokens) -> Architecture:
        """The network of these choices; choices that make no difference in it give equal networks.

        An expand ratio belongs to blocks that expand; a shortcut to a stage where one of its blocks can have one.
        Raises InvalidInput if there is not one index in range for each decision.
        """
        rows, channels = [], self.baseline.stem.channels
        try:
            for chosen, table in self._rows:
                row = _same(table[tokens[chosen]], channels)
                rows.append(row)
                channels = row.channels
            first = tokens[0] if self.decisions[0].stage == 0 else 0
            if len(tokens) != len(self.decisions) or first < 0:
                raise IndexError
            pixels = self.resolutions[first]
        except (LookupError, TypeError):
            raise InvalidInput(
                f"tokens must be {len(self.decisions)} indices below {self.sizes}, got {tokens}"
            ) from None
        return replace(self.baseline, resolution=pixels, stages=tuple(rows))

    def stage_rows(self, stage: int, in_channels: int) -> frozenset[Stage]:
        """The different rows that a stage, counted from 1, may be, given the channels that come into it."""
        return frozenset(_same(row, in_channels) for row in self._rows[stage - 1][1].values())

    def _stage_rows(self, stage: int) -> tuple[slice, dict[Tokens, Stage]]:
        """Where a stage's tokens stand, and its row for each choice of them."""
        places = [i for i, one in enumerate(self.decisions) if one.stage == stage]
        own = [self.decisions[i] for i in places]
        if math.prod(len(one.options) for one in own) > MOST_ROWS:
            raise InvalidInput(f"space: stage {stage} must have at most {MOST_ROWS:,} combinations of options")
        rows = {}
        for tokens in product(*(range(len(one.options)) for one in own)):
            chosen = {one.field: one.options[token] for token, one in zip(tokens, own, strict=True)}
            try:
                rows[tokens] = _row(self.baseline.stages[stage - 1], chosen, self.rounding)
            except InvalidArchitecture as error:
                raise InvalidInput(f"space: stage {stage}: {error}") from None
        return slice(places[0], places[-1] + 1) if places else slice(0, 0), rows


def _check_decision(one: Decision, stages: int) -> None:
    if one.stage == 0:
        allowed: tuple[str, ...] = (RESOLUTION,)
    elif 1 <= one.stage <= stages:
        allowed = STAGE_FIELDS
    else:
        raise InvalidInput(f"space: stage must be from 1 to {stages}, the baseline's stages, got {one.stage}")
    if one.field not in allowed:
        raise InvalidInput(f"space: field must be {' or '.join(allowed)}, got {one.field!r}")
    if not one.options:
        raise InvalidInput(f"space: {one.name} must have at least one option, got none")
    if len({(type(option), option) for option in one.options}) < len(one.options) or len(set(one.options)) < len(
        one.options
    ):
        raise InvalidInput(f"space: {one.name} must have each option once, got {list(one.options)}")
    if one.field == "width":
        for option in one.options:
            if isinstance(option, bool) or not isinstance(option, int | float) or not 0.01 <= option <= 100:
                raise InvalidInput(f"space: {one.name} must be numbers from 0.01 to 100, got {option!r}")
    if one.field == "layers":
        for option in one.options:
            if type(option) is not int or not -100 <= option <= 100:
                raise InvalidInput(f"space: {one.name} must be whole numbers from -100 to 100, got {option!r}")


def _row(stage: Stage, chosen: dict[str, Any], rounding: Rounding) -> Stage:
    """A baseline's row with these fields chosen; a stage keeps at least one layer."""
    width, layers = chosen.pop("width", 1), chosen.pop("layers", 0)
    chosen["channels"] = round_channels(stage.channels, width, rounding)
    chosen["layers"] = max(1, stage.layers + layers)
    if chosen.get("operator", stage.operator) in _WITHOUT_EXPANSION:
        chosen["expand_ratio"] = 1
    return replace(stage, **chosen)


def _same(row: Stage, in_channels: int) -> Stage:
    """The row with its shortcut switched on where none of its blocks can have one."""
    if row.skip or row.layers > 1 or row.operator in SHORTCUT_ALWAYS:
        return row
    return row if row.stride == 1 and row.channels == in_channels else replace(row, skip=True)


class Size(NamedTuple):
    """How large a space is. choices: combinations of options. networks: different networks among them."""

    choices: int
    networks: int


def size(space: Space) -> Size:
    """Counts a space exactly: stages are independent but for the channels that one gives the next."""
    ways = {space.baseline.stem.channels: 1}
    for stage in range(1, len(space.baseline.stages) + 1):
        after: dict[int, int] = {}
        for channels, count in ways.items():
            for row in space.stage_rows(stage, channels):
                after[row.channels] = after.get(row.channels, 0) + count
        ways = after
    return Size(math.prod(space.sizes), sum(ways.values()) * len(space.resolutions))


def span(space: Space, measure: Measure) -> tuple[float, float]:
    """The least and the greatest that any candidate costs.

    measure: a sum over blocks that does not fall when one of them gets wider, deeper, finer or a larger kernel, as
    multiply-adds, parameters and activations are.
    """
    least, most = extreme(space, measure, largest=False), extreme(space, measure, largest=True)
    return measure(space.architecture(least)), measure(space.architecture(most))


def extreme(space: Space, measure: Measure, *, largest: bool) -> Tokens:
    """The candidate that costs the least, or the most, by a measure as `span` needs it."""
    pick = max if largest else min
    tokens = tuple(one.options.index(pick(one.options)) if one.field in _ORDERED else 0 for one in space.decisions)

    def spent(some: Tokens) -> float:
        return measure(space.architecture(some))

    for stage in range(1, len(space.baseline.stages) + 1):  # a stage's own sum, whatever the others are
        open_ones = [
            range(len(one.options)) if one.stage == stage and one.field not in _ORDERED else (token,)
            for one, token in zip(space.decisions, tokens, strict=True)
        ]
        tokens = pick(product(*open_ones), key=spent)
    return tokens


def around(
    baseline: Architecture,
    every: Mapping[str, tuple[Option, ...]] = MNASNET,
    *,
    stages: Mapping[int, Mapping[str, tuple[Option, ...]]] | None = None,
    resolutions: tuple[int, ...] = (),
    rounding: Rounding | None = None,
) -> Space:
    """The space in which every stage has the same options, unless `stages` gives its own, by its number from 1.

    resolutions: in pixels; none: the baseline's. Raises InvalidInput as Space does.
    """
    decisions = [Decision(0, RESOLUTION, resolutions)] if resolutions else []
    own = dict(stages or {})
    for number in sorted({*range(1, len(baseline.stages) + 1), *own}):
        options = {**every, **own.get(number, {})}
        fields = sorted(options, key=lambda name: STAGE_FIELDS.index(name) if name in STAGE_FIELDS else -1)
        decisions += [Decision(number, name, options[name]) for name in fields]
    return Space(baseline=baseline, decisions=tuple(decisions), rounding=rounding or Rounding())


def read(path: str | Path, baseline: Architecture, rounding: Rounding | None = None) -> Space:
    """The space that a TOML file describes, around a baseline.

    `every_stage` is a table of options by field; `stage.N` one for a stage of its own; `resolution` a list of pixels.

    Raises InvalidInput naming the file, the field, the value and what is allowed.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidInput(f"{path}: cannot be read: {reason}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: not valid TOML: {' '.join(str(error).split())}") from None
    try:
        return _from_tables(data, baseline, rounding)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def _from_tables(data: Mapping[str, Any], baseline: Architecture, rounding: Rounding | None) -> Space:
    allowed = ("every_stage", "stage", RESOLUTION)
    for name in data:
        if name not in allowed:
            raise InvalidInput(f"unknown field {name!r}; allowed are {', '.join(allowed)}")
    stages = {}
    for number, table in _table(data.get("stage", {}), "stage").items():
        if not number.isdecimal():
            raise InvalidInput(f"stage must be followed by a number, as in [stage.2], got {number!r}")
        stages[int(number)] = _options(table, f"stage.{number}")
    return around(
        baseline,
        _options(data.get("every_stage", {}), "every_stage"),
        stages=stages,
        resolutions=_list(data.get(RESOLUTION, []), RESOLUTION),
        rounding=rounding,
    )


def _table(data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InvalidInput(f"{where} must be a table of fields, got {data!r:.60}")
    return data


def _options(data: object, where: str) -> dict[str, tuple[Option, ...]]:
    return {name: _list(values, f"{where}.{name}") for name, values in _table(data, where).items()}


def _list(data: object, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list) or not all(isinstance(value, str | int | float) for value in data):
        raise InvalidInput(f"{where} must be a list of options, got {data!r:.60}")
    return tuple(data)


def to_toml(space: Space) -> str:
    """The space's choices as TOML text, a table a stage; `read` with the same baseline gives the space back."""
    lines = []
    for number, decisions in groupby(space.decisions, key=lambda one: one.stage):
        lines += [f"[stage.{number}]"] if number else []
        lines += [f"{one.field} = {json.dumps(one.options)}" for one in decisions]
    return "\n".join(lines) + "\n"


def space_to_dict(space: Space) -> dict[str, Any]:
    """The space as plain values; `space_from_dict` gives it back."""
    rounding = space.rounding
    return {
        "baseline": to_dict(space.baseline),
        "decisions": [[*one[:2], list(one.options)] for one in space.decisions],
        "rounding": {name: getattr(rounding, name) for name in rounding.__dataclass_fields__},
    }


def space_from_dict(data: Mapping[str, Any]) -> Space:
    """The space that `space_to_dict` wrote."""
    return Space(
        baseline=from_dict(data["baseline"]),
        decisions=tuple(Decision(stage, name, tuple(options)) for stage, name, options in data["decisions"]),
        rounding=Rounding(**data["rounding"]),
    )
