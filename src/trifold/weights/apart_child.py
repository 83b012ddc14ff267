"""The process in which `apart` reads a file: python apart_child.py KIND PATH MEMORY SECONDS.

It writes a JSON object, its length in 8 little-endian bytes before it: `rows`, a list of [name, type, shape], and
`texts`, or `refused`, why not; it reads one line, a JSON list of numbers of rows; it writes those arrays' bytes. It is
run as a file and imports the standard library and its one library only, so that it starts quickly.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any

MAX_DEPTH = 20
MAX_OBJECTS = 200_000

FILTERS = frozenset({1, 2, 3, 32000})
"""HDF5's deflate, shuffle and Fletcher's checksum, and LZF, which h5py contains."""

Listing = tuple[list[tuple[str, str, list[int]]], dict[str, Any], Callable[[str], Any]]
"""Rows, texts, and what gives an array by name."""


class Refused(Exception):
    """Why a file is not read."""


def hdf5(path: str) -> Listing:
    """texts: `model_config` (Keras' description) and `names`, the attribute `name` of groups called vars, by path."""
    import h5py

    file = h5py.File(path, "r")
    rows, names = [], {}
    for where, item in _walk(h5py, file):
        if isinstance(item, h5py.Dataset):
            rows.append((where, _type(item, where), list(item.shape)))
        elif where.rpartition("/")[2] == "vars" and (name := _text(item, "name")):
            names[where] = name
    return rows, {"model_config": _text(file, "model_config"), "names": names}, lambda name: file[name][()]


def _walk(h5py: Any, file: Any) -> Iterator[tuple[str, Any]]:
    """Every group and array once, by its path. Refuses links out of the file or round in circles."""
    seen, waiting = {h5py.h5o.get_info(file.id).addr}, [("", file)]
    while waiting:
        above, group = waiting.pop()
        for key in group:
            where = f"{above}/{key}" if above else key
            if group.get(key, getclass=True, getlink=True) is not h5py.HardLink:
                raise Refused(f"{where!r:.200} is a link to another place")
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen or len(seen) > MAX_OBJECTS or where.count("/") > MAX_DEPTH:
                raise Refused(f"{where!r:.200} is there twice, lies too deep, or is one of too many")
            seen.add(address)
            yield where, item
            if isinstance(item, h5py.Group):
                waiting.append((where, item))


def _type(dataset: Any, where: str) -> str:
    """Of which numbers an array is. Refuses those whose content lies elsewhere or is unpacked by other code."""
    if dataset.external or dataset.is_virtual:
        raise Refused(f"array {where!r:.200} lies in another file")
    plan = dataset.id.get_create_plist()
    if not {plan.get_filter(i)[0] for i in range(plan.get_nfilters())} <= FILTERS:
        raise Refused(f"array {where!r:.200} is packed by a filter that is not known here")
    if dataset.dtype.itemsize == 2 and _text(dataset, "dtype") == "bfloat16":
        return "bfloat16"
    if dataset.dtype.kind not in "fiu" or dataset.dtype.shape:
        raise Refused(f"array {where!r:.200} must hold plain numbers, got {dataset.dtype}")
    return str(dataset.dtype.newbyteorder("=").name)


def _text(item: Any, name: str) -> str:
    """An attribute that is a text; "" if there is none."""
    if name not in item.attrs:
        return ""
    value = item.attrs[name]
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def tensorflow(path: str) -> Listing:
    """path: the checkpoint's prefix. Names that are texts and the like are among the rows with TensorFlow's types."""
    from tensorflow.train import load_checkpoint

    reader = load_checkpoint(path)
    types = reader.get_variable_to_dtype_map()
    rows = [(name, types[name].name, list(shape)) for name, shape in reader.get_variable_to_shape_map().items()]
    return rows, {}, reader.get_tensor


def main(kind: str, path: str, memory: str, seconds: str) -> None:
    """Answers one parent."""
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed
    try:
        rows, texts, read = {"hdf5": hdf5, "tensorflow": tensorflow}[kind](path)
        answer: dict[str, Any] = {"rows": rows, "texts": texts}
    except Refused as error:
        answer = {"refused": str(error)}
    content = json.dumps(answer).encode()
    out.write(len(content).to_bytes(8, "little") + content)
    out.flush()
    asked = sys.stdin.readline()
    if not asked:
        return
    import numpy as np

    for number in json.loads(asked):
        array = np.asarray(read(rows[number][0]))
        out.write(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).tobytes())
    out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
