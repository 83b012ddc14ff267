"""What a weights file holds, as a value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from torch import Tensor

from trifold.architecture import Architecture
from trifold.data.decode import printable
from trifold.errors import InvalidData
from trifold.network import Numerics


class Stamp(NamedTuple):
    """A file as it was when it was read."""

    path: Path
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """The file as it is now. Raises OSError."""
        found = path.stat()
        return cls(path, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """The tensors of a weights file, not yet fitted to a network.

    tensors: on the CPU, by the file's own names; source: the file's path as errors show it; files: what was read;
    description: what it holds, one line.
    layout: the one of `weights.LAYOUTS` that the kind of file has; "" where the names alone tell it.
    ordered: the names say nothing, the tensors are in the order of timm's state dict.
    architecture, numerics, mean and std (of pixel values in [0, 1]): where the file says so or the library that wrote
    it leaves no choice, else None.
    """

    tensors: Mapping[str, Tensor]
    description: str
    source: str = ""
    files: tuple[Stamp, ...] = ()
    layout: str = ""
    ordered: bool = False
    architecture: Architecture | None = None
    numerics: Numerics | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def digest(self) -> str:
        """The SHA-256 digest of what was read, one file after the other; "" if that was no file.

        It is worked out at each call, since it takes as long as reading the tensors does.

        Raises InvalidData if a file is another one by now.
        """
        if not self.files:
            return ""
        digest = hashlib.sha256()
        for stamp in self.files:
            try:
                with stamp.path.open("rb") as content:
                    while piece := content.read(1 << 20):
                        digest.update(piece)
                same = Stamp.of(stamp.path) == stamp
            except OSError as error:
                raise InvalidData(f"{printable(stamp.path)}: cannot be read: {error.strerror}") from None
            if not same:
                raise InvalidData(f"{printable(stamp.path)}: has changed since its tensors were read")
        return digest.hexdigest()
