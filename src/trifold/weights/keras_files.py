"""Keras' own files: whole models and weights in HDF5 (.h5), of tf.keras and of Keras 3, and Keras 3's zips (.keras).

Only arrays and the description of the layers that scale the images are read; no layer is made.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from torch import Tensor

from trifold.errors import InvalidData
from trifold.network import Numerics
from trifold.weights import apart, bounds
from trifold.weights.contents import Pretrained
from trifold.weights.keras_scaling import scaling

_VARIABLES = {
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "normalization": ("mean", "variance", "count"),
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
}
"""By a layer's class, what Keras 3 calls 0, 1, 2, ... (save_own_variables of each layer)."""

_RENAMED = {"probs": "predictions"}
"""What layers are called in files of keras_applications before 1.0.8."""

_WEIGHTS = "model.weights.h5"
_CONFIG = "config.json"
_MAX_CONFIG = 16 << 20
"""Bytes of a model's description; that of the largest EfficientNet takes 1 MB."""

_MEMORY, _SECONDS = 2 << 30, 10
"""What the process that reads HDF5 may take beside its arrays."""


class _Named(NamedTuple):
    """An array by its layer and what it is there. told: whether its layer's own name is known."""

    layer: str
    variable: str
    row: int
    told: bool = True


def read_h5(path: Path) -> Pretrained:
    """A whole model's or weights file. Raises InvalidData, EOFError and what json does of a damaged one."""
    return _read(path, size=path.stat().st_size, config="")


def read_keras(path: Path) -> Pretrained:
    """A .keras zip; errors as `read_h5`, and BadZipFile."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive, tempfile.NamedTemporaryFile(suffix=".h5") as copy:
        found = bounds.members(archive, size)
        if _WEIGHTS not in found:
            raise InvalidData(f"has no {_WEIGHTS}")
        config = b""
        if _CONFIG in found:
            if found[_CONFIG].file_size > _MAX_CONFIG:
                raise InvalidData(f"{_CONFIG} takes {found[_CONFIG].file_size} bytes; allowed are {_MAX_CONFIG}")
            config = archive.read(_CONFIG)
        _unpack(archive, _WEIGHTS, copy)
        return _read(Path(copy.name), size=size, config=config.decode("utf-8"))


def _unpack(archive: zipfile.ZipFile, name: str, to: IO[bytes]) -> None:
    with archive.open(name) as member:
        shutil.copyfileobj(member, to, 1 << 20)
    to.flush()


def _read(path: Path, *, size: int, config: str) -> Pretrained:
    """size: of the file that the user has, by which the arrays are judged. config: JSON, "" where the file has it."""
    with apart.opened("hdf5", path, size=size, memory=_MEMORY, seconds=_SECONDS) as file:
        named = list(_named(file.rows, file.texts["names"]))
        if len({(one.layer, one.variable) for one in named}) < len(named):
            raise InvalidData("holds two layers of one name")
        arrays = file.read([one.row for one in named])
        config = config or file.texts["model_config"]
    tensors: dict[str, Tensor] = {}
    stored: dict[str, dict[str, Tensor]] = {}
    for one, array in zip(named, arrays, strict=True):
        if one.variable in _VARIABLES["normalization"]:
            stored.setdefault(one.layer, {})[one.variable] = array
        else:
            tensors[f"{one.layer}/{one.variable}"] = array
    told = all(one.told for one in named if f"{one.layer}/{one.variable}" in tensors)
    scaled = scaling(json.loads(config) if config else None, _statistics(stored))
    return Pretrained(
        tensors=tensors,
        description=f"{len(tensors)} tensors of a Keras file",
        layout="keras" if told else "keras_counted",
        numerics=Numerics(bn_eps=scaled.bn_eps, bn_momentum=scaled.bn_momentum),
        mean=scaled.mean,
        std=scaled.std,
    )


def _named(rows: Sequence[apart.Row], names: Mapping[str, str]) -> Iterator[_Named]:
    """The arrays that are a layer's, in either form of file. names: the layers' own, by path, in Keras 3's."""
    for number, row in enumerate(rows):
        parts = row.name.split("/")
        if len(parts) > 2 and parts[-2] == "vars" and parts[-1].isdecimal():
            found = _of_vars(parts, names.get(row.name.rpartition("/")[0], ""), number)
        else:
            found = _of_layer(parts, number)
        if found is not None:
            yield found._replace(layer=_RENAMED.get(found.layer, found.layer))


def _of_vars(parts: Sequence[str], name: str, number: int) -> _Named | None:
    """layers/batch_normalization_1/vars/0, of models in models too; nothing for optimizers, metrics and dice."""
    if not {"layers", "_layer_checkpoint_dependencies"} & set(parts[:-3]) or parts[-3] == "seed_generator":
        return None
    kind, place = re.sub(r"_\d+$", "", parts[-3]), int(parts[-1])
    variables = _VARIABLES.get(kind, ())
    variable = variables[place] if place < len(variables) else parts[-1]
    return _Named(name or parts[-3], variable, number, told=bool(name))


def _of_layer(parts: Sequence[str], number: int) -> _Named | None:
    """[model_weights/]stem_conv/stem_conv/kernel:0, the layer twice, once, or below the model that it is in."""
    if parts[0] in ("optimizer_weights", "top_level_model_weights"):
        return None
    parts = parts[1:] if parts[0] == "model_weights" else parts
    if len(parts) < 2 or parts[0] == "top_level_model_weights":
        return None
    variable = re.sub(r":\d+$", "", parts[-1])
    group, scope = parts[0], parts[-2]
    again = re.fullmatch(re.escape(group) + r"_\d+", scope)  # a second model of one session: stem_conv/stem_conv_1
    return _Named(group if again else scope, variable.removeprefix("depthwise_"), number)


def _statistics(stored: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Mapping[str, Tensor]]:
    """Of Normalization layers, those that say mean and variance."""
    return {layer: one for layer, one in stored.items() if {"mean", "variance"} <= set(one)}
