"""TensorFlow's checkpoints, as those of the paper's networks are: an index and files of data, read by TensorFlow."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from trifold.errors import InvalidData
from trifold.layers import PAPER_NUMERICS
from trifold.weights import apart
from trifold.weights.contents import Pretrained

INDEX = ".index"
"""How the first of a checkpoint's files ends."""

LIST = "checkpoint"
"""The file that names a folder's newest checkpoint."""

_AVERAGED = "/ExponentialMovingAverage"
_UNUSED = re.compile(r"global_step|save_counter|.*/(RMS|RMSProp|Momentum|Adam)(_\d+)?")
"""Optimizers' slots and counters."""

_FIRST = "stem/conv2d/kernel"
"""A variable that every network has, by which the model's name before it is told."""

_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""What files of tf.train.Checkpoint hold."""

_MEMORY, _SECONDS = 8 << 30, 120
"""What the process that reads may take beside its arrays; TensorFlow alone takes 2 GiB and 10 seconds."""


def index_of(path: Path) -> Path | None:
    """The index of the checkpoint that a path stands for: the index itself, the prefix, or a folder.

    Raises InvalidData if a folder's list names no checkpoint of the folder.
    """
    if path.is_file():
        return path if path.suffix == INDEX else None
    if not path.is_dir():
        index = path.with_name(path.name + INDEX)
        return index if path.name and index.is_file() else None
    if not (path / LIST).is_file():
        return None
    with (path / LIST).open(encoding="utf-8", errors="replace") as file:
        named = re.search(r'^model_checkpoint_path:\s*"([^"]+)"', file.read(1 << 20), re.MULTILINE)
    index = path / f"{named[1].replace(chr(92), '/').rpartition('/')[2] if named else ''}{INDEX}"
    if named is None or not index.is_file():
        raise InvalidData(f"its file {LIST} names no checkpoint that is there")
    return index


def parts_of(index: Path) -> list[Path]:
    """The index and the files of data beside it, in order."""
    prefix = index.name.removesuffix(INDEX)
    data = re.compile(re.escape(prefix) + r"\.data-\d{5}-of-\d{5}")
    return [index, *sorted(file for file in index.parent.iterdir() if data.fullmatch(file.name))]


def read_checkpoint(index: Path) -> Pretrained:
    """Its variables, moving averages in place of those that have them, without the model's name before theirs.

    Raises InvalidData if TensorFlow is not installed, the data are not there, or it is one of tf.train.Checkpoint;
    EOFError if TensorFlow cannot read it.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise InvalidData("a TensorFlow checkpoint is read by TensorFlow: pip install 'trifold[tensorflow]'")
    files = parts_of(index)
    if len(files) == 1:
        raise InvalidData(f"no file {index.name.removesuffix(INDEX)}.data-... lies beside it")
    size = sum(file.stat().st_size for file in files)
    prefix = index.with_name(index.name.removesuffix(INDEX))
    with apart.opened("tensorflow", prefix, size=size, memory=_MEMORY, seconds=_SECONDS) as file:
        numbers = {row.name: number for number, row in enumerate(file.rows)}
        if _OBJECTS in numbers:
            raise InvalidData("holds objects (tf.train.Checkpoint), not variables under names of their own")
        chosen = _chosen(numbers)
        tensors = dict(zip(chosen, file.read([numbers[name] for name in chosen.values()]), strict=True))
    averaged = sum(name.endswith(_AVERAGED) for name in chosen.values())
    return Pretrained(
        tensors=tensors,
        description=f"{len(tensors)} variables of a TensorFlow checkpoint, {averaged} of them moving averages",
        layout="tensorflow",
        numerics=PAPER_NUMERICS,
    )


def _chosen(names: Iterable[str]) -> dict[str, str]:
    """The name that a variable has in the layout -> that under which the file has its value."""
    bare = {name.removesuffix(_AVERAGED): name for name in sorted(names, key=len)}  # the average after its variable
    kept = {name: source for name, source in bare.items() if not _UNUSED.fullmatch(name)}
    before = _before(kept)
    chosen = {name.removeprefix(before): source for name, source in kept.items()}
    if len(chosen) < len(kept):
        raise InvalidData(f"holds two variables of one name, with and without {before}")
    return chosen


def _before(names: Iterable[str]) -> str:
    """The model's name and a slash, such as efficientnet-b0/; "" if there is none."""
    found = [name.removesuffix(_FIRST) for name in names if name.endswith("/" + _FIRST)]
    return found[0] if len(found) == 1 else ""
