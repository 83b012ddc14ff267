"""TensorFlow's checkpoints as they were published: a .tar.gz that holds one."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

from trifold.errors import InvalidData
from trifold.weights import bounds
from trifold.weights.contents import Pretrained
from trifold.weights.tensorflow_files import INDEX, LIST, index_of, read_checkpoint

_MAX_MEMBERS = 1000
"""Entries of an archive; those of the paper's networks have five to ten."""


def read_archive(path: Path) -> Pretrained:
    """The one checkpoint in an archive, or the one that its list names.

    Only plain files that belong to a checkpoint are unpacked, by their last names, into a folder that is then removed.

    Raises InvalidData if there is none, there are several, or they unpack to far more than the archive takes; EOFError,
    OSError, zlib.error and tarfile's errors for a damaged one; InvalidData as `read_checkpoint`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _unpack(path, folder)
        indices = sorted(folder.glob(f"*{INDEX}"))
        index = indices[0] if len(indices) == 1 else index_of(folder) if indices else None
        if index is None:
            raise InvalidData(f"must hold one TensorFlow checkpoint, got {len(indices)} and no list of them")
        return read_checkpoint(index)


def _unpack(path: Path, folder: Path) -> None:
    size, held = path.stat().st_size, 0
    with tarfile.open(path, "r|gz") as archive:  # a stream: nothing is read twice, nothing looked up
        for number, member in enumerate(archive):
            held += max(member.size, 0)
            bounds.check(held, size)
            if number >= _MAX_MEMBERS:
                raise InvalidData(f"holds more than {_MAX_MEMBERS} files")
            name = member.name.rpartition("/")[2]
            if not member.isreg() or not (name == LIST or INDEX in name or ".data-" in name):
                continue
            if (folder / name).exists():
                raise InvalidData(f"holds two files called {name!r:.200}")
            content = archive.extractfile(member)
            assert content is not None  # of a plain file
            with (folder / name).open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
