"""A supernet's weights as a safetensors file; the space they are of is written in its header."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trifold.data.decode import printable
from trifold.errors import InvalidData
from trifold.search.space import space_to_dict
from trifold.search.supernet import Supernet

LAYOUT = "1"


def _header(supernet: Supernet) -> dict[str, str]:
    return {
        "format": "pt",
        "trifold_supernet": LAYOUT,
        "space": json.dumps(space_to_dict(supernet.space), separators=(",", ":")),
        "num_classes": str(supernet.num_classes),
        "in_channels": str(supernet.in_channels),
    }


def save(path: Path, supernet: Supernet) -> None:
    """Writes the weights; the file appears whole or not at all. Raises OSError if it cannot be written."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in supernet.state_dict().items()}
    try:
        save_file(tensors, temporary, metadata=_header(supernet))
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except SafetensorError as error:
        raise OSError(0, " ".join(str(error).split())[:300]) from None
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, supernet: Supernet) -> None:
    """Puts a file's weights into a supernet of the same space.

    Raises InvalidData if it is absent, truncated, no supernet's, or one of another space, classes or channels.
    """
    if not path.is_file():
        raise InvalidData(f"{printable(path)}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            held, wanted = file.metadata() or {}, _header(supernet)
            for name, text in wanted.items():
                if held.get(name) != text:
                    raise InvalidData(
                        f"{printable(path)}: not the weights of this supernet: {name} must be {text:.60}, got "
                        f"{printable(held.get(name))!s:.60}"
                    )
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  it is no dict
        supernet.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InvalidData(f"{printable(path)}: cannot be read: {' '.join(str(error).split())[:300]}") from None
