"""The compiled operators against torch's own in float64, on every instruction set of the machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trifold.errors import InvalidInput
from trifold.kernels import depthwise, depthwise_input_grad, depthwise_weight_grad, norm_act, using
from trifold.kernels.excite import norm_act_excite, plain_excite
from trifold.kernels.library import SETS, _loaded
from trifold.kernels.mbconv import mbconv_middle, plain_middle
from trifold.kernels.norm_act import ACTIVATIONS, norm_act_backward, plain

LIBRARY = _loaded()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the kernels were not compiled: no C compiler with OpenMP")
USABLE = SETS[: LIBRARY.trifold_best() + 1] if LIBRARY else ()
ACCURATE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Relative to the largest value that the sums are made of."""


@pytest.fixture(params=USABLE)
def on_each_set(request: pytest.FixtureRequest) -> Iterator[str]:
    with using(request.param):
        yield request.param


def reference(x: Tensor, weight: Tensor, stride: int, before: Sequence[int], out_size: Sequence[int]) -> Tensor:
    """The same by torch: a padded or cropped copy, then a grouped convolution."""
    kernel_size = weight.shape[-1]
    after = [
        (out - 1) * stride + kernel_size - size - first
        for out, size, first in zip(out_size, x.shape[2:], before, strict=True)
    ]
    padded = F.pad(x, (before[1], after[1], before[0], after[0]))
    return F.conv2d(padded, weight, stride=stride, groups=x.shape[1])


def make(
    shape: Sequence[int], dtype: torch.dtype = torch.float32, seed: int = 0, memory: Any = torch.channels_last
) -> Tensor:
    values = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype).contiguous(memory_format=memory)


def halved(size: Sequence[int], stride: int) -> list[int]:
    return [(side - 1) // stride + 1 for side in size]


def assert_near(found: Tensor, wanted: Tensor, scale: Tensor) -> None:
    """Within the type's accuracy of wanted, relative to the largest of scale."""
    allowed = ACCURATE[found.dtype] * float(scale.detach().abs().max())
    assert found.shape == wanted.shape
    assert float((found.double() - wanted).abs().max()) <= allowed


def check_depthwise(
    shape: Sequence[int], kernel_size: int, stride: int, before: Sequence[int], dtype: torch.dtype, seed: int = 0
) -> None:
    """Output and both gradients against the reference in float64.

    The scale is that of sums of absolute values, since sums of few values may all but cancel.
    """
    out_size = halved(shape[2:], stride)
    x, weight = make(shape, dtype, seed), make((shape[1], 1, kernel_size, kernel_size), dtype, seed + 1)
    grad = make((*shape[:2], *out_size), dtype, seed + 2)
    found = [
        depthwise(x, weight, stride, before, out_size),
        depthwise_input_grad(grad, weight, stride, before, shape[2:]),
        depthwise_weight_grad(x, grad, kernel_size, stride, before),
    ]
    exact, sums = [
        [out.detach(), *torch.autograd.grad(out, inputs, of.double())]
        for inputs, of in (
            ([t.double().requires_grad_() for t in (x, weight)], grad),
            ([t.double().abs().requires_grad_() for t in (x, weight)], grad.abs()),
        )
        for out in [reference(inputs[0], inputs[1], stride, before, out_size)]
    ]
    for mine, theirs, scale in zip(found, exact, sums, strict=True):
        assert_near(mine, theirs, scale)


SHAPES = [
    (2, 1, 5, 5), (3, 8, 4, 4), (1, 16, 7, 9), (9, 35, 3, 2), (2, 48, 1, 1), (1, 24, 1, 13), (2, 20, 30, 31),
]  # fmt: skip


@pytest.mark.usefixtures("on_each_set")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_depthwise_and_its_gradients_are_torchs(kernel_size: int, stride: int, dtype: torch.dtype) -> None:
    for shape, before in itertools.product(SHAPES, ([kernel_size // 2] * 2, [0, 0], [kernel_size - 1, 1])):
        check_depthwise(shape, kernel_size, stride, before, dtype)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_depthwise_of_any_shape_is_torchs(data: st.DataObject) -> None:
    kernel_size, stride = data.draw(st.sampled_from((3, 5, 7))), data.draw(st.sampled_from((1, 2)))
    shape = [data.draw(st.integers(1, most)) for most in (10, 70, 20, 20)]
    before = [data.draw(st.integers(0, kernel_size - 1)) for _ in range(2)]
    with using(data.draw(st.sampled_from(USABLE))):
        check_depthwise(shape, kernel_size, stride, before, torch.float32, seed=data.draw(st.integers(0, 99)))


def test_a_map_larger_than_the_scratch_is_cut_into_strips() -> None:
    check_depthwise((1, 17, 120, 250), 5, 1, (2, 2), torch.float32)
    check_depthwise((1, 17, 121, 251), 7, 2, (2, 3), torch.float32)
    check_depthwise((1, 3, 9, 3000), 3, 2, (1, 1), torch.float32)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_has_gradients_of_first_and_second_order(stride: int) -> None:
    x = make((2, 3, 5, 4), torch.float64).requires_grad_()
    weight = make((3, 1, 3, 3), torch.float64, 1).requires_grad_()

    def call(x: Tensor, weight: Tensor) -> Tensor:
        out: Tensor = depthwise(x, weight, stride, (1, 0), halved((5, 4), stride))
        return out

    assert torch.autograd.gradcheck(call, (x, weight))
    assert torch.autograd.gradgradcheck(call, (x, weight))


def test_only_the_gradients_that_are_needed_are_computed() -> None:
    x, weight = make((2, 3, 5, 4)).requires_grad_(), make((3, 1, 3, 3))
    out = depthwise(x, weight, 1, (1, 1), (5, 4))
    out.sum().backward()
    assert x.grad is not None
    assert weight.grad is None


@pytest.mark.usefixtures("on_each_set")
def test_bits_are_equal_for_any_number_of_threads_and_every_time() -> None:
    x, weight, bias = make((13, 40, 17, 16)), make((40, 1, 5, 5), seed=1), make((40, 1, 1, 1), seed=2).flatten()
    grad = make((13, 40, 9, 8), seed=3)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            normed = norm_act(x, bias, bias, 1e-3, "silu")
            found.append(
                [
                    depthwise(x, weight, 2, (2, 2), (9, 8)),
                    depthwise_input_grad(grad, weight, 2, (2, 2), (17, 16)),
                    depthwise_weight_grad(x, grad, 5, 2, (2, 2)),
                    *normed,
                    *norm_act_backward(x, x, bias, bias, *normed[1:], 1e-3, "silu"),
                ]
            )
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_an_empty_batch_gives_an_empty_output_and_no_gradient() -> None:
    x, weight = torch.empty(0, 8, 6, 6), make((8, 1, 3, 3))
    out = depthwise(x, weight, 2, (1, 1), (3, 3))
    assert out.shape == (0, 8, 3, 3)
    assert torch.equal(depthwise_weight_grad(x, out, 3, 2, (1, 1)), torch.zeros(8, 1, 3, 3))
    assert depthwise_input_grad(out, weight, 2, (1, 1), (6, 6)).shape == x.shape


@pytest.mark.parametrize("order", ["contiguous", "every other pixel", "transposed"])
def test_any_memory_order_gives_the_same(order: str) -> None:
    weight, whole = make((8, 1, 3, 3)), make((2, 8, 12, 12))
    x = {
        "contiguous": whole.contiguous(),
        "every other pixel": whole[:, :, ::2, ::2],
        "transposed": whole.transpose(2, 3),
    }[order]
    kept, size = make(x.shape, memory=torch.channels_last).copy_(x), x.shape[2:]
    assert torch.equal(depthwise(x, weight, 1, (1, 1), size), depthwise(kept, weight, 1, (1, 1), size))
    assert torch.equal(depthwise_weight_grad(x, x, 3, 1, (1, 1)), depthwise_weight_grad(kept, kept, 3, 1, (1, 1)))
    scale = torch.ones(8)
    assert torch.equal(norm_act(x, scale, scale, 1e-3, "silu")[0], norm_act(kept, scale, scale, 1e-3, "silu")[0])


def test_numbers_that_are_not_finite_stay_where_they_are() -> None:
    x = torch.zeros(2, 20, 6, 6)
    x[0, 19, 0, 0], x[1, 3, 5, 5] = float("nan"), float("inf")
    out = depthwise(x, torch.ones(20, 1, 3, 3), 1, (1, 1), (6, 6))
    assert (~out.isfinite()).nonzero().tolist() == [
        [image, channel, row, column]
        for image, channel, rows, columns in ((0, 19, (0, 1), (0, 1)), (1, 3, (4, 5), (4, 5)))
        for row in rows
        for column in columns
    ]
    out, mean, _ = norm_act(x[:1], torch.ones(20), torch.zeros(20), 1e-3, "silu")
    assert out[:, 19].isnan().all()
    assert mean[19].isnan()
    assert out[:, :19].isfinite().all()


@pytest.mark.usefixtures("on_each_set")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_norm_act_and_its_gradients_are_torchs(activation: str, dtype: torch.dtype) -> None:
    for channels, sizes in itertools.product((1, 3, 8, 13, 40, 96), ((3, 4, 5), (2, 33, 40))):
        x = make((sizes[0], channels, *sizes[1:]), dtype) * 3 + 2
        weight, bias = make((channels, 1, 1, 1), dtype, 1).flatten(), make((channels, 1, 1, 1), dtype, 2).flatten()
        grad = make(x.shape, dtype, 3)
        inputs = [t.detach().clone().double().requires_grad_() for t in (x, weight, bias)]
        wanted = plain(*inputs, epsilon=1e-3, activation=activation)
        found, mean, variance = norm_act(x, weight, bias, 1e-3, activation)
        assert_near(found, wanted.detach(), wanted)
        assert_near(mean, x.double().mean((0, 2, 3)), x)
        assert_near(variance, x.double().var((0, 2, 3), unbiased=False), x)
        gradients = norm_act_backward(grad, x, weight, bias, mean, variance, 1e-3, activation)
        summed = grad.double().abs().sum((0, 2, 3)) / 100  # thousands of values that all but cancel
        for mine, theirs in zip(gradients, torch.autograd.grad(wanted, inputs, grad.double()), strict=True):
            assert_near(mine, theirs, theirs if theirs.ndim > 1 else theirs.abs() + summed)


def test_norm_act_is_exact_far_from_zero_and_for_constants() -> None:
    x = make((4, 8, 9, 9)) + 1000
    ones, zeros = torch.ones(8), torch.zeros(8)
    exact = plain(x.double(), ones.double(), zeros.double(), epsilon=1e-3, activation="none")
    assert_near(norm_act(x, ones, zeros, 1e-3, "none")[0] / 10, exact / 10, exact)  # 1000 has 3e-5 of resolution
    constant = torch.full((4, 8, 9, 9), 7.3)
    out, mean, variance = norm_act(constant, ones, ones, 1e-3, "none")
    assert torch.allclose(out, torch.ones_like(out), atol=1e-4)  # 7.3 divided by sqrt(1e-3), taken from itself
    assert torch.equal(mean, torch.full((8,), 7.3))
    assert torch.equal(variance, zeros)


def test_silu_is_exact_over_all_its_range() -> None:
    values = torch.cat([torch.linspace(-120, 120, 4001), torch.tensor([0.0, 1e-30, -1e-30])]).reshape(1, 1, -1, 1)
    both = torch.cat([values, -values])  # a mean of 0
    _, _, variance = norm_act(both, torch.ones(1), torch.zeros(1), 0.0, "none")
    found = norm_act(both, variance.sqrt(), torch.zeros(1), 0.0, "silu")[0]
    wanted = F.silu(both.double())
    assert torch.allclose(found.double(), wanted, rtol=1e-6, atol=1e-5)  # where x is 120 it has 8e-6 of resolution


def excite_inputs(channels: int, squeezed: int, sizes: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    """x, batch norm's two and the two layers' four tensors, which need gradients."""
    x = make((sizes[0], channels, *sizes[1:]), dtype) * 2 + 1
    shapes = ((channels,), (channels,), (squeezed, channels), (squeezed,), (channels, squeezed), (channels,))
    others = [make((1, 1, 1, torch.Size(shape).numel()), dtype, 1 + i).reshape(shape) for i, shape in enumerate(shapes)]
    return [tensor.detach().requires_grad_() for tensor in (x, *others)]


@pytest.mark.usefixtures("on_each_set")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_norm_act_excite_and_its_gradients_are_torchs(activation: str, dtype: torch.dtype) -> None:
    for channels, sizes in itertools.product((1, 13, 40), ((3, 2, 2), (2, 5, 9), (2, 31, 40))):
        inputs = excite_inputs(channels, 3, sizes, dtype)
        exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
        grad = make(inputs[0].shape, dtype, 9)
        wanted = plain_excite(*exact, epsilon=1e-3, activation=activation)
        found, mean, variance, _, _ = norm_act_excite(*inputs, 1e-3, activation)
        assert_near(found.detach(), wanted.detach(), wanted)
        assert not mean.requires_grad
        assert_near(variance, exact[0].detach().var((0, 2, 3), unbiased=False), exact[0])
        plainly = torch.autograd.grad(plain_excite(*inputs, epsilon=1e-3, activation=activation), inputs, grad)
        mine, theirs = torch.autograd.grad(found, inputs, grad), torch.autograd.grad(wanted, exact, grad.double())
        for one, other, by_torch in zip(mine, theirs, plainly, strict=True):
            as_good = 4 * float((by_torch.double() - other).abs().max())
            # Sums over all pixels may all but cancel: the scale of the output's gradient counts, too.
            scale = float(other.abs().max()) + float(grad.double().abs().sum((0, 2, 3)).max()) / 100
            allowed = max(as_good, ACCURATE[dtype] * scale)
            assert float((one.double() - other).abs().max()) <= allowed


Middle = tuple[list[Tensor | None], tuple[Any, ...]]


def middle_inputs(
    channels: int, sizes: Sequence[int], dtype: torch.dtype, *, kernel_size: int = 3, stride: int = 1,
    squeezed: int = 2, before: Sequence[int] = (1, 1), activation: str = "silu",
) -> Middle:  # fmt: skip
    """The ten tensors, which need gradients, and the numbers, of an MBConv block's middle."""
    x, *norm_and_layers = excite_inputs(channels, max(squeezed, 1), sizes, dtype)
    weight1, bias1 = (make((1, 1, 1, channels), dtype, seed).flatten() for seed in (21, 22))
    kernel = make((channels, 1, kernel_size, kernel_size), dtype, 23)
    others = [tensor.detach().requires_grad_() for tensor in (weight1, bias1, kernel)]
    layers: list[Tensor | None] = list(norm_and_layers[2:]) if squeezed else [None] * 4
    numbers = (stride, list(before), halved(sizes[1:], stride), 1e-3, 1e-4, activation)
    return [x, *others, *norm_and_layers[:2], *layers], numbers


def check_middle(inputs: list[Tensor | None], numbers: tuple[Any, ...]) -> None:
    """Output and gradients as near to torch's in float64 as torch's own in the same type."""
    given = [tensor for tensor in inputs if tensor is not None]
    exact = [None if tensor is None else tensor.detach().double().requires_grad_() for tensor in inputs]
    wanted, plainly = plain_middle(exact, numbers), plain_middle(inputs, numbers)
    found, *others = mbconv_middle(*inputs, *numbers)
    assert not any(other.requires_grad for other in others)
    grad = make(found.shape, found.dtype, 9)
    mine, by_torch = torch.autograd.grad(found, given, grad), torch.autograd.grad(plainly, given, grad)
    theirs = torch.autograd.grad(wanted, [tensor for tensor in exact if tensor is not None], grad.double())
    for one, other, plain_one in zip((found, *mine), (wanted, *theirs), (plainly, *by_torch), strict=True):
        error, as_good = (float((of.detach().double() - other.detach()).abs().max()) for of in (one, plain_one))
        # Sums over all pixels may all but cancel: the scale of the output's gradient counts, too.
        scale = float(other.detach().abs().max()) + float(grad.double().abs().sum((0, 2, 3)).max()) / 100
        assert error <= max(4 * as_good, ACCURATE[found.dtype] * scale)


@pytest.mark.usefixtures("on_each_set")
@pytest.mark.parametrize("squeezed", [0, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_an_mbconv_blocks_middle_and_its_gradients_are_torchs(kernel_size: int, stride: int, squeezed: int) -> None:
    for (channels, sizes), activation, dtype in zip(
        ((1, (3, 5, 4)), (8, (10, 4, 4)), (13, (2, 9, 7)), (35, (3, 2, 6)), (40, (9, 6, 5)), (16, (2, 12, 31))),
        (*ACTIVATIONS, "silu"),
        (torch.float32, torch.float64, torch.float32, torch.float64, torch.float32, torch.float32),
        strict=True,
    ):
        for before in ([kernel_size // 2] * 2, [0, kernel_size - 1]):
            check_middle(
                *middle_inputs(
                    channels, sizes, dtype, kernel_size=kernel_size, stride=stride, squeezed=squeezed, before=before,
                    activation=activation,
                )
            )  # fmt: skip


def test_a_middle_larger_than_the_scratch_is_cut_into_strips() -> None:
    for kernel_size, stride in ((3, 1), (5, 2), (7, 1), (7, 2)):
        check_middle(*middle_inputs(17, (1, 61, 150), torch.float64, kernel_size=kernel_size, stride=stride))
    check_middle(*middle_inputs(3, (1, 7, 1500), torch.float64, kernel_size=7, stride=2, before=(3, 2)))


@pytest.mark.parametrize("squeezed", [0, 2])
def test_a_middle_has_gradients_of_first_and_second_order(squeezed: int) -> None:
    inputs, numbers = middle_inputs(3, (2, 3, 4), torch.float64, stride=2, squeezed=squeezed)
    given = [tensor for tensor in inputs if tensor is not None]

    def call(*tensors: Tensor) -> Tensor:
        padded = [*tensors, *[None] * (10 - len(tensors))]
        out: Tensor = mbconv_middle(*padded, *numbers)[0]
        return out

    assert torch.autograd.gradcheck(call, given)
    assert torch.autograd.gradgradcheck(call, given, atol=1e-4)


def test_norm_act_excite_has_gradients_of_first_and_second_order() -> None:
    inputs = excite_inputs(3, 2, (2, 3, 3), torch.float64)

    def call(*inputs: Tensor) -> Tensor:
        out: Tensor = norm_act_excite(*inputs, 1e-3, "silu")[0]
        return out

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("activation", ["silu", "none"])
def test_norm_act_has_gradients_of_first_and_second_order(activation: str) -> None:
    inputs = [make((2, 3, 4, 3), torch.float64).requires_grad_()]
    inputs += [make((3, 1, 1, 1), torch.float64, seed).flatten().detach().requires_grad_() for seed in (1, 2)]

    def call(*inputs: Tensor) -> Tensor:
        out: Tensor = norm_act(*inputs, 1e-3, activation)[0]
        return out

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def flat(inputs: list[Tensor | None], numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*inputs, *numbers)


def test_torch_finds_nothing_wrong_with_the_operators() -> None:
    x, weight = make((2, 4, 6, 5)).requires_grad_(), make((4, 1, 3, 3)).requires_grad_()
    scale = torch.ones(4, requires_grad=True)
    for operator, arguments in (
        (depthwise, (x, weight, 2, (1, 1), (3, 3))),
        (depthwise_input_grad, (make((2, 4, 3, 3)).requires_grad_(), weight, 2, (1, 1), (6, 5))),
        (depthwise_weight_grad, (x, make((2, 4, 3, 3)).requires_grad_(), 3, 2, (1, 1))),
        (norm_act, (x, scale, scale, 1e-3, "silu")),
        (norm_act_excite, (*excite_inputs(4, 2, (2, 3, 5), torch.float32), 1e-3, "silu")),
        *((mbconv_middle, flat(*middle_inputs(4, (2, 5, 4), torch.float32, squeezed=count))) for count in (0, 2)),
    ):
        torch.library.opcheck(operator, arguments)


def test_operators_are_compiled_and_exported_as_they_are() -> None:
    class Both(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
            y = depthwise(x, weight, 1, (1, 1), x.shape[2:])
            out: Tensor = norm_act(y, scale, scale, 1e-3, "silu")[0]
            return out

    arguments = (make((2, 4, 6, 5)), make((4, 1, 3, 3)), torch.ones(4))
    wanted = Both()(*arguments)
    exported = torch.export.export(Both(), arguments)
    assert torch.equal(exported.module()(*arguments), wanted)
    assert {str(node.target) for node in exported.graph.nodes} >= {"trifold.depthwise.default"}
    with_gradients = tuple(argument.clone().requires_grad_() for argument in arguments)
    torch.compile(Both(), backend="aot_eager", fullgraph=True)(*with_gradients).square().sum().backward()
    again = tuple(argument.clone().requires_grad_() for argument in arguments)
    Both()(*again).square().sum().backward()
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(with_gradients, again, strict=True))  # type: ignore[arg-type]


def test_under_autocast_they_compute_in_float32() -> None:
    x, weight = make((2, 4, 6, 5)), make((4, 1, 3, 3))
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise(x.bfloat16(), weight, 1, (1, 1), (6, 5))
    assert out.dtype == torch.float32
    assert torch.equal(out, depthwise(x.bfloat16().float(), weight, 1, (1, 1), (6, 5)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(2, 4, 6, 6).half()}, "x must be float32 or float64"),
        ({"x": torch.zeros(4, 6, 6)}, "x must have 4 dimensions, got 3"),
        ({"weight": torch.zeros(4, 1, 3, 3).double()}, "both alike"),
        ({"weight": torch.zeros(4, 1, 4, 4)}, "kernel_size must be 3, 5 or 7, got 4"),
        ({"weight": torch.zeros(5, 1, 3, 3)}, r"weight must have the shape \(4, 1, 3, 3\), got \(5, 1, 3, 3\)"),
        ({"weight": torch.zeros(4, 1, 5, 3)}, r"weight must have the shape \(4, 1, 3, 3\), got \(4, 1, 5, 3\)"),
        ({"stride": 3}, "stride must be 1 or 2, got 3"),
        ({"before": (3, 0)}, r"before must be from 0 to 2, got \(3, 0\)"),
        ({"before": (0, -1)}, r"before must be from 0 to 2, got \(0, -1\)"),
    ],
)
def test_what_there_is_no_code_for_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {
        "x": torch.zeros(2, 4, 6, 6), "weight": torch.zeros(4, 1, 3, 3), "stride": 1, "before": (1, 1),
        "out_size": (6, 6),
    } | changes  # fmt: skip
    with pytest.raises(InvalidInput, match=message):
        depthwise(*arguments.values())


@pytest.mark.parametrize(
    ("x", "weight", "activation", "message"),
    [
        (torch.zeros(1, 4, 1, 1), torch.ones(4), "silu", "at least 2 values a channel"),
        (torch.zeros(2, 4, 1, 1), torch.ones(3), "silu", r"weight must be torch.float32 of 4 values, got .*\(3,\)"),
        (torch.zeros(2, 4, 1, 1), torch.ones(4), "gelu", "activation must be none or silu .* got 'gelu'"),
        (torch.zeros(2, 4), torch.ones(4), "silu", "of 4 dimensions"),
    ],
)
def test_norm_act_refuses_what_it_has_no_code_for(x: Tensor, weight: Tensor, activation: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        norm_act(x, weight, weight, 1e-3, activation)


def test_a_middle_refuses_what_it_has_no_code_for() -> None:
    inputs, numbers = middle_inputs(4, (2, 5, 4), torch.float32)
    with pytest.raises(InvalidInput, match=r"kernel must be torch.float32 .* got torch.float32 of \(4, 1, 4, 4\)"):
        mbconv_middle(*inputs[:3], torch.zeros(4, 1, 4, 4), *inputs[4:], *numbers)
    with pytest.raises(InvalidInput, match=r"bias must be torch.float32 of 4 values, got torch.float32 of \(3,\)"):
        mbconv_middle(*inputs[:5], torch.zeros(3), *inputs[6:], *numbers)
    with pytest.raises(InvalidInput, match="stride must be 1 or 2, got 3"):
        mbconv_middle(*inputs, 3, *numbers[1:])
    with pytest.raises(InvalidInput, match=r"before must be from 0 to 2, got \(3, 0\)"):
        mbconv_middle(*inputs, 1, (3, 0), *numbers[2:])


def test_norm_act_excite_refuses_layers_that_do_not_fit() -> None:
    inputs = excite_inputs(4, 2, (2, 3, 5), torch.float32)
    with pytest.raises(InvalidInput, match=r"excite_weight must have the shape \(4, 2\), got \(2, 4\)"):
        norm_act_excite(*inputs[:5], inputs[3], inputs[6], 1e-3, "silu")
