"""How libraries name and lay out the tensors of one network: the same convolutions in the same order, other names.

Names are given for a network's every tensor, batch norm's step counters left out (nothing reads them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

from trifold.architecture import Architecture, Block
from trifold.cost import Convolution, convolutions
from trifold.errors import InvalidInput


class Place(NamedTuple):
    """One convolution (or the classifier) of a network, by what is needed to name it.

    position: of its block within the stage, from 0; flat: within all stages; part: which of the block's convolutions
    with batch norm it is, from 0; unit: which of its convolutions and squeeze-excites.
    roles: of the block's convolutions with batch norm, the shortcut left out.
    """

    block: Block
    convolution: Convolution
    position: int
    flat: int
    part: int
    unit: int
    roles: tuple[str, ...]
    last_stage: int


Names = tuple[str, str]
"""A convolution's module and its batch norm's; the second is "" where it has a bias instead."""


def _places(architecture: Architecture, *, num_classes: int, in_channels: int) -> Iterator[Place]:
    """Every convolution of the network in the order in which it runs."""
    position, flat, stage = 0, -1, 0
    last = len(architecture.stages) + 1
    for block in architecture.blocks(num_classes=num_classes, in_channels=in_channels):
        position = position + 1 if block.stage == stage else 0
        stage = block.stage
        flat += 0 < stage < last
        spelled = convolutions(block)
        roles = tuple(c.role for c in spelled if not c.bias and c.role != "shortcut")
        part = unit = 0
        for convolution in spelled:
            yield Place(block, convolution, position, flat, part, unit, roles, last)
            part += not convolution.bias
            unit += convolution.role != "reduce"  # reduce and excite are one unit


def _trifold(place: Place) -> Names:
    """The names of `trifold.network`."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "classifier", ""
    if block.stage in (0, place.last_stage):
        prefix = "head" if block.stage else "stem"
    else:
        prefix = f"stages.{block.stage - 1}.{place.position}."
        if place.convolution.bias:
            return f"{prefix}squeeze_excite.{role}", ""
        prefix += "spatial_2" if role == "spatial" and place.roles[: place.part].count("spatial") else role
    return f"{prefix}.conv", f"{prefix}.norm"


def row_of(name: str) -> str:
    """The part that a tensor belongs to, by its name: stem, stages.0, ..., head or classifier."""
    parts = name.split(".")
    return ".".join(parts[: 2 if parts[0] == "stages" else 1])


_TIMM_BLOCKS: dict[tuple[str, ...], tuple[Names, ...]] = {
    ("expand", "depthwise", "project"): (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    ("depthwise", "project"): (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    ("expand", "project"): (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
    ("spatial",): (("conv", "bn1"),),
}
"""timm's names of a block's convolutions by their roles (timm/models/_efficientnet_blocks.py)."""


def _timm(place: Place) -> Names:
    """timm's names in its EfficientNet, MobileNet and MnasNet classes."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "classifier", ""
    if block.stage == 0:
        return "conv_stem", "bn1"
    if block.stage == place.last_stage:
        return "conv_head", "bn2"
    prefix = f"blocks.{block.stage - 1}.{place.position}."
    if place.convolution.bias:
        return f"{prefix}se.conv_{'reduce' if role == 'reduce' else 'expand'}", ""
    convolution, norm = _TIMM_BLOCKS[place.roles][place.part]
    return prefix + convolution, prefix + norm


def _resnet(place: Place) -> Names:
    """The names of ResNets, equal in timm and torchvision; squeeze-excite as timm has it."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "fc", ""
    if block.stage == 0:
        return "conv1", "bn1"
    prefix = f"layer{block.stage}.{place.position}."
    if place.convolution.bias:
        return f"{prefix}se.{'fc1' if role == 'reduce' else 'fc2'}", ""
    if role == "shortcut":
        return f"{prefix}downsample.0", f"{prefix}downsample.1"
    return f"{prefix}conv{place.part + 1}", f"{prefix}bn{place.part + 1}"


def _torchvision(place: Place) -> Names:
    """torchvision's names in its EfficientNet class."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "classifier.1", ""
    if block.stage in (0, place.last_stage):
        prefix = f"features.{block.stage}"
    else:
        prefix = f"features.{block.stage}.{place.position}.block.{place.unit}"
    if place.convolution.bias:
        return f"{prefix}.{'fc1' if role == 'reduce' else 'fc2'}", ""
    return f"{prefix}.0", f"{prefix}.1"


def _torchvision_mobilenet(place: Place) -> Names:
    """torchvision's names in its MobileNetV2 class, which numbers blocks through and leaves the projection bare."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "classifier.1", ""
    if block.stage == 0:
        return "features.0.0", "features.0.1"
    if block.stage == place.last_stage:
        return f"features.{place.flat + 2}.0", f"features.{place.flat + 2}.1"
    prefix = f"features.{place.flat + 1}.conv."
    if role == "project":
        return f"{prefix}{place.part}", f"{prefix}{place.part + 1}"
    return f"{prefix}{place.part}.0", f"{prefix}{place.part}.1"


_KERAS_BLOCK = {
    "expand": ("expand_conv", "expand_bn"),
    "depthwise": ("dwconv", "bn"),
    "project": ("project_conv", "project_bn"),
    "spatial": ("project_conv", "project_bn"),
}
"""keras.applications' names of a block's convolutions by their roles; a fused one without expansion is its project."""


def _keras(place: Place) -> Names:
    """The layers of keras.applications' EfficientNet classes."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "predictions", ""
    if block.stage in (0, place.last_stage):
        name = "top" if block.stage else "stem"
        return f"{name}_conv", f"{name}_bn"
    prefix = f"block{block.stage}{chr(ord('a') + place.position)}_"
    if place.convolution.bias:
        return f"{prefix}se_{'reduce' if role == 'reduce' else 'expand'}", ""
    convolution, norm = _KERAS_BLOCK[role]
    return prefix + convolution, prefix + norm


def _keras_v2(place: Place) -> Names:
    """The layers of its EfficientNetV2 classes: another word for the depthwise convolution."""
    convolution, norm = _keras(place)
    return convolution.replace("_dwconv", "_dwconv2"), norm


def _counted() -> Callable[[Place], Names]:
    """A scheme of Keras' weights files, which name layers by their class and number: batch_normalization_3."""
    numbers = {name: count() for name in ("conv2d", "depthwise_conv2d", "batch_normalization", "dense")}

    def named(kind: str) -> str:
        number = next(numbers[kind])
        return f"{kind}_{number}" if number else kind

    def names(place: Place) -> Names:
        kinds = {"depthwise": "depthwise_conv2d", "linear": "dense"}
        convolution = named(kinds.get(place.convolution.role, "conv2d"))
        return convolution, "" if place.convolution.bias else named("batch_normalization")

    return names


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _tensorflow(place: Place) -> Names:
    """The variables of tensorflow/tpu's efficientnet_model.py, without the model's name before them."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "head/dense", ""
    if block.stage in (0, place.last_stage):
        prefix = "head" if block.stage else "stem"
        return f"{prefix}/conv2d", f"{prefix}/tpu_batch_normalization"
    prefix = f"blocks_{place.flat}/"
    if place.convolution.bias:
        return f"{prefix}se/{_numbered('conv2d', int(role != 'reduce'))}", ""
    norm = prefix + _numbered("tpu_batch_normalization", place.part)
    if role == "depthwise":
        return f"{prefix}depthwise_conv2d", norm
    return prefix + _numbered("conv2d", place.roles[: place.part].count("expand")), norm


_LUKEMELAS_BLOCK = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def _lukemelas(place: Place) -> Names:
    """The modules of lukemelas' EfficientNet-PyTorch."""
    block, role = place.block, place.convolution.role
    if role == "linear":
        return "_fc", ""
    if block.stage == 0:
        return "_conv_stem", "_bn0"
    if block.stage == place.last_stage:
        return "_conv_head", "_bn1"
    prefix = f"_blocks.{place.flat}."
    if place.convolution.bias:
        return f"{prefix}_se_{'reduce' if role == 'reduce' else 'expand'}", ""
    convolution, norm = _LUKEMELAS_BLOCK[role]
    return prefix + convolution, prefix + norm


def _operators(architecture: Architecture) -> frozenset[str]:
    return frozenset(stage.operator for stage in architecture.stages)


def _refused(architecture: Architecture, who: str) -> InvalidInput:
    squeezed = any(stage.se_ratio for stage in architecture.stages)
    described = ", ".join(sorted(_operators(architecture))) + (" with squeeze-excite" if squeezed else "")
    return InvalidInput(f"architecture {architecture.name}: {who} has no network of {described}")


def _trifold_scheme(_: Architecture) -> Callable[[Place], Names]:
    return _trifold


def _timm_scheme(architecture: Architecture) -> Callable[[Place], Names]:
    """How timm names an architecture's tensors. Raises InvalidInput if it has no class for such a network."""
    operators = _operators(architecture)
    if operators <= {"mbconv", "separable", "fused_mbconv", "conv"}:
        return _timm
    if operators <= {"basic", "bottleneck"} and not architecture.head.channels:
        return _resnet
    raise _refused(architecture, "timm")


def _torchvision_scheme(architecture: Architecture) -> Callable[[Place], Names]:
    """How torchvision names an architecture's tensors: MBConv throughout without squeeze-excite is its MobileNetV2.

    Raises InvalidInput if it has no class for such a network.
    """
    operators = _operators(architecture)
    squeezed = any(stage.se_ratio for stage in architecture.stages)
    if operators == {"mbconv"} and not squeezed:
        return _torchvision_mobilenet
    if operators <= {"mbconv", "fused_mbconv"}:
        return _torchvision
    if operators <= {"basic", "bottleneck"} and not squeezed and not architecture.head.channels:
        return _resnet
    raise _refused(architecture, "torchvision")


def _keras_scheme(architecture: Architecture) -> Callable[[Place], Names]:
    """How Keras names an architecture's layers. Raises InvalidInput if it has no class for such a network."""
    operators = _operators(architecture)
    if not operators <= {"mbconv", "fused_mbconv"}:
        raise _refused(architecture, "keras")
    return _keras_v2 if "fused_mbconv" in operators else _keras


def _counted_scheme(architecture: Architecture) -> Callable[[Place], Names]:
    _keras_scheme(architecture)
    return _counted()


def _tensorflow_scheme(architecture: Architecture) -> Callable[[Place], Names]:
    """Raises InvalidInput unless the blocks are MBConv throughout: of others the variables' names are not known."""
    if _operators(architecture) != {"mbconv"}:
        raise _refused(architecture, "tensorflow/tpu's efficientnet_model.py")
    return _tensorflow


def _lukemelas_scheme(architecture: Architecture) -> Callable[[Place], Names]:
    if _operators(architecture) != {"mbconv"}:
        raise _refused(architecture, "EfficientNet-PyTorch")
    return _lukemelas


class Slot(NamedTuple):
    """A tensor of a layout. order: the permutation of its axes that gives ours, () for as it is."""

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...] = ()


def _of_torch(place: Place, names: Names) -> Iterator[Slot]:
    """The tensors of a convolution and its batch norm, in torch's order and layout."""
    role, inputs, outputs, kernel_size, groups, _, bias = place.convolution
    convolution, norm = names
    kernel = (outputs, inputs) if role == "linear" else (outputs, inputs // groups, kernel_size, kernel_size)
    yield Slot(f"{convolution}.weight", kernel)
    if bias:
        yield Slot(f"{convolution}.bias", (outputs,))
        return
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        yield Slot(f"{norm}.{tensor}", (outputs,))


def _of_keras(place: Place, names: Names) -> Iterator[Slot]:
    """As `_of_torch`, with Keras' words; kernels are (height, width, inputs, outputs), (inputs, outputs) if dense.

    Depthwise ones are (height, width, channels, 1).
    """
    role, inputs, outputs, kernel_size, groups, _, bias = place.convolution
    convolution, norm = names
    window = (kernel_size, kernel_size)
    if role == "linear":
        yield Slot(f"{convolution}/kernel", (inputs, outputs), (1, 0))
    elif role == "depthwise":
        yield Slot(f"{convolution}/kernel", (*window, outputs, inputs // groups), (2, 3, 0, 1))
    else:
        yield Slot(f"{convolution}/kernel", (*window, inputs // groups, outputs), (3, 2, 0, 1))
    if bias:
        yield Slot(f"{convolution}/bias", (outputs,))
        return
    for tensor in ("gamma", "beta", "moving_mean", "moving_variance"):
        yield Slot(f"{norm}/{tensor}", (outputs,))


def _of_tensorflow(place: Place, names: Names) -> Iterator[Slot]:
    """As `_of_keras`, with the older word for a depthwise kernel."""
    for slot in _of_keras(place, names):
        depthwise = place.convolution.role == "depthwise" and slot.name.endswith("/kernel")
        yield slot._replace(name=slot.name.replace("/kernel", "/depthwise_kernel")) if depthwise else slot


LAYOUTS: dict[
    str, tuple[Callable[[Architecture], Callable[[Place], Names]], Callable[[Place, Names], Iterator[Slot]]]
] = {
    "trifold": (_trifold_scheme, _of_torch),
    "timm": (_timm_scheme, _of_torch),
    "torchvision": (_torchvision_scheme, _of_torch),
    "lukemelas": (_lukemelas_scheme, _of_torch),
    "keras": (_keras_scheme, _of_keras),
    "keras_counted": (_counted_scheme, _of_keras),
    "tensorflow": (_tensorflow_scheme, _of_tensorflow),
}
"""By name: how it names convolutions, and what tensors each has.

keras: by the layers' names; keras_counted: by class and number, as weights files without them do; tensorflow: the
variables of the paper's own checkpoints; lukemelas: EfficientNet-PyTorch.
"""


def slots(architecture: Architecture, layout: str, *, num_classes: int = 1000, in_channels: int = 3) -> list[Slot]:
    """Every tensor of a network in a layout; equal places of the list are equal tensors whatever the layout.

    Raises InvalidInput if the layout is not known, or its library has no class for such a network.
    """
    if layout not in LAYOUTS:
        raise InvalidInput(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    scheme, tensors = LAYOUTS[layout]
    names = scheme(architecture)
    places = _places(architecture, num_classes=num_classes, in_channels=in_channels)
    return [slot for place in places for slot in tensors(place, names(place))]


def names(architecture: Architecture, layout: str, *, num_classes: int = 1000) -> dict[str, str]:
    """Our name -> the layout's name of every tensor; errors as in `slots`."""
    ours, theirs = (slots(architecture, own, num_classes=num_classes) for own in ("trifold", layout))
    return {one.name: other.name for one, other in zip(ours, theirs, strict=True)}
