"""The operators' modules against their costs, torch's functions written out by hand, and SAME padding's table."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trifold import baselines
from trifold.architecture import Architecture, Block, Head, Stage, Stem
from trifold.cost import Convolution, convolutions
from trifold.errors import InvalidInput
from trifold.layers import (
    ACTIVATIONS,
    NARROW,
    OPERATORS,
    PADDINGS,
    PAPER_NUMERICS,
    TORCH_NUMERICS,
    ConvNorm,
    DropPath,
    MaxPool,
    Numerics,
    SqueezeExcite,
    Window,
    same_padding,
)

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
    "gelu": F.gelu,
    "none": torch.clone,
}

SAME_PADS = {
    # resolution: pads (before, after) of stem k3, stage 3 k3, stage 4 k5, stage 5 k3, stage 7 k5, as each size halves
    224: ((0, 1), (0, 1), (1, 2), (0, 1), (1, 2)),
    240: ((0, 1), (0, 1), (1, 2), (0, 1), (2, 2)),
    260: ((0, 1), (0, 1), (2, 2), (1, 1), (2, 2)),
    300: ((0, 1), (0, 1), (2, 2), (0, 1), (2, 2)),
    380: ((0, 1), (0, 1), (2, 2), (0, 1), (1, 2)),
    456: ((0, 1), (0, 1), (1, 2), (1, 1), (2, 2)),
    528: ((0, 1), (0, 1), (1, 2), (0, 1), (2, 2)),
    600: ((0, 1), (0, 1), (1, 2), (1, 1), (1, 2)),
    672: ((0, 1), (0, 1), (1, 2), (0, 1), (1, 2)),
    800: ((0, 1), (0, 1), (1, 2), (0, 1), (1, 2)),
    475: ((1, 1), (0, 1), (2, 2), (0, 1), (1, 2)),
}


def block(operator: str, **other: Any) -> Block:
    """A block of 8 channels at 9 pixels, with the given fields instead."""
    row = Block(
        stage=1,
        operator=operator,
        kernel_size=3,
        stride=1,
        in_channels=8,
        mid_channels=24 if operator in ("mbconv", "fused_mbconv") else 8,
        squeeze_channels=2,
        out_channels=8,
        in_size=9,
        out_size=9,
        activation="silu",
        shortcut="identity",
    )
    return row._replace(**other)


def made(row: Block, numerics: Numerics = TORCH_NUMERICS, rate: float = 0.0) -> Any:
    """The block's module in evaluation mode, float64, every tensor random."""
    torch.manual_seed(0)
    module = OPERATORS[row.operator](row, numerics, rate).double().eval()
    for name, tensor in module.state_dict().items():
        if "num_batches" not in name:
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "running_var" in name else torch.randn_like(tensor))
    return module


def convolved(module: object, x: Tensor, *, stride: int = 1, activation: str = "none") -> Tensor:
    """What a ConvNorm must give, in torch's functions, with symmetric padding and torch's epsilon."""
    assert isinstance(module, ConvNorm)
    weight, norm = module.conv.weight, module.norm
    groups = x.shape[1] // weight.shape[1]
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
    x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)
    return FUNCTIONS[activation](x)


def gated(module: object, x: Tensor, activation: str) -> Tensor:
    """What squeeze-excite must give."""
    assert isinstance(module, SqueezeExcite)
    means = x.mean(3).mean(2)
    assert module.reduce.bias is not None
    assert module.excite.bias is not None
    hidden = means @ module.reduce.weight[:, :, 0, 0].T + module.reduce.bias
    hidden = FUNCTIONS[activation](hidden)
    gate = torch.sigmoid(hidden @ module.excite.weight[:, :, 0, 0].T + module.excite.bias)
    return x * gate[:, :, None, None]


def images(channels: int = 8, size: int = 9) -> Tensor:
    return torch.randn((2, channels, size, size), generator=torch.Generator().manual_seed(1)).double()


def same(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("size", "pads"), SAME_PADS.items())
def test_same_padding_is_the_published_table(size: int, pads: tuple[tuple[int, int], ...]) -> None:
    for kernel_size, expected in zip((3, 3, 5, 3, 5), pads, strict=True):
        assert same_padding(size, kernel_size, 2) == expected
        size = -(-size // 2)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7, 31])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_tensorflows_formula(kernel_size: int, stride: int) -> None:
    for size in range(1, 80):
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        assert same_padding(size, kernel_size, stride) == (total // 2, total - total // 2)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_convolution_places_its_padding_as_named_and_keeps_the_same_size(padding: str, kernel_size: int) -> None:
    for height, width in ((8, 8), (9, 9), (8, 11), (1, 2)):
        if padding == "same_static" and (height - width) % 2:
            continue
        window = Window(kernel_size=kernel_size, stride=2, in_size=height)
        layer = ConvNorm(3, 4, window=window, numerics=Numerics(padding=padding))
        x = torch.randn(1, 3, height, width)
        pads = [
            (kernel_size // 2,) * 2 if padding == "symmetric" else same_padding(n, kernel_size, 2) for n in x.shape[2:]
        ]
        sides = [int(side) for side in (*pads[1], *pads[0])]
        expected = F.conv2d(F.pad(x, sides), layer.conv.weight, stride=2)
        assert torch.allclose(layer.conv(layer.pad(x)), expected, atol=1e-6)
        assert expected.shape[2:] == (-(-height // 2), -(-width // 2))


def test_static_padding_refuses_a_size_that_it_does_not_fit() -> None:
    window = Window(kernel_size=3, stride=2, in_size=224)
    layer = ConvNorm(3, 4, window=window, numerics=Numerics(padding="same_static"))
    assert layer(torch.zeros(1, 3, 64, 32)).shape == (1, 4, 32, 16)
    with pytest.raises(InvalidInput, match="same_static was worked out for 224 pixels here and does not fit 33"):
        layer(torch.zeros(1, 3, 64, 33))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("channels", [1, 2, 6, 7, 8])
@pytest.mark.parametrize("size", [7, 8])
def test_a_strided_pointwise_convolution_is_torchs_without_its_fault(padding: str, channels: int, size: int) -> None:
    window = Window(kernel_size=1, stride=2, in_size=size)
    layer = ConvNorm(channels, 12, window=window, numerics=Numerics(padding=padding)).double()
    assert (layer.conv.stride == (1, 1)) == (channels < NARROW)
    x = torch.randn(3, channels, size, size, dtype=torch.float64).requires_grad_()
    theirs, weight = x.detach().clone().requires_grad_(), layer.conv.weight.detach().clone().requires_grad_()
    out, expected = layer.convolve(x), F.conv2d(theirs, weight, stride=2)  # not channels last: there torch is right
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(expected)
    torch.autograd.backward([out, expected], [upstream, upstream])
    torch.testing.assert_close(layer.conv.weight.grad, weight.grad)
    torch.testing.assert_close(x.grad, theirs.grad)


def test_narrow_networks_train_channels_last_without_a_broken_heap() -> None:
    program = """
import torch
from trifold.layers import PAPER_NUMERICS, ConvNorm, Window
window = Window(kernel_size=1, stride=2, in_size=8)
for channels in (2, 3, 4, 6):
    layer = ConvNorm(channels, 12, window=window, numerics=PAPER_NUMERICS).to(memory_format=torch.channels_last)
    for step in range(50):
        x = torch.randn(2 + step % 7, channels, 8, 8).to(memory_format=torch.channels_last)
        layer(x).sum().backward()
        kept = [torch.empty(n % 97 + 1) for n in range(50)]
print("whole")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [8, 9])
def test_max_pool_never_takes_a_padded_zero(padding: str, size: int) -> None:
    row = block("max_pool", stride=2, in_size=size, out_size=-(-size // 2), shortcut="none")
    x = -1 - torch.rand(1, 8, size, size)
    found = MaxPool(row, Numerics(padding=padding))(x)
    before = 1 if padding == "symmetric" or size % 2 else 0
    spans = [slice(max(2 * i - before, 0), 2 * i - before + 3) for i in range(-(-size // 2))]
    for i, rows in enumerate(spans):
        for j, columns in enumerate(spans):
            assert torch.equal(found[:, :, i, j], x[:, :, rows, columns].amax((2, 3)))


def test_mbconv_is_expand_depthwise_gate_project_and_shortcut() -> None:
    module, x = made(block("mbconv")), images()
    y = convolved(module.expand, x, activation="silu")
    y = convolved(module.depthwise, y, activation="silu")
    y = convolved(module.project, gated(module.squeeze_excite, y, "silu"))
    assert same(module(x), y + x)


def test_mbconv_without_expansion_has_no_first_convolution() -> None:
    module, x = made(block("mbconv", mid_channels=8, stride=2, out_size=5, out_channels=16, shortcut="none")), images()
    assert isinstance(module.expand, nn.Identity)
    y = convolved(module.depthwise, x, stride=2, activation="silu")
    assert same(module(x), convolved(module.project, gated(module.squeeze_excite, y, "silu")))


@pytest.mark.parametrize("shortcut", ["none", "identity"])
def test_separable_has_an_activation_after_the_projection_and_before_the_shortcut(shortcut: str) -> None:
    row = block("separable", activation="relu6", squeeze_channels=0, shortcut=shortcut)
    module, x = made(row), images()
    y = convolved(module.project, convolved(module.depthwise, x, activation="relu6"), activation="relu6")
    assert same(module(x), y + x if shortcut == "identity" else y)


def test_fused_mbconv_has_the_stride_in_its_expansion() -> None:
    module = made(block("fused_mbconv", stride=2, out_size=5, out_channels=12, shortcut="none"))
    x = images()
    y = convolved(module.expand, x, stride=2, activation="silu")
    assert same(module(x), convolved(module.project, gated(module.squeeze_excite, y, "silu")))


@pytest.mark.parametrize("operator", ["fused_mbconv", "conv"])
def test_fused_mbconv_without_expansion_is_one_activated_convolution(operator: str) -> None:
    module, x = made(block(operator, mid_channels=8)), images()
    y = gated(module.squeeze_excite, convolved(module.spatial, x, activation="silu"), "silu")
    assert same(module(x), y + x)


@pytest.mark.parametrize("shortcut", ["none", "identity", "projection"])
def test_bottleneck_activates_after_the_shortcut(shortcut: str) -> None:
    stride = 2 if shortcut == "projection" else 1
    row = block("bottleneck", mid_channels=4, activation="relu", stride=stride, out_size=9 // stride + stride - 1,
                shortcut=shortcut)  # fmt: skip
    module, x = made(row), images()
    y = convolved(module.expand, x, activation="relu")
    y = convolved(module.project, convolved(module.spatial, y, stride=stride, activation="relu"))
    y = gated(module.squeeze_excite, y, "relu")
    if shortcut != "none":
        y = y + (x if shortcut == "identity" else convolved(module.shortcut, x, stride=2))
    assert same(module(x), F.relu(y))


@pytest.mark.parametrize("shortcut", ["none", "identity", "projection"])
def test_basic_activates_after_the_shortcut(shortcut: str) -> None:
    out = 16 if shortcut == "projection" else 8
    row = block("basic", activation="relu", mid_channels=out, out_channels=out, squeeze_channels=0, shortcut=shortcut)
    module, x = made(row), images()
    y = convolved(module.spatial_2, convolved(module.spatial, x, activation="relu"))
    if shortcut != "none":
        y = y + (x if shortcut == "identity" else convolved(module.shortcut, x))
    assert same(module(x), F.relu(y))


def test_squeeze_excite_uses_the_blocks_activation() -> None:
    for activation in ("relu", "relu6", "silu"):
        module = made(block("mbconv", activation=activation)).squeeze_excite
        x = images(24)
        assert isinstance(module, SqueezeExcite)
        assert same(module(x), gated(module, x, activation))


def test_activations_are_torchs() -> None:
    x = torch.linspace(-8, 8, 101)
    assert set(ACTIVATIONS) == set(FUNCTIONS)
    for name, function in FUNCTIONS.items():
        assert torch.allclose(ACTIVATIONS[name]()(x.clone()), function(x), atol=1e-6)


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.rand(4096, 2, 3, 1) + 1
    dropping = DropPath(0.25)
    found = dropping(x) / x
    flat = found.flatten(1)
    assert torch.equal(flat.amin(1) > 0, flat.amax(1) > 0)
    assert set((flat[:, 0] * 3).round().tolist()) == {0.0, 4.0}
    assert abs(float((flat[:, 0] == 0).float().mean()) - 0.25) < 4 * (0.25 * 0.75 / 4096) ** 0.5
    assert torch.equal(dropping.eval()(x), x)


def test_drop_path_is_only_where_there_is_a_shortcut() -> None:
    assert isinstance(made(block("mbconv"), rate=0.5).drop_path, DropPath)
    assert isinstance(made(block("mbconv", shortcut="none"), rate=0.5).drop_path, nn.Identity)
    assert isinstance(made(block("basic", shortcut="projection"), rate=0.5).drop_path, DropPath)


def test_dropped_block_gives_its_input() -> None:
    module, x = made(block("mbconv"), rate=0.999999), images()
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, DropPath):
            part.train()
    assert torch.equal(module(x), x)


def observed(module: nn.Module, x: Tensor) -> list[tuple[int, int, int, int, int, bool]]:
    """(in, out, kernel, groups, size, bias) of each convolution, in the order in which they ran."""
    seen = []

    def note(part: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(part, nn.Conv2d)
        seen.append((part.in_channels, part.out_channels, part.kernel_size[0], part.groups, out.shape[-1],
                     part.bias is not None))  # fmt: skip

    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(note)
    module(x)
    return seen


def spelled(convolution: Convolution) -> tuple[int, int, int, int, int, bool]:
    _, inputs, outputs, kernel_size, groups, size, bias = convolution
    return inputs, outputs, kernel_size, groups, size, bias


def every_kind_of_block() -> list[Block]:
    """The different blocks of all shipped networks, and each operator with squeeze-excite, at odd and even sizes."""
    found = {row for name in baselines.list_models() for row in baselines.find(name).blocks() if row.stage > 0}
    for operator in OPERATORS:
        ratio = 3 if operator in ("mbconv", "fused_mbconv", "bottleneck") else 1
        stage = Stage(operator=operator, channels=24, layers=2, stride=2, expand_ratio=ratio, se_ratio=0.25)
        for resolution in (31, 32):
            network = Architecture(name="n", resolution=resolution, stem=Stem(channels=8), stages=(stage,), head=Head())
            found |= set(network.blocks())
    return [row for row in found if row.operator in OPERATORS]


def test_modules_have_the_convolutions_of_their_cost_in_order_and_a_norm_after_each_without_bias() -> None:
    rows = every_kind_of_block()
    assert {row.operator for row in rows} == set(OPERATORS)
    for row in rows:
        with torch.device("meta"):
            module = OPERATORS[row.operator](row, PAPER_NUMERICS, 0.0).eval()
            x = torch.empty(1, row.in_channels, row.in_size, row.in_size)
        expected = [spelled(convolution) for convolution in convolutions(row)]
        assert observed(module, x) == expected, row
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        assert len(norms) == sum(not bias for *_, bias in expected)
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_a_wrong_stride_is_caught_by_the_shapes_in_the_types() -> None:
    module = made(block("mbconv", shortcut="none"))
    assert isinstance(module.depthwise, ConvNorm)
    module.depthwise.conv.stride = (2, 2)
    with pytest.raises(jaxtyping.TypeCheckError):
        module(images())


def test_numerics_survive_json_and_are_the_papers_by_default() -> None:
    for numerics in (PAPER_NUMERICS, TORCH_NUMERICS, Numerics(bn_eps=1e-4, bn_momentum=0.5, padding="same_static")):
        assert Numerics(**json.loads(json.dumps(dataclasses.asdict(numerics)))) == numerics
    assert Numerics() == PAPER_NUMERICS == Numerics(bn_eps=1e-3, bn_momentum=0.01, padding="same")
    assert Numerics(bn_eps=1e-5, bn_momentum=0.1, padding="symmetric") == TORCH_NUMERICS


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("bn_eps", 0.0, r"bn_eps must be a number in \(0, 1\), got 0.0"),
        ("bn_eps", float("nan"), r"bn_eps must be .* got nan"),
        ("bn_momentum", 1.5, r"bn_momentum must be a number in \(0, 1\], got 1.5"),
        ("padding", "valid", "padding must be same or same_static or symmetric, got 'valid'"),
    ],
)
def test_bad_numerics_are_refused(field: str, value: object, allowed: str) -> None:
    with pytest.raises(InvalidInput, match=allowed):
        Numerics(**{field: value})  # type: ignore[arg-type]  # what is refused here
