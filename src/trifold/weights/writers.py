"""A network's weights written as another library's own files, which it loads into its own network and answers as ours.

- timm, torchvision, lukemelas: a state dict, .safetensors or .pth, .pt, .bin;
- keras: weights for keras.applications' EfficientNet classes, .weights.h5 (Keras 3) or .h5 (tf.keras and Keras 3);
- tensorflow: a checkpoint under the names of tensorflow/tpu's efficientnet_model.py, its path the prefix.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from trifold.errors import InvalidInput
from trifold.network import Network
from trifold.weights import files
from trifold.weights.contents import Pretrained
from trifold.weights.convert import exported
from trifold.weights.recognition import numerics_of

_STATE_DICTS = (".safetensors", ".pth", ".pt", ".bin")
_KERAS = (".weights.h5", ".h5")

ENDS = {
    "trifold": (".safetensors",),
    "timm": _STATE_DICTS,
    "torchvision": _STATE_DICTS,
    "lukemelas": _STATE_DICTS,
    "keras": _KERAS,
    "tensorflow": (".ckpt", ""),
}
"""How files end, by the layout that they are written in."""

Scale = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of pixel values in [0, 1], one number a channel."""


def write(path: str | Path, network: Network, layout: str, *, scale: Scale | None = None) -> None:
    """Writes a network's weights to a file of a layout in ENDS, which appears whole; a checkpoint's several may not.

    scale: what images are normalised with; Keras' EfficientNet needs it, since it does that itself.

    Raises InvalidInput if the library has no such network or computes it with other padding or batch-norm epsilon, the
    file does not end as it should or cannot be written, scale is missing, or TensorFlow is.
    """
    path = Path(path)
    if layout not in ENDS:
        raise InvalidInput(f"layout must be one of {', '.join(ENDS)}, got {layout!r:.100}")
    if not any(path.name.lower().endswith(end) if end else not path.suffix for end in ENDS[layout]):
        known = " or ".join(end or "nothing" for end in ENDS[layout])
        raise InvalidInput(f"{path}: a file of {layout} must end in {known}")
    if layout == "trifold":
        files.save(path, network)
        return
    _check_numerics(network, layout)
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    sizes = {"num_classes": network.num_classes, "in_channels": network.in_channels}
    tensors = {
        name: tensor.contiguous() for name, tensor in exported(state, network.architecture, layout, **sizes).items()
    }
    asked = _Asked(network=network, tensors=tensors, scale=scale)
    try:
        _WRITERS[layout](path, asked)
    except (OSError, RuntimeError, SafetensorError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidInput(f"{path}: cannot be written: {' '.join(text.split())[:300]}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is to be written. tensors: in the layout, in its order."""

    network: Network
    tensors: dict[str, Tensor]
    scale: Scale | None


def _check_numerics(network: Network, layout: str) -> None:
    """Raises InvalidInput if the layout's library would compute the network otherwise; timm has either kind."""
    theirs = (
        None
        if layout == "timm"
        else numerics_of(Pretrained(tensors={}, description="", layout=layout), network.architecture)
    )
    if theirs is None:
        return
    ours = network.numerics
    for name, mine, its in (
        ("padding", ours.padding.removesuffix("_static"), theirs.padding.removesuffix("_static")),
        ("bn_eps", ours.bn_eps, theirs.bn_eps),
    ):
        if mine != its:
            raise InvalidInput(
                f"these weights need {name} {mine}, and {layout}'s {network.architecture.name} has {its}"
            )


def _replacing(path: Path, put: Callable[[Path], None]) -> None:
    """Lets `put` write under a temporary name beside the file, then gives it its name."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask gives
        put(temporary)
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_state_dict(path: Path, asked: _Asked) -> None:
    if path.suffix.lower() == ".safetensors":
        _replacing(path, lambda temporary: save_file(asked.tensors, temporary, metadata={"format": "pt"}))
    else:
        _replacing(path, lambda temporary: torch.save(asked.tensors, temporary))


def _write_keras(path: Path, asked: _Asked) -> None:
    put = _put_weights_h5 if path.name.lower().endswith(_KERAS[0]) else _put_h5
    layers = _normalisation(asked) | _layers(asked.tensors)
    dropouts = _dropouts(asked.network)
    _replacing(path, lambda temporary: put(temporary, layers, dropouts))


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Arrays by layer and variable, in Keras' order."""
    return {
        layer: {name.rpartition("/")[2]: _array(tensors[name]) for name in names}
        for layer, names in groupby(tensors, key=lambda name: name.rpartition("/")[0])
    }


def _array(tensor: Tensor) -> Any:
    """As numpy's, which has no bfloat16: that becomes float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _normalisation(asked: _Asked) -> dict[str, dict[str, Any]]:
    """The layer in which EfficientNet keeps mean and variance; EfficientNetV2's are part of its code."""
    if any(stage.operator == "fused_mbconv" for stage in asked.network.architecture.stages):
        return {}
    if asked.scale is None:
        raise InvalidInput("Keras' EfficientNet normalises images itself and must be told their mean and std")
    mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in asked.scale)
    if len(mean) != asked.network.in_channels or len(std) != len(mean):
        raise InvalidInput(f"mean and std must hold {asked.network.in_channels} numbers, got {asked.scale!r:.200}")
    return {
        "normalization": {
            "mean": mean.float().numpy(),
            "variance": std.square().float().numpy(),
            "count": torch.tensor(0).numpy(),
        }
    }


def _dropouts(network: Network) -> int:
    """Keras' dropout layers: one for each shortcut but the first block's, and one before the classifier."""
    blocks = [block for block in network.architecture.blocks() if block.operator in ("mbconv", "fused_mbconv")]
    return 1 + sum(block.stride == 1 and block.in_channels == block.out_channels for block in blocks[1:])


def _put_h5(path: Path, layers: Mapping[str, Mapping[str, Any]], _: int) -> None:
    """As tf.keras' save_weights does; Keras 3 loads it, too."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.15.0"
        for layer, arrays in layers.items():
            group = file.create_group(layer)
            names = [f"{layer}/{_older(layer, variable)}:0" for variable in arrays]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, arrays.values(), strict=True):
                group[name] = array


def _older(layer: str, variable: str) -> str:
    """tf.keras' word for a depthwise kernel."""
    return "depthwise_kernel" if variable == "kernel" and "_dwconv" in layer else variable


def _put_weights_h5(path: Path, layers: Mapping[str, Mapping[str, Any]], dropouts: int) -> None:
    """As Keras 3's save_weights does: layers by class and number, variables by number, own names as attributes."""
    import h5py

    counts: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        for layer, arrays in layers.items():
            kind = _class(layer, arrays)
            count = counts[kind] = counts.get(kind, -1) + 1
            group = file.create_group(f"layers/{kind}_{count}/vars" if count else f"layers/{kind}/vars")
            group.attrs["name"] = layer
            for number, array in enumerate(arrays.values()):
                group[str(number)] = array
        for count in range(dropouts):  # whose generators Keras 3 asks for before 3.9
            file[f"layers/dropout{f'_{count}' if count else ''}/seed_generator/vars/0"] = [0, 0]


def _class(layer: str, arrays: Mapping[str, Any]) -> str:
    """A layer's class, as Keras spells it in files."""
    if "gamma" in arrays:
        return "batch_normalization"
    if "_dwconv" in layer:
        return "depthwise_conv2d"
    return {"normalization": "normalization", "predictions": "dense"}.get(layer, "conv2d")


def _write_tensorflow(path: Path, asked: _Asked) -> None:
    """Each variable and, under its name, the moving average that the paper's own evaluation asks for."""
    if importlib.util.find_spec("tensorflow") is None:
        raise InvalidInput("a TensorFlow checkpoint is written by TensorFlow: pip install 'trifold[tensorflow]'")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"{path}: its folder is not there")
    model = asked.network.architecture.name.replace("_", "-")
    arrays: dict[str, Any] = {"global_step": torch.tensor(0).numpy()}
    for name, tensor in asked.tensors.items():
        arrays[f"{model}/{name}"] = arrays[f"{model}/{name}/ExponentialMovingAverage"] = _array(tensor)
    with _stderr_unheard():
        _save_v2(str(path.absolute()), arrays)


@contextmanager
def _stderr_unheard() -> Iterator[None]:
    """Within it nothing reaches the terminal's stderr: what TensorFlow says of processors there no setting stops."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _save_v2(prefix: str, arrays: Mapping[str, Any]) -> None:
    """Writes a checkpoint. Raises OSError where TensorFlow says that it cannot."""
    import tensorflow

    try:
        with tensorflow.device("cpu"):
            tensorflow.raw_ops.SaveV2(
                prefix=prefix,
                tensor_names=list(arrays),
                shape_and_slices=[""] * len(arrays),
                tensors=list(arrays.values()),
            )
    except tensorflow.errors.OpError as error:
        raise OSError(error.message) from None


_WRITERS: dict[str, Callable[[Path, _Asked], None]] = {
    "timm": _write_state_dict,
    "torchvision": _write_state_dict,
    "lukemelas": _write_state_dict,
    "keras": _write_keras,
    "tensorflow": _write_tensorflow,
}
