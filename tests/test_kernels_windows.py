"""The depthwise and the middle's kernels in every kind of window, also those that no network has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from trifold.kernels import depthwise
from trifold.kernels.library import _loaded
from trifold.kernels.mbconv import mbconv_middle, plain_middle

pytestmark = pytest.mark.skipif(_loaded() is None, reason="the kernels were not compiled: no C compiler with OpenMP")


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Images, a kernel and a place for it: outputs may lie wholly in the padding, and pixels under no output."""
    kernel_size = draw(st.sampled_from([3, 5, 7]))
    side, margin, out = st.integers(1, 9), st.integers(0, kernel_size - 1), st.integers(1, 8)
    return {
        "kernel_size": kernel_size,
        "stride": draw(st.sampled_from([1, 2])),
        "shape": (
            draw(st.sampled_from([2, 3, 9])),
            draw(st.sampled_from([1, 3, 8, 16, 17, 40])),
            draw(side),
            draw(side),
        ),
        "before": (draw(margin), draw(margin)),
        "out_size": (draw(out), draw(out)),
        "activation": draw(st.sampled_from(["silu", "relu", "relu6", "hard_swish", "none"])),
        "excite": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**16)),
    }


def assert_gradients_near(found: Tensor, wanted: Tensor, inputs: list[Tensor], accurate: float) -> None:
    grad = torch.randn_like(wanted)
    pairs = zip(
        (found, *torch.autograd.grad(found, inputs, grad)),
        (wanted, *torch.autograd.grad(wanted, inputs, grad)),
        strict=True,
    )
    for one, other in pairs:
        assert float((one - other).detach().abs().max()) <= accurate * (1 + float(other.detach().abs().max()))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(window=windows())
def test_any_window_has_torchs_gradients(window: dict[str, Any]) -> None:
    torch.manual_seed(window["seed"])
    channels, kernel_size, stride = window["shape"][1], window["kernel_size"], window["stride"]
    before, out_size = window["before"], window["out_size"]
    shapes = [
        window["shape"],
        (channels,),
        (channels,),
        (channels, 1, kernel_size, kernel_size),
        (channels,),
        (channels,),
    ]
    if window["excite"]:
        shapes += [(2, channels), (2,), (channels, 2), (channels,)]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x, kernel = tensors[0], tensors[3]

    after = [
        (out - 1) * stride + kernel_size - side - first
        for out, side, first in zip(out_size, window["shape"][2:], before, strict=True)
    ]
    padded = F.pad(x, (before[1], after[1], before[0], after[0]))
    wanted = F.conv2d(padded, kernel, stride=stride, groups=channels)
    assert_gradients_near(depthwise(x, kernel, stride, before, out_size), wanted, [x, kernel], 1e-12)

    numbers = (stride, before, out_size, 0.1, 0.1, window["activation"])
    all_ten = [*tensors, *[None] * (10 - len(tensors))]
    found = mbconv_middle(*all_ten, *numbers)[0]
    assert_gradients_near(found, plain_middle(all_ten, numbers), tensors, 1e-8)
