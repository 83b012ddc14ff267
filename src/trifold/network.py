"""A described network made into a torch module: construction, initialisation, features, classifier.

Names of tensors: `stem.conv.weight`, `stem.norm.*`; `stages.S.B.<role>.conv.weight` and `.norm.*` for block B of row S,
both from 0, with the roles of `trifold.layers`; `head.conv.weight`, `head.norm.*`; `classifier.weight`, `.bias`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trifold.architecture import Architecture, Block
from trifold.errors import InvalidInput
from trifold.layers import OPERATORS, PAPER_NUMERICS, TORCH_NUMERICS, ConvNorm, MaxPool, Numerics, Window

__all__ = [
    "PAPER_NUMERICS",
    "TORCH_NUMERICS",
    "Endpoint",
    "FeatureInfo",
    "FeatureNetwork",
    "Network",
    "Numerics",
    "build",
    "drop_path_rates",
    "initialise",
]

GLOBAL_POOLS = ("avg", "max", "avgmax", "")


def _check_rate(name: str, value: float) -> None:
    """Raises InvalidInput unless value is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InvalidInput(f"{name} must be a number in [0, 1), got {value!r}")


def _check_global_pool(global_pool: str, num_classes: int) -> None:
    if global_pool not in GLOBAL_POOLS:
        raise InvalidInput(f"global_pool must be avg, max, avgmax or '' (none), got {global_pool!r}")
    if not global_pool and num_classes:
        raise InvalidInput(f"num_classes must be 0 where global_pool is '' (none), got {num_classes!r}")


def drop_path_rates(architecture: Architecture, drop_path_rate: float) -> tuple[float, ...]:
    """The rate of each block of the stages: drop_path_rate * i / N for block i of N, so that the first has 0.

    (tensorflow/tpu efficientnet_model.py; a block without a shortcut has a rate but does not use it.)
    """
    num_blocks = architecture.num_blocks
    return tuple(drop_path_rate * i / num_blocks for i in range(num_blocks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A feature map that a network offers: the last one of its size, counted from the stem.

    stage: 0 for the stem, else the row of the architecture. reduction: input pixels to one of the map's.
    module: name of the module whose output it is.
    """

    stage: int
    channels: int
    reduction: int
    module: str


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """The endpoints of a network and which of them are put out, with the accessors that timm's users know."""

    endpoints: tuple[Endpoint, ...]
    out_indices: tuple[int, ...]

    def _chosen(self, idx: int | Sequence[int] | None) -> list[Endpoint]:
        wanted = self.out_indices if idx is None else [idx] if isinstance(idx, int) else idx
        return [self.endpoints[i] for i in wanted]

    def channels(self, idx: int | Sequence[int] | None = None) -> list[int]:
        """Channels of each map put out, or of the endpoints idx."""
        return [endpoint.channels for endpoint in self._chosen(idx)]

    def reduction(self, idx: int | Sequence[int] | None = None) -> list[int]:
        """Input pixels to one pixel of each map put out, or of the endpoints idx."""
        return [endpoint.reduction for endpoint in self._chosen(idx)]

    def module_name(self, idx: int | Sequence[int] | None = None) -> list[str]:
        """Name of the module that gives each map put out, or the endpoints idx."""
        return [endpoint.module for endpoint in self._chosen(idx)]

    def __len__(self) -> int:
        return len(self.endpoints)

    def __getitem__(self, index: int) -> dict[str, Any]:
        endpoint = self.endpoints[index]
        return {
            "num_chs": endpoint.channels,
            "reduction": endpoint.reduction,
            "module": endpoint.module,
            "stage": endpoint.stage,
        }


def _endpoints(blocks: Sequence[Block]) -> tuple[Endpoint, ...]:
    """The last block before each stride of 2, and the final block (tensorflow/tpu efficientnet_model.py endpoints).

    blocks: stem and stages; neither head nor classifier.
    """
    found, reduction = [], 1
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        reduction *= block.stride
        if following is None or following.stride > 1:
            stem = "stem_pool" if block.operator == "max_pool" else "stem"
            module = f"stages.{block.stage - 1}" if block.stage else stem
            found.append(Endpoint(stage=block.stage, channels=block.out_channels, reduction=reduction, module=module))
    return tuple(found)


def _pooled(x: Float[Tensor, "batch channels height width"], kind: str) -> Float[Tensor, "batch channels"]:
    """Mean, maximum or the mean of both over height and width."""
    if kind == "max":
        return x.amax((2, 3))
    mean = x.mean((2, 3))
    return mean if kind == "avg" else 0.5 * (mean + x.amax((2, 3)))


class _StatisticsKept:
    """A context after which the running statistics of a module's batch norms are what they were before.

    A checkpointed block is computed twice for one step; only the first time may count.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        self.kept: list[dict[str, Tensor]] = []

    def __enter__(self) -> None:
        self.kept = [dict(norm.named_buffers()) for norm in self.norms]
        for norm, buffers in zip(self.norms, self.kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for norm, buffers in zip(self.norms, self.kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


def _checkpoint_contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What the first and the second computation of a checkpointed block run in."""
    return nullcontext(), _StatisticsKept(block)


def _run_stage(
    stage: nn.Module, x: Float[Tensor, "batch in_channels height width"], *, checkpointed: bool
) -> Float[Tensor, "batch out_channels out_height out_width"]:
    """The stage's output; if checkpointed, the inside of each block is computed again for its gradients."""
    for block in stage.children():
        if checkpointed:
            x = checkpoint(block, x, use_reentrant=False, context_fn=partial(_checkpoint_contexts, block))
        else:
            x = block(x)
    return x


def _conv_norm(block: Block, numerics: Numerics) -> ConvNorm:
    """The stem's or the head's convolution."""
    window = Window(kernel_size=block.kernel_size, stride=block.stride, in_size=block.in_size)
    return ConvNorm(
        block.in_channels, block.out_channels, window=window, numerics=numerics, activation=block.activation
    )


class Network(nn.Module):
    """An architecture as a module: `stem`, `stem_pool`, `stages`, `head`, `dropout`, `classifier`.

    Its tensors hold torch's default initialisation, or nothing yet; `build` gives it the paper's. The dropout and
    drop-path rates act in training alone. Attributes: architecture, numerics, num_classes, in_channels, num_features
    (channels of what `forward_features` gives), global_pool, feature_info.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int,
        in_channels: int,
        numerics: Numerics,
        drop_rate: float,
        drop_path_rate: float,
        global_pool: str,
    ) -> None:
        super().__init__()
        _check_rate("drop_rate", drop_rate)
        _check_rate("drop_path_rate", drop_path_rate)
        _check_global_pool(global_pool, num_classes)
        blocks = architecture.blocks(num_classes=num_classes, in_channels=in_channels)
        last = len(architecture.stages) + 1
        body = [block for block in blocks if block.stage < last]
        self.architecture, self.numerics = architecture, numerics
        self.num_classes, self.in_channels, self.global_pool = num_classes, in_channels, global_pool
        endpoints = _endpoints(body)
        self.feature_info = FeatureInfo(endpoints, tuple(range(len(endpoints))))
        self.grad_checkpointing = False

        self.stem = _conv_norm(body[0], numerics)
        self.stem_pool = MaxPool(body[1], numerics) if architecture.stem.max_pool else nn.Identity()
        rates = iter(drop_path_rates(architecture, drop_path_rate))
        self.stages = nn.Sequential(
            *(
                nn.Sequential(*(OPERATORS[block.operator](block, numerics, next(rates)) for block in rows))
                for _, rows in groupby((block for block in body if block.stage), key=lambda block: block.stage)
            )
        )
        head = next((block for block in blocks if block.stage == last and block.operator == "conv"), None)
        self.head = _conv_norm(head, numerics) if head else nn.Identity()
        self.num_features = head.out_channels if head else body[-1].out_channels
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(
        self, images: Float[Tensor, "batch {self.in_channels} height width"]
    ) -> Float[Tensor, "batch {self.num_features} out_height out_width"]:
        """The last feature map, after the head's convolution and before pooling."""
        checkpointed = self.grad_checkpointing and self.training and torch.is_grad_enabled()
        x = self.stem_pool(self.stem(images))
        for stage in self.stages:
            x = _run_stage(stage, x, checkpointed=checkpointed)
        out: Tensor = self.head(x)
        return out

    def forward_head(
        self, x: Float[Tensor, "batch {self.num_features} height width"], pre_logits: bool = False
    ) -> Float[Tensor, "batch ..."]:
        """The logits of a feature map; with pre_logits, or without classes, the pooled features that they come from."""
        if self.global_pool:
            x = _pooled(x, self.global_pool)
        x = self.dropout(x)
        return x if pre_logits else self.classifier(x)

    def forward(self, images: Float[Tensor, "batch {self.in_channels} height width"]) -> Float[Tensor, "batch ..."]:
        """The logits, (batch, num_classes); without classes the pooled features, (batch, num_features), or the map.

        images: normalised; any size from 32 pixels, not necessarily the architecture's nor square.
        """
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """The last linear layer, or an identity where there are no classes."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, *, seed: int | None = None) -> None:
        """Puts a newly initialised classifier of num_classes in the old one's place; 0 means none.

        global_pool: as in `build`; None keeps it. seed: as in `build`. Raises InvalidInput as `build` does.
        """
        global_pool = self.global_pool if global_pool is None else global_pool
        self.architecture.blocks(num_classes=num_classes)
        _check_global_pool(global_pool, num_classes)
        self.num_classes, self.global_pool = num_classes, global_pool
        like = self.stem.conv.weight
        if not num_classes:
            self.classifier = nn.Identity()
        else:
            self.classifier = nn.Linear(self.num_features, num_classes, device="meta", dtype=like.dtype)
            if not like.is_meta:
                initialise(self.classifier.to_empty(device="cpu"), seed=seed)
                self.classifier.to(like.device)
        self.classifier.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether training keeps only each block's input and computes its inside again for the gradients.

        Gradients and batch-norm statistics stay the same; memory falls, a step takes about a third longer.
        """
        self.grad_checkpointing = enable

    def features(self, out_indices: int | Sequence[int] | None = None) -> "FeatureNetwork":
        """The part of this network that gives the chosen endpoints, its modules shared with this one.

        out_indices: which endpoints of feature_info, negative ones counted from the last; a whole number n means the
        last n; None means all. Raises InvalidInput if one is out of range or stands twice.
        """
        return FeatureNetwork(self, out_indices)


def _out_indices(out_indices: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    """The chosen ones of `count` endpoints, counted from 0. Raises InvalidInput if there is no such choice."""
    if out_indices is None:
        return tuple(range(count))
    if isinstance(out_indices, int):
        if not 1 <= out_indices <= count:
            raise InvalidInput(f"out_indices must be a number of endpoints from 1 to {count}, got {out_indices!r}")
        return tuple(range(count - out_indices, count))
    found = tuple(index + count if index < 0 else index for index in out_indices)
    if not found or len(set(found)) < len(found) or not all(0 <= index < count for index in found):
        raise InvalidInput(f"out_indices must be different numbers from {-count} to {count - 1}, got {out_indices!r}")
    return found


class FeatureNetwork(nn.Module):
    """A network's feature maps, as a list in the order of out_indices; made by `Network.features`.

    Tensors have the names they have in the network; stages after the last chosen endpoint are left out.
    """

    def __init__(self, network: Network, out_indices: int | Sequence[int] | None) -> None:
        super().__init__()
        endpoints = network.feature_info.endpoints
        self.feature_info = FeatureInfo(endpoints, _out_indices(out_indices, len(endpoints)))
        self.architecture, self.numerics = network.architecture, network.numerics
        self.in_channels = network.in_channels
        self.grad_checkpointing = network.grad_checkpointing
        self.stem, self.stem_pool = network.stem, network.stem_pool
        self.stages = network.stages[: max(endpoints[i].stage for i in self.feature_info.out_indices)]

    def forward(self, images: Float[Tensor, "batch {self.in_channels} height width"]) -> list[Tensor]:
        """The chosen maps, each (batch, channels, height / reduction, width / reduction) with sizes rounded up."""
        checkpointed = self.grad_checkpointing and self.training and torch.is_grad_enabled()
        maps = {"stem": self.stem(images)}
        x = maps["stem_pool"] = self.stem_pool(maps["stem"])
        for number, stage in enumerate(self.stages.children()):
            x = maps[f"stages.{number}"] = _run_stage(stage, x, checkpointed=checkpointed)
        return [maps[name] for name in self.feature_info.module_name()]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As `Network.set_grad_checkpointing`."""
        self.grad_checkpointing = enable


def initialise(module: nn.Module, *, seed: int | None = None) -> None:
    """Gives all tensors of a module on the CPU the values that training starts from.

    Convolutions: normal, standard deviation sqrt(2 / (k * k * out / groups)), so sqrt(2 / k^2) where depthwise; linear
    layers: uniform in +-1/sqrt(outputs); biases 0; batch norm 1 and 0 (tensorflow/tpu efficientnet_model.py).
    seed: of a generator of its own; None draws from torch's global one.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels / part.groups
            nn.init.normal_(part.weight, 0, (2 / fan_out) ** 0.5, generator=generator)
        elif isinstance(part, nn.Linear):
            bound = part.out_features**-0.5
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def build(
    architecture: Architecture,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    numerics: Numerics = PAPER_NUMERICS,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    global_pool: str = "avg",
    seed: int | None = None,
) -> Network:
    """The network of an architecture, initialised, in training mode, on torch's default device.

    num_classes: 0 leaves the classifier out, so that the network gives pooled features.
    drop_rate: dropout before the classifier; drop_path_rate: see `drop_path_rates`; both in [0, 1).
    global_pool: "avg", "max", "avgmax" (the mean of both), or "" for the unpooled map (then num_classes is 0).
    seed: from 0; equal seeds give equal networks on every device and leave torch's global generator alone.

    Raises InvalidInput naming the field, the value and what is allowed.
    """
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**63):
        raise InvalidInput(f"seed must be a whole number from 0 to 2^63 - 1 or None, got {seed!r}")
    device = torch.get_default_device()
    with torch.device("meta"):
        network = Network(
            architecture,
            num_classes=num_classes,
            in_channels=in_channels,
            numerics=numerics,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            global_pool=global_pool,
        )
    if device.type != "meta":
        initialise(network.to_empty(device="cpu"), seed=seed)
        network.to(device)
    return network
