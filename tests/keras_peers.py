"""Keras' own EfficientNets for tests: random weights, whatever Keras writes of them, their logits."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Keras' warnings of what numpy and torch will no longer have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def import_keras() -> Any:
    """Keras over torch; skips the test where it is not installed or runs over another library already."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        keras: Any = pytest.importorskip("keras", reason="keras is not installed: the peer compared with")
    if keras.backend.backend() != "torch":
        pytest.skip("keras is set up to run over another library than torch")
    return keras


def make(name: str, *, side: int = 64, classes: int = 10, weights: Path | str | None = None) -> Any:
    """A network of keras.applications that gives logits."""
    with quiet():
        return getattr(import_keras().applications, name)(
            weights=None if weights is None else str(weights),
            input_shape=(side, side, 3),
            classes=classes,
            classifier_activation=None,
        )


@quiet()
def vary(network: Any, *, seed: int, gain: float = 1.5) -> None:
    """Gives every tensor random values as `peers.vary` does; Normalization ImageNet's mean and variance."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        kind = type(layer).__name__
        shapes = [array.shape for array in layer.get_weights()]
        if kind == "Normalization" and shapes:
            layer.set_weights([np.array(MEAN), np.array(STD) ** 2, np.array(0)])
        elif kind == "BatchNormalization":
            (size,) = shapes[0]
            layer.set_weights(
                [rng.uniform(0.5, 1.5, size), rng.normal(0, 0.3, size), rng.normal(0, 0.2, size),
                 rng.uniform(0.3, 1.5, size)]
            )  # fmt: skip
        elif shapes:
            fan_in = np.prod(shapes[0][:2] if kind == "DepthwiseConv2D" else shapes[0][:-1])
            biases = [rng.normal(0, 0.5, shape) for shape in shapes[1:]]
            layer.set_weights([rng.normal(0, (gain / fan_in) ** 0.5, shapes[0]), *biases])


def logits(network: Any, pixels: np.ndarray[Any, Any]) -> Tensor:
    """pixels: (batch, height, width, 3), from 0 to 255."""
    with quiet(), torch.no_grad():
        out: Tensor = network(torch.from_numpy(pixels.astype(np.float32)), training=False)
    return out.detach()


def save(network: Any, path: Path) -> None:
    """By what the file's name ends in: a whole model, or weights."""
    with quiet():
        network.save_weights(path) if path.name.endswith(".weights.h5") else network.save(path)


@quiet()
def save_as_tf_keras(
    network: Any, path: Path, *, variance: tuple[float, ...] | None = None, whole: bool = False
) -> None:
    """Composes a file as tf.keras 2's save_weights, or save if whole, did; variance: in place of the network's own."""
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole else file
        group.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        group.attrs["backend"], group.attrs["keras_version"] = b"tensorflow", b"2.9.0"
        if whole:
            file.attrs["model_config"] = json.dumps(
                {"class_name": "Functional", "config": network.get_config()}, default=str
            )
        for layer in network.layers:
            own, names = group.create_group(layer.name), []
            for variable, array in zip(layer.weights, layer.get_weights(), strict=True):
                word = "depthwise_kernel" if type(layer).__name__ == "DepthwiseConv2D" else variable.name
                if variable.name == "variance" and variance is not None:
                    array = np.array(variance, "float32")
                names.append(f"{layer.name}/{word}:0".encode())
                own.create_dataset(names[-1].decode(), data=array)
            own.attrs["weight_names"] = names


@quiet()
def official_names(network: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays as tensorflow/tpu's code calls its variables: TF1 counts the layers of one class in each scope."""
    scopes: dict[str, str] = {}
    counts: dict[tuple[str, str], int] = {}
    found = {}
    words = {"Conv2D": "conv2d", "DepthwiseConv2D": "depthwise_conv2d", "Dense": "dense"}
    for layer in network.layers:
        first = layer.name.partition("_")[0]
        kind = words.get(type(layer).__name__, "tpu_batch_normalization")
        if kind == "tpu_batch_normalization" and type(layer).__name__ != "BatchNormalization":
            continue
        if first.startswith("block"):
            scope = scopes.setdefault(first, f"blocks_{len(scopes)}") + ("/se" if "_se_" in layer.name else "")
        else:
            scope = "stem" if first == "stem" else "head"
        number = counts[scope, kind] = counts.get((scope, kind), -1) + 1
        for variable, array in zip(layer.weights, layer.get_weights(), strict=True):
            word = "depthwise_kernel" if kind == "depthwise_conv2d" else variable.name
            found[f"{scope}/{kind}{f'_{number}' if number else ''}/{word}"] = array
    return found
