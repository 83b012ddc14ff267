"""A supernet: one set of weights of which every candidate of a space is a part (1812.08928, 1908.09791, 2003.11142).

A tensor of a candidate is the first channels of the supernet's along each of its dimensions, and the middle of its
kernel. Operators have tensors of their own, and so has each block, by its place within its stage; a shallower stage is
the first blocks of a deeper one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from trifold.architecture import OPERATORS, Architecture, Block, Stage
from trifold.cost import Convolution, convolutions, cost
from trifold.errors import InvalidInput
from trifold.layers import OPERATORS as MODULES
from trifold.layers import PAPER_NUMERICS, Numerics
from trifold.network import Network, build, drop_path_rates, initialise
from trifold.search.space import Space, extreme

MOST_BLOCKS = 4096
"""How many different blocks' modules, which hold no tensors, are kept for the next candidate that has them."""

Rows = dict[tuple[int, int], frozenset[Stage]]
"""What a stage, from 1, may be, by the channels that come into it."""

Layer = dict[str, Convolution]
"""A block's convolutions by the names of `trifold.layers`: expand, squeeze_excite.reduce, …"""


def largest_of(space: Space) -> Architecture:
    """The candidate with the most parameters."""
    return space.architecture(extreme(space, lambda architecture: cost(architecture).parameters, largest=True))


def possible_rows(space: Space) -> Rows:
    """Every row that each stage may be, for all channels that may come into it."""
    rows, incoming = {}, {space.baseline.stem.channels}
    for stage in range(1, len(space.baseline.stages) + 1):
        for channels in incoming:
            rows[stage, channels] = space.stage_rows(stage, channels)
        incoming = {row.channels for channels in incoming for row in rows[stage, channels]}
    return rows


def named_convolutions(block: Block) -> Layer:
    """A block's convolutions by name, in the order of `cost.convolutions`."""
    named: Layer = {}
    for one in convolutions(block):
        name = f"squeeze_excite.{one.role}" if one.bias else one.role
        named["spatial_2" if name in named else name] = one
    return named


def widest_layers(space: Space, rows: Rows) -> list[list[dict[str, Layer]]]:
    """The largest of each convolution that any candidate has: by stage, by block of it, by operator, by name."""
    widest = []
    for stage in range(1, len(space.baseline.stages) + 1):
        found: dict[tuple[int, str], set[Block]] = {}
        for (number, channels), some in rows.items():
            for row in some if number == stage else ():
                for position, block in enumerate(_blocks(space.baseline, row, channels)):
                    found.setdefault((position, row.operator), set()).add(block)
        depth = 1 + max(position for position, _ in found)
        operators = [[name for name in OPERATORS if (position, name) in found] for position in range(depth)]
        widest.append(
            [{name: _largest(found[position, name]) for name in names} for position, names in enumerate(operators)]
        )
    return widest


def _blocks(baseline: Architecture, row: Stage, in_channels: int) -> tuple[Block, ...]:
    """The blocks of a row into which so many channels come; their sizes in pixels mean nothing."""
    probe = replace(baseline, stem=replace(baseline.stem, channels=in_channels), stages=(row,))
    return tuple(block for block in probe.blocks(num_classes=0) if block.stage == 1)


def _largest(blocks: set[Block]) -> Layer:
    """The elementwise largest of each convolution; their order is that of the blocks with the most of them."""
    found: Layer = {}
    for block in sorted(blocks, key=lambda block: (-len(convolutions(block)), block)):
        for name, one in named_convolutions(block).items():
            other = found.get(name, one)
            found[name] = one._replace(
                in_channels=max(one.in_channels, other.in_channels),
                out_channels=max(one.out_channels, other.out_channels),
                kernel_size=max(one.kernel_size, other.kernel_size),
                groups=max(one.groups, other.groups),
            )
    return found


def _convolution(one: Convolution) -> nn.Conv2d:
    return nn.Conv2d(one.in_channels, one.out_channels, one.kernel_size, groups=one.groups, bias=one.bias)


def _conv_norm(convolution: nn.Conv2d) -> nn.ModuleDict:
    """A convolution and its batch norm, whose statistics are each candidate's own."""
    norm = nn.BatchNorm2d(convolution.out_channels, track_running_stats=False)
    return nn.ModuleDict({"conv": convolution, "norm": norm})


def _storage(layer: Layer) -> nn.ModuleDict:
    """What holds a layer's tensors, under the names that a block has for them."""
    held = nn.ModuleDict()
    for name, one in layer.items():
        parent, _, child = name.rpartition(".")
        if not parent:
            held[name] = _conv_norm(_convolution(one))
        elif parent not in held:
            held[parent] = nn.ModuleDict({child: _convolution(one)})
        else:
            squeeze_excite = held[parent]
            assert isinstance(squeeze_excite, nn.ModuleDict)
            squeeze_excite[child] = _convolution(one)
    return held


def part(whole: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The first of each of the first two dimensions, the middle of the others; the whole itself where that is all.

    It is contiguous in the whole's memory format.
    """
    if tuple(whole.shape) == shape:
        return whole
    last = whole.ndim == 4 and whole.is_contiguous(memory_format=torch.channels_last) and not whole.is_contiguous()
    some = whole
    for dimension, (size, wanted) in enumerate(zip(whole.shape, shape, strict=True)):
        if wanted != size:
            some = some.narrow(dimension, (size - wanted) // 2 if dimension > 1 else 0, wanted)
    return some.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def resized(images: Tensor, side: int) -> Tensor:
    """Square images at another size, in their memory format; antialiased, as `data.images` resizes files.

    images: (batch, channels, height, height), float.
    """
    if images.shape[-1] == side:
        return images
    last = images.is_contiguous(memory_format=torch.channels_last)
    small = F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return small.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class _Shape(NamedTuple):
    """The tensors of a module that holds none. parameters: name -> shape. norms: name -> channels."""

    parameters: dict[str, tuple[int, ...]]
    norms: dict[str, int]


def _shape_of(module: nn.Module) -> _Shape:
    norms = {name: part.num_features for name, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)}
    return _Shape({name: tuple(p.shape) for name, p in module.named_parameters()}, norms)


class Supernet(nn.Module):
    """The weights that all candidates of a space share, with their batch norms' scales and shifts.

    It has no batch-norm statistics: in training a candidate uses its batch's, and for evaluation they are computed for
    each candidate (`supernet_evaluate.calibrate`). Values begin as `network.build` gives them to a layer of that size.

    num_classes: at least 1. numerics: of every candidate. drop_rate, drop_path_rate: as in `network.build`, for
    candidates that are run `regularised`. seed: from 0; equal seeds give equal supernets.

    Raises InvalidInput naming the field, the value and what is allowed.
    """

    def __init__(
        self,
        space: Space,
        *,
        num_classes: int,
        in_channels: int = 3,
        numerics: Numerics = PAPER_NUMERICS,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_classes == 0:
            raise InvalidInput("supernet: num_classes must be at least 1, got 0")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise InvalidInput(f"supernet: seed must be a whole number from 0 to 2^63 - 1, got {seed!r}")
        self.space, self.num_classes, self.in_channels, self.numerics = space, num_classes, in_channels, numerics
        self.drop_rate, self.drop_path_rate = drop_rate, drop_path_rate
        self.rows = possible_rows(space)
        self._modules_of: dict[tuple[Block, int, float], tuple[nn.Module, _Shape]] = {}
        self._shells: dict[tuple[int, int, bool], tuple[Network, dict[str, _Shape]]] = {}
        build_on_meta(self, self.largest, regularised=True)  # which refuses what is out of range
        stem, head = space.baseline.stem, space.baseline.head
        last = max(row.channels for (stage, _), rows in self.rows.items() for row in rows if stage == self._num_stages)
        with torch.device("meta"):
            self.stem = _conv_norm(nn.Conv2d(in_channels, stem.channels, stem.kernel_size, bias=False))
            self.stages = nn.ModuleList(
                nn.ModuleList(
                    nn.ModuleDict({name: _storage(layer) for name, layer in operators.items()}) for operators in layers
                )
                for layers in widest_layers(space, self.rows)
            )
            self.head = _conv_norm(nn.Conv2d(last, head.channels, 1, bias=False)) if head.channels else nn.Identity()
            self.classifier = nn.Linear(head.channels or last, num_classes)
        initialise(self.to_empty(device="cpu"), seed=seed)

    @property
    def _num_stages(self) -> int:
        return len(self.space.baseline.stages)

    @property
    def largest(self) -> Architecture:
        """As `largest_of` its space."""
        return largest_of(self.space)

    def forward(self, images: Tensor, architecture: Architecture, *, regularised: bool = False) -> Tensor:
        """The logits of a candidate, (batch, num_classes), by the batch's own statistics; gradients reach its part.

        images: (batch, in_channels, height, width), normalised; resized if they are not of the candidate's resolution.
        regularised: with dropout and drop path.

        Raises InvalidInput if the architecture is not in the space; RuntimeError in evaluation mode, for which a
        candidate is to be extracted and its statistics computed.
        """
        if not self.training:
            raise RuntimeError(
                "a supernet has no statistics to be evaluated with: extract a candidate and calibrate it"
            )
        self.check(architecture)
        network, shapes = self._skeleton(architecture, regularised=regularised)
        tensors = self._parts(architecture, shapes)
        for prefix, shape in shapes.items():
            for name, channels in shape.norms.items():  # each its own: they are changed in place
                norm = f"{prefix}.{name}" if name else prefix
                tensors[f"{norm}.running_mean"] = images.new_zeros(channels)
                tensors[f"{norm}.running_var"] = images.new_ones(channels)
                tensors[f"{norm}.num_batches_tracked"] = torch.zeros((), dtype=torch.long, device=images.device)
        logits: Tensor = functional_call(network, tensors, (resized(images, architecture.resolution),))
        return logits

    @torch.no_grad()
    def extract(self, architecture: Architecture) -> Network:
        """A candidate as a network of its own with copies of its tensors, in training mode, on the supernet's device.

        Its batch norms' running statistics are those of no images yet. Raises InvalidInput if it is not in the space.
        """
        self.check(architecture)
        network = build_on_meta(self, architecture, regularised=True)
        network.to_empty(device=self.classifier.weight.device)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
        shapes = {prefix: _shape_of(network.get_submodule(prefix)) for prefix in self._prefixes(architecture)}
        for name, tensor in self._parts(architecture, shapes).items():
            module, _, leaf = name.rpartition(".")
            network.get_submodule(module).register_parameter(leaf, nn.Parameter(tensor.detach().clone()))
        return network

    def check(self, architecture: Architecture) -> None:
        """Raises InvalidInput if the architecture is not one that the space gives."""
        space, channels = self.space, architecture.stem.channels
        known = architecture.stem == space.baseline.stem and architecture.head == space.baseline.head
        if not known or architecture.resolution not in space.resolutions:
            raise InvalidInput(
                f"architecture {architecture.name} must have the space's stem, head and one of its resolutions "
                f"{space.resolutions}, got {architecture.resolution} pixels"
            )
        if len(architecture.stages) != self._num_stages:
            raise InvalidInput(
                f"architecture {architecture.name} must have {self._num_stages} stages, got {len(architecture.stages)}"
            )
        for number, row in enumerate(architecture.stages, start=1):
            if row not in self.rows[number, channels]:
                raise InvalidInput(f"architecture {architecture.name}: stage {number} is not in the space: {row}")
            channels = row.channels

    def _parts(self, architecture: Architecture, shapes: Mapping[str, _Shape]) -> dict[str, Tensor]:
        """A candidate's parameters by its own names, as parts of the shared ones."""
        shared, found = dict(self.named_parameters()), {}
        for prefix, shape in shapes.items():
            where = prefix
            if prefix.startswith("stages."):
                where = f"{prefix}.{architecture.stages[int(prefix.split('.')[1])].operator}"
            for name, wanted in shape.parameters.items():
                found[f"{prefix}.{name}"] = part(shared[f"{where}.{name}"], wanted)
        return found

    def _prefixes(self, architecture: Architecture) -> list[str]:
        """The names of the parts that hold a candidate's tensors: stem, stages.0.0, …, classifier."""
        blocks = [f"stages.{i}.{j}" for i, row in enumerate(architecture.stages) for j in range(row.layers)]
        return ["stem", *blocks, *(["head"] if architecture.head.channels else []), "classifier"]

    def _skeleton(self, architecture: Architecture, *, regularised: bool) -> tuple[Network, dict[str, _Shape]]:
        """The candidate's network, of modules that hold no tensors, and their shapes by the names of `_prefixes`.

        A network is made of modules that earlier ones had: making it anew would take a quarter of a small one's step.
        """
        key = (architecture.resolution, architecture.stages[-1].channels, regularised)
        if key not in self._shells:
            whole = build_on_meta(self, architecture, regularised=regularised)
            ends = (name for name in self._prefixes(architecture) if not name.startswith("stages."))
            self._shells[key] = (whole, {name: _shape_of(whole.get_submodule(name)) for name in ends})
        shell, shapes = self._shells[key]
        network = copy.copy(shell)
        network._modules = dict(shell._modules)
        network.architecture = architecture
        blocks = architecture.blocks(num_classes=0, in_channels=self.in_channels)
        inner = (block for block in blocks if 0 < block.stage <= self._num_stages)
        rates = drop_path_rates(architecture, self.drop_path_rate if regularised else 0.0)
        stages = [nn.Sequential() for _ in architecture.stages]
        shapes = dict(shapes)
        for block, rate in zip(inner, rates, strict=True):
            stage = stages[block.stage - 1]
            module, shape = self._module_of(block, len(stage), rate if block.shortcut != "none" else 0.0)
            shapes[f"stages.{block.stage - 1}.{len(stage)}"] = shape
            stage.append(module)
        network.stages = nn.Sequential(*stages)
        return network, shapes

    def _module_of(self, block: Block, position: int, drop_path_rate: float) -> tuple[nn.Module, _Shape]:
        """A block's module; position: within its stage, since equal blocks of a network must not be one module."""
        if len(self._modules_of) >= MOST_BLOCKS:
            self._modules_of.clear()
        key = (block, position, drop_path_rate)
        if key not in self._modules_of:
            with torch.device("meta"):
                module = MODULES[block.operator](block, self.numerics, drop_path_rate)
            self._modules_of[key] = (module, _shape_of(module))
        return self._modules_of[key]


def build_on_meta(supernet: Supernet, architecture: Architecture, *, regularised: bool) -> Network:
    """The candidate's network without values. Raises InvalidInput as `network.build` does."""
    with torch.device("meta"):
        return build(
            architecture,
            num_classes=supernet.num_classes,
            in_channels=supernet.in_channels,
            numerics=supernet.numerics,
            drop_rate=supernet.drop_rate if regularised else 0.0,
            drop_path_rate=supernet.drop_path_rate if regularised else 0.0,
        )
