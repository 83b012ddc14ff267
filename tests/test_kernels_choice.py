"""Where a network uses the compiled kernels, and that it gives the same with them and without."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trifold.architecture import Architecture, to_dict
from trifold.baselines import find
from trifold.errors import InvalidInput
from trifold.kernels import choice, using
from trifold.kernels.library import _loaded
from trifold.layers import SqueezeExcite
from trifold.network import Network, Numerics, build

pytestmark = pytest.mark.skipif(_loaded() is None, reason="the kernels were not compiled: no C compiler with OpenMP")


def shape(activation: str = "silu") -> Architecture:
    """Every window there is, in a small network."""
    whole = find("efficientnet_b0")
    windows = ((8, 3, 2), (12, 5, 2), (16, 7, 1))
    return replace(
        whole,
        name="windows",
        resolution=32,
        stem=replace(whole.stem, channels=8, activation=activation),
        stages=tuple(
            replace(
                whole.stages[1], channels=channels, kernel_size=kernel_size, stride=stride, expand_ratio=3,
                activation=activation,
            )
            for channels, kernel_size, stride in windows
        ),
        head=replace(whole.head, channels=24, activation=activation),
    )  # fmt: skip


LIMITS = {name: getattr(choice, name) for name in ("NORM_VALUES", "SMALL_SIDE", "SMALL_CHANNELS")}


@pytest.fixture(autouse=True)
def whatever_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are chosen for these small images as for large ones."""
    for name in LIMITS:
        monkeypatch.setattr(choice, name, 0)


def make(numerics: Numerics | None = None, activation: str = "silu") -> Network:
    network = build(shape(activation), num_classes=5, numerics=numerics or Numerics(), seed=0)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations lack it
    return network


def images(size: int = 32) -> Tensor:
    values = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    return values.contiguous(memory_format=torch.channels_last)


class Seen(TorchDispatchMode):
    """The names of Trifold's own operators that were called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "trifold":
            self.names.add(func.name().removeprefix("trifold::"))
        return func(*args, **(kwargs or {}))


def used(call: Callable[[], object]) -> set[str]:
    seen = Seen()
    with seen:
        call()
    return seen.names


FORWARD = {"mbconv_middle", "norm_act"}
ALL = FORWARD | {"mbconv_middle_backward", "norm_act_backward"}
SEPARATE = {"depthwise", "depthwise_input_grad", "depthwise_weight_grad"}


def one_step(network: Network, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients and statistics after one training step's passes."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = network(x)
    out.square().sum().backward()
    assert x.grad is not None
    gradients = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    return {"out": out.detach(), "x": x.grad, **gradients, **statistics}


@pytest.mark.parametrize("activation", ["silu", "relu", "relu6", "hard_swish", "gelu"])
@pytest.mark.parametrize("padding", ["same", "same_static", "symmetric"])
def test_a_step_gives_the_same_with_kernels_and_without(padding: str, activation: str) -> None:
    numerics = Numerics(padding=padding)
    with using("off"):
        assert used(lambda: one_step(make(numerics, activation), images())) == set()
        wanted = one_step(make(numerics, activation).double(), images().double())
        plain = one_step(make(numerics, activation), images())
    expected = SEPARATE if activation == "gelu" else ALL
    assert used(lambda: one_step(make(numerics, activation), images())) == expected
    found = one_step(make(numerics, activation), images())
    assert found.keys() == wanted.keys()
    for name, exact in wanted.items():
        error, theirs = (float((of[name] - exact).abs().max()) for of in (found, plain))
        # As near to the truth as torch's own float32 is, give or take: a dozen layers stand between.
        assert error <= max(8 * theirs, 1e-4 * float(exact.abs().max()), 1e-7), name


def test_a_block_that_expands_nothing_has_kernels_of_its_own() -> None:
    whole = shape()
    flat = replace(whole, stages=tuple(replace(stage, expand_ratio=1) for stage in whole.stages))
    network = build(flat, num_classes=5, seed=0)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    excite = {"norm_act", "norm_act_backward", "norm_act_excite", "norm_act_excite_backward"}
    assert used(lambda: one_step(network, images())) == SEPARATE | excite


def test_any_size_gives_the_same() -> None:
    for size in (33, 46, 65):
        with using("off"):
            wanted = one_step(make().double(), images(size).double())
        found = one_step(make(), images(size))
        assert float((found["x"] - wanted["x"]).abs().max()) < 1e-4 * float(wanted["x"].abs().max())


def test_the_network_is_trained_with_kernels_and_evaluated_without() -> None:
    network, x = make(), images()
    assert used(lambda: network(x)) == FORWARD
    with torch.no_grad():
        assert used(lambda: network(x)) == set()
    assert used(lambda: network.eval()(x)) <= {"depthwise"}
    with torch.inference_mode():
        assert used(lambda: network(x)) == set()


def test_kernels_are_for_float32_in_channels_last_order_without_autocast() -> None:
    network, x = make(), images()
    assert used(lambda: network.double()(x.double())) == set()
    network = make()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    assert used(lambda: network(x.contiguous())) == set()
    with torch.autocast("cpu", torch.bfloat16):
        assert used(lambda: make()(x)) == set()
    with torch.device("meta"):
        assert used(lambda: build(shape())(torch.empty(2, 3, 32, 32))) == set()


def test_a_module_that_somebody_listens_to_is_called() -> None:
    network, x, heard = make(), images(), []
    stage = network.stages[0]
    assert isinstance(stage, nn.Sequential)
    block: Any = stage[0]
    second: Any = stage[1]
    for module in (block.depthwise.conv, block.depthwise.norm, block.depthwise.activation):
        module.register_forward_hook(lambda module, *_: heard.append(type(module).__name__))
    network(x)
    assert heard == ["Conv2d", "BatchNorm2d", "SiLU"]
    heard.clear()
    second.depthwise.register_forward_hook(lambda module, *_: heard.append(type(module).__name__))
    second.squeeze_excite.reduce.register_forward_hook(lambda *_: heard.append("reduce"))
    network(x)
    assert heard[-2:] == ["ConvNorm", "reduce"]
    heard.clear()
    block.depthwise.norm.register_full_backward_hook(lambda *_: heard.append("backward"))
    network(x).sum().backward()
    assert "backward" in heard


def test_what_is_not_plain_batch_norm_is_torchs() -> None:
    network, x = make(), images()
    norm = network.stem.norm
    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    norm.eval()  # as a recipe freezes it
    network(x)
    assert torch.equal(norm.running_mean, before)
    network.stem.norm = nn.BatchNorm2d(network.stem.conv.out_channels, track_running_stats=False)
    network.stem.activation = nn.Mish()
    with Seen() as seen:
        network.stem(x)
    assert seen.names == set()


def test_exported_and_traced_networks_hold_torchs_operators() -> None:
    network, x = make(Numerics(padding="symmetric")), images()  # a traced size is a tensor, which no type here allows
    exported = torch.export.export(network, (x,))
    assert not [node for node in exported.graph.nodes if "trifold" in str(node.target)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, but counters such as fvcore do it
        graph = torch.jit.trace(network, x, check_trace=False).graph
    assert "trifold::" not in str(graph)


COMPILED = """
import torch
from trifold.architecture import from_dict
from trifold.kernels import choice
from trifold.network import build

def make():
    return build(from_dict({architecture!r}), num_classes=5, seed=0).to(memory_format=torch.channels_last)

def look(graph, _):
    called.extend(str(node.target) for node in graph.graph.nodes)
    return graph.forward

torch.set_num_threads(1)
choice.SMALL_SIDE = choice.SMALL_CHANNELS = 0
called, network, other = [], make(), make()
x = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
torch.compile(network, backend=look, fullgraph=True)(x).sum().backward()
other(x).sum().backward()
assert called.count("trifold.depthwise.default") == 6, called
assert "trifold.mbconv_middle.default" not in called
for one, two in zip(network.parameters(), other.parameters(), strict=True):
    assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-4)
"""


def test_a_compiled_network_is_one_graph_with_the_depthwise_kernels() -> None:
    # In an interpreter of its own: here the shapes in the types are checked, which torch.compile cannot look through.
    code = COMPILED.format(architecture=to_dict(shape()))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_checkpointed_blocks_give_equal_bits_and_count_statistics_once() -> None:
    network, other = make(), make()
    other.set_grad_checkpointing()
    wanted, found = one_step(network, images()), one_step(other, images())
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_single_value_a_channel_is_refused_as_torch_does() -> None:
    network = make(Numerics(padding="symmetric"))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(images(8)[:1])


def test_static_padding_still_refuses_other_sizes() -> None:
    with pytest.raises(InvalidInput, match="padding same_static was worked out for 32 pixels"):
        make(Numerics(padding="same_static"))(images(33))


@pytest.mark.parametrize(
    ("side", "channels", "kernel_size", "stride", "expected"),
    [
        (16, 16, 3, 1, True),
        (15, 16, 3, 1, False),
        (16, 15, 3, 1, False),
        (32, 16, 3, 2, False),
        (2, 16, 3, 1, True),
        (2, 16, 3, 2, True),
        (8, 8, 5, 2, True),
        (8, 8, 7, 1, True),
    ],
)
def test_a_convolution_is_torchs_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, side: int, channels: int, kernel_size: int, stride: int, *, expected: bool
) -> None:
    for name, limit in LIMITS.items():
        monkeypatch.setattr(choice, name, limit)
    conv = nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False)
    x = torch.randn(2, channels, side, side).contiguous(memory_format=torch.channels_last)
    before = [kernel_size // 2] * 2
    assert (used(lambda: choice.convolve(x, conv, nn.Identity(), before)) == {"depthwise"}) is expected
    padding = nn.ZeroPad2d(kernel_size // 2)
    conv.padding = (0, 0)
    assert used(lambda: choice.convolve(x, conv, padding, before)) == {"depthwise"}  # torch would need a padded copy


@pytest.mark.parametrize(("side", "channels", "expected"), [(32, 64, True), (32, 63, False), (1, 2**16, False)])
def test_norms_of_few_values_are_torchs(
    monkeypatch: pytest.MonkeyPatch, side: int, channels: int, *, expected: bool
) -> None:
    for name, limit in LIMITS.items():
        monkeypatch.setattr(choice, name, limit)
    norm, excite = nn.BatchNorm2d(channels), SqueezeExcite(channels, 1, "silu")
    x = torch.randn(2, channels, side, side).contiguous(memory_format=torch.channels_last)
    both = {"norm_act_excite"} if expected else {"norm_act"} if x.numel() >= LIMITS["NORM_VALUES"] else set()
    assert used(lambda: choice.normalise_excite(x, norm, nn.SiLU(), excite)) == both
    assert used(lambda: choice.normalise(x, norm, nn.SiLU())) == ({"norm_act"} if both else set())
