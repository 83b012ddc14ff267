"""The operators as modules: each is built from one fully resolved Block and has exactly the convolutions of its cost.

The names of the submodules are the roles in `cost.convolutions`: `expand`, `depthwise`, `spatial`, `project`,
`shortcut`, `squeeze_excite.reduce` and `squeeze_excite.excite`; a second spatial convolution is `spatial_2`. A
submodule that a block does not have is an `nn.Identity`, which holds no tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import SymInt, Tensor, nn
from torch.nn import functional as F

from trifold import kernels
from trifold.architecture import Block
from trifold.errors import InvalidInput

PADDINGS = ("same", "same_static", "symmetric")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """What published weights need to be computed with; it changes no shape and holds plain numbers and a string.

    bn_eps: added to the variance in batch norm; in (0, 1).
    bn_momentum: the new batch's share in the running statistics, as torch counts it (TensorFlow's is 1 minus this);
    in (0, 1].
    padding: "same": TensorFlow's, worked out from each input, so that a stride of 2 on an even size pads one pixel less
    before than after; "same_static": the same, worked out once from the architecture's resolution; "symmetric":
    kernel_size // 2 on both sides, as torch's own networks have it. Output sizes are equal, samples are shifted.

    Raises InvalidInput naming the field, the value and what is allowed.
    """

    bn_eps: float = 1e-3
    bn_momentum: float = 0.01
    padding: str = "same"

    def __post_init__(self) -> None:
        if isinstance(self.bn_eps, bool) or not isinstance(self.bn_eps, int | float) or not 0 < self.bn_eps < 1:
            raise InvalidInput(f"bn_eps must be a number in (0, 1), got {self.bn_eps!r}")
        momentum = self.bn_momentum
        if isinstance(momentum, bool) or not isinstance(momentum, int | float) or not 0 < momentum <= 1:
            raise InvalidInput(f"bn_momentum must be a number in (0, 1], got {momentum!r}")
        if self.padding not in PADDINGS:
            raise InvalidInput(f"padding must be {' or '.join(PADDINGS)}, got {self.padding!r}")


PAPER_NUMERICS = Numerics()
"""The paper's own numerics (tensorflow/tpu efficientnet_model.py: epsilon 1e-3, momentum 0.99, SAME)."""

TORCH_NUMERICS = Numerics(bn_eps=1e-5, bn_momentum=0.1, padding="symmetric")
"""torch's defaults: torchvision's B0 to B4, MobileNetV2 and ResNets; timm's networks without the `tf_` prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The square window of a convolution or pooling: odd size, stride 1 or 2, and the image side it is meant for."""

    kernel_size: int
    stride: int
    in_size: int


def same_padding(size: int | SymInt, kernel_size: int, stride: int) -> tuple[int | SymInt, int | SymInt]:
    """Zeros before and after one side of an image, in pixels, by TensorFlow's SAME rule (timm layers/padding.py).

    total = (ceil(size / stride) - 1) * stride + kernel_size - size, never negative; the smaller half stands before.
    """
    if kernel_size < stride:
        return 0, 0
    total = kernel_size - stride + -size % stride
    return total // 2, total - total // 2


class SamePad(nn.Module):
    """Padding by TensorFlow's SAME rule before a window that has none; from each input's size, or once if `static`.

    It stands outside the convolution, so that a convolution is torch's own class, which tools that count or fold know.
    """

    def __init__(self, window: Window, *, static: bool, value: float = 0.0) -> None:
        super().__init__()
        self.window, self.static, self.value = window, static, value

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels padded_height padded_width"]:
        """x padded as its size needs; if static, as the window's own image side needs it.

        Raises InvalidInput if static and x has another remainder by the stride than that image: its samples would
        shift.
        """
        (top, bottom), (left, right) = (self.margins(side) for side in x.shape[-2:])
        return F.pad(x, (left, right, top, bottom), value=self.value)  # type: ignore[arg-type]  # a traced size is a SymInt

    def margins(self, side: int | SymInt) -> tuple[int | SymInt, int | SymInt]:
        """Pixels before and after a side of an image. Raises InvalidInput as `forward` does."""
        window = self.window
        if self.static:
            if side % window.stride != window.in_size % window.stride:
                raise InvalidInput(
                    f"padding same_static was worked out for {window.in_size} pixels here and does not fit {side}; "
                    "padding same fits any size"
                )
            side = window.in_size
        return same_padding(side, window.kernel_size, window.stride)


def _padding(window: Window, padding: str, value: float = 0.0) -> tuple[nn.Module, int]:
    """The module to run before a window, and the window's own padding, so that n pixels become ceil(n / stride)."""
    if padding == "symmetric" or window.stride == 1 or window.kernel_size == 1:
        return nn.Identity(), window.kernel_size // 2
    return SamePad(window, static=padding == "same_static", value=value), 0


class MaxPool(nn.Module):
    """The 3x3 max-pooling of stride 2 after a ResNet's stem; SAME padding is with minus infinity, as TensorFlow's."""

    def __init__(self, block: Block, numerics: Numerics) -> None:
        super().__init__()
        self.window = Window(kernel_size=block.kernel_size, stride=block.stride, in_size=block.in_size)
        self.pad, padding = _padding(self.window, numerics.padding, float("-inf"))
        self.pool = nn.MaxPool2d(block.kernel_size, block.stride, padding)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels (height-1)//{self.window.stride}+1 (width-1)//{self.window.stride}+1"]:
        """The largest value of each window; a side of n pixels becomes ceil(n / stride)."""
        out: Tensor = self.pool(self.pad(x))
        return out


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,  # in place it would copy its input for the gradient
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hard_swish": lambda: nn.Hardswish(inplace=True),
    "gelu": nn.GELU,
    "none": nn.Identity,
}


class EveryOther(nn.Module):
    """Every `stride`-th pixel of each side, from the first: all that a 1x1 convolution of that stride reads."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels (height-1)//{self.stride}+1 (width-1)//{self.stride}+1"]:
        """The pixels, in the memory format of x."""
        return x[:, :, :: self.stride, :: self.stride]


NARROW = 8
"""Input channels below which a strided 1x1 convolution is one without a stride of `EveryOther` pixel: the weights'
gradient of the former, channels last, writes beyond its memory on CPUs (torch 2.13; seen with 2 to 6 channels)."""


class ConvNorm(nn.Module):
    """Padding where the window needs it, convolution, batch norm, activation: `pad`, `conv`, `norm`, `activation`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        window: Window,
        numerics: Numerics,
        groups: int = 1,
        activation: str = "none",
    ) -> None:
        super().__init__()
        self.window = window
        self.pad, padding = _padding(window, numerics.padding)
        narrow = window.kernel_size == 1 and window.stride > 1 and in_channels < NARROW
        if narrow:
            self.pad = EveryOther(window.stride)
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            window.kernel_size,
            stride=1 if narrow else window.stride,
            padding=padding,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=numerics.bn_eps, momentum=numerics.bn_momentum)
        self.activation = ACTIVATIONS[activation]()

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[
        Tensor,
        "batch {self.conv.out_channels} (height-1)//{self.window.stride}+1 (width-1)//{self.window.stride}+1",
    ]:
        """The activated, normalised convolution of x; a side of n pixels becomes ceil(n / stride)."""
        return kernels.normalise(self.convolve(x), self.norm, self.activation)

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution of x alone, padded."""
        return kernels.convolve(x, self.conv, self.pad, self.margins_before(x))

    def margins_before(self, x: Tensor) -> list[int | SymInt]:
        """Zeros above and to the left of x."""
        if isinstance(self.pad, SamePad):
            return [self.pad.margins(side)[0] for side in x.shape[2:]]
        return [self.window.kernel_size // 2] * 2


class SqueezeExcite(nn.Module):
    """Each channel times a gate in (0, 1) that all channels' means decide (paper §4, after Hu et al. 2018).

    `reduce` and `excite` are 1x1 convolutions with biases; the block's activation stands between them.
    """

    def __init__(self, channels: int, squeeze_channels: int, activation: str) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze_channels, 1)
        self.activation = ACTIVATIONS[activation]()
        self.excite = nn.Conv2d(squeeze_channels, channels, 1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """x with its channels weighted."""
        means = x.mean((2, 3), keepdim=True)
        gate: Tensor = self.excite(self.activation(self.reduce(means)))
        return x * gate.sigmoid()


def _excited(
    part: ConvNorm, squeeze_excite: nn.Module, x: Float[Tensor, "batch in_channels height width"]
) -> Float[Tensor, "batch channels out_height out_width"]:
    """squeeze_excite(part(x)), in one where that is faster and nobody listens to the part."""
    if isinstance(squeeze_excite, SqueezeExcite) and not kernels.hooked(part):
        return kernels.normalise_excite(part.convolve(x), part.norm, part.activation, squeeze_excite)
    out: Tensor = squeeze_excite(part(x))
    return out


class DropPath(nn.Module):
    """Stochastic depth: in training, a sample is dropped whole with probability `rate`, others are divided by 1 - rate.

    rate: in [0, 1). Evaluation leaves the input as it is (tensorflow/tpu utils.py `drop_connect`).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """x, in training with some samples zero."""
        if not self.training or self.rate == 0:
            return x
        survival = 1 - self.rate
        mask = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(survival)
        return x * (mask / survival)

    def extra_repr(self) -> str:
        """The rate, for print(network)."""
        return f"rate={self.rate:.4g}"


BlockInput = Float[Tensor, "batch {self.block.in_channels} height width"]
BlockOutput = Float[
    Tensor,
    "batch {self.block.out_channels} (height-1)//{self.block.stride}+1 (width-1)//{self.block.stride}+1",
]


def _pointwise(in_channels: int, out_channels: int, block: Block, numerics: Numerics, activation: str) -> ConvNorm:
    """A 1x1 convolution of stride 1."""
    window = Window(kernel_size=1, stride=1, in_size=block.in_size)
    return ConvNorm(in_channels, out_channels, window=window, numerics=numerics, activation=activation)


def _squeeze_excite(block: Block, channels: int) -> nn.Module:
    if not block.squeeze_channels:
        return nn.Identity()
    return SqueezeExcite(channels, block.squeeze_channels, block.activation)


def _drop_path(block: Block, rate: float) -> nn.Module:
    """Stochastic depth where there is a shortcut; elsewhere a dropped block would leave nothing."""
    return DropPath(rate) if rate and block.shortcut != "none" else nn.Identity()


class MBConv(nn.Module):
    """Expand, depthwise, squeeze-excite, project, without activation after the last (paper §4; Sandler et al. 2018).

    The operator "separable" has no expansion and an activation after the projection (Howard et al. 2017).
    """

    def __init__(self, block: Block, numerics: Numerics, drop_path_rate: float) -> None:
        super().__init__()
        self.block = block
        mid = block.mid_channels
        self.expand: nn.Module = nn.Identity()
        if mid != block.in_channels:
            self.expand = _pointwise(block.in_channels, mid, block, numerics, block.activation)
        self.depthwise = ConvNorm(
            mid,
            mid,
            window=Window(kernel_size=block.kernel_size, stride=block.stride, in_size=block.in_size),
            numerics=numerics,
            groups=mid,
            activation=block.activation,
        )
        self.squeeze_excite = _squeeze_excite(block, mid)
        last = block.activation if block.operator == "separable" else "none"
        self.project = _pointwise(mid, block.out_channels, block, numerics, last)
        self.drop_path = _drop_path(block, drop_path_rate)

    def forward(self, x: BlockInput) -> BlockOutput:
        """The block's output, its input added where the block has a shortcut."""
        y: Tensor = self.project(self._middle(x))
        if self.block.shortcut == "identity":
            y = self.drop_path(y) + x
        return y

    def _middle(self, x: Tensor) -> Tensor:
        """The projection's input."""
        expand, excite = self.expand, self.squeeze_excite
        if not isinstance(expand, ConvNorm) or kernels.hooked(expand, self.depthwise):
            return _excited(self.depthwise, excite, expand(x))
        y = expand.convolve(x)
        before = self.depthwise.margins_before(y)
        return kernels.middle(y, expand, self.depthwise, excite if isinstance(excite, SqueezeExcite) else None, before)


class FusedMBConv(nn.Module):
    """MBConv with expansion and depthwise convolution fused into one (Tan & Le 2021, EfficientNetV2, figure 2)."""

    def __init__(self, block: Block, numerics: Numerics, drop_path_rate: float) -> None:
        super().__init__()
        self.block = block
        self.expand = ConvNorm(
            block.in_channels,
            block.mid_channels,
            window=Window(kernel_size=block.kernel_size, stride=block.stride, in_size=block.in_size),
            numerics=numerics,
            activation=block.activation,
        )
        self.squeeze_excite = _squeeze_excite(block, block.mid_channels)
        self.project = _pointwise(block.mid_channels, block.out_channels, block, numerics, "none")
        self.drop_path = _drop_path(block, drop_path_rate)

    def forward(self, x: BlockInput) -> BlockOutput:
        """The block's output, its input added where the block has a shortcut."""
        y: Tensor = self.project(_excited(self.expand, self.squeeze_excite, x))
        if self.block.shortcut == "identity":
            y = self.drop_path(y) + x
        return y


class PlainConv(nn.Module):
    """Convolution with batch norm and activation, squeeze-excite, and the shortcut where the shape allows it."""

    def __init__(self, block: Block, numerics: Numerics, drop_path_rate: float) -> None:
        super().__init__()
        self.block = block
        self.spatial = ConvNorm(
            block.in_channels,
            block.out_channels,
            window=Window(kernel_size=block.kernel_size, stride=block.stride, in_size=block.in_size),
            numerics=numerics,
            activation=block.activation,
        )
        self.squeeze_excite = _squeeze_excite(block, block.out_channels)
        self.drop_path = _drop_path(block, drop_path_rate)

    def forward(self, x: BlockInput) -> BlockOutput:
        """The block's output, its input added where the block has a shortcut."""
        y = _excited(self.spatial, self.squeeze_excite, x)
        if self.block.shortcut == "identity":
            y = self.drop_path(y) + x
        return y


def _shortcut(block: Block, numerics: Numerics) -> nn.Module:
    """The 1x1 projection of a residual block whose shape changes (He et al. 2015, option B)."""
    if block.shortcut != "projection":
        return nn.Identity()
    window = Window(kernel_size=1, stride=block.stride, in_size=block.in_size)
    return ConvNorm(block.in_channels, block.out_channels, window=window, numerics=numerics)


class Bottleneck(nn.Module):
    """1x1, kxk with the stride, 1x1, squeeze-excite, shortcut, activation (He et al. 2015, figure 5, right)."""

    def __init__(self, block: Block, numerics: Numerics, drop_path_rate: float) -> None:
        super().__init__()
        self.block = block
        mid = block.mid_channels
        self.expand = _pointwise(block.in_channels, mid, block, numerics, block.activation)
        self.spatial = ConvNorm(
            mid,
            mid,
            window=Window(kernel_size=block.kernel_size, stride=block.stride, in_size=block.in_size),
            numerics=numerics,
            activation=block.activation,
        )
        self.project = _pointwise(mid, block.out_channels, block, numerics, "none")
        self.squeeze_excite = _squeeze_excite(block, block.out_channels)
        self.shortcut = _shortcut(block, numerics)
        self.drop_path = _drop_path(block, drop_path_rate)
        self.activation = ACTIVATIONS[block.activation]()

    def forward(self, x: BlockInput) -> BlockOutput:
        """The activated sum of the body's output and the shortcut's."""
        y = self.project(self.spatial(self.expand(x)))
        y = self.drop_path(self.squeeze_excite(y))
        if self.block.shortcut != "none":
            y = y + self.shortcut(x)
        out: Tensor = self.activation(y)
        return out


class Basic(nn.Module):
    """kxk with the stride, kxk, squeeze-excite, shortcut, activation (He et al. 2015, figure 5, left)."""

    def __init__(self, block: Block, numerics: Numerics, drop_path_rate: float) -> None:
        super().__init__()
        self.block = block
        out = block.out_channels
        self.spatial = ConvNorm(
            block.in_channels,
            out,
            window=Window(kernel_size=block.kernel_size, stride=block.stride, in_size=block.in_size),
            numerics=numerics,
            activation=block.activation,
        )
        second = Window(kernel_size=block.kernel_size, stride=1, in_size=block.out_size)
        self.spatial_2 = ConvNorm(out, out, window=second, numerics=numerics)
        self.squeeze_excite = _squeeze_excite(block, out)
        self.shortcut = _shortcut(block, numerics)
        self.drop_path = _drop_path(block, drop_path_rate)
        self.activation = ACTIVATIONS[block.activation]()

    def forward(self, x: BlockInput) -> BlockOutput:
        """The activated sum of the body's output and the shortcut's."""
        y = self.squeeze_excite(self.spatial_2(self.spatial(x)))
        y = self.drop_path(y)
        if self.block.shortcut != "none":
            y = y + self.shortcut(x)
        out: Tensor = self.activation(y)
        return out


def _fused_or_plain(block: Block, numerics: Numerics, drop_path_rate: float) -> nn.Module:
    """A fused block that expands nothing is one convolution (google/automl effnetv2_model.py)."""
    kind = PlainConv if block.mid_channels == block.in_channels else FusedMBConv
    return kind(block, numerics, drop_path_rate)


OPERATORS: dict[str, Callable[[Block, Numerics, float], nn.Module]] = {
    "mbconv": MBConv,
    "separable": MBConv,
    "fused_mbconv": _fused_or_plain,
    "bottleneck": Bottleneck,
    "basic": Basic,
    "conv": PlainConv,
}
"""The module of each operator; called with the block, the numerics and the drop-path rate in [0, 1)."""
