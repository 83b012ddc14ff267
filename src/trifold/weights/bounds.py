"""How much a file may unpack to: a small one that says it holds a large array is refused before memory is taken."""

from __future__ import annotations

import zipfile

from trifold.errors import InvalidData

FLOOR = 64 << 20
"""What any file may hold, in bytes."""

RATIO = 20
"""How many times its own size a larger one may: trained weights hardly compress, pruned ones some ten times."""

CEILING = 16 << 30
"""What no file may exceed; the largest network of the paper takes 1.8 GiB."""


def allowance(size: int) -> int:
    """How many bytes of arrays a file of `size` bytes may unpack to."""
    return min(CEILING, max(FLOOR, RATIO * size))


def check(held: int, size: int) -> None:
    """Raises InvalidData if arrays of `held` bytes are more than a file of `size` bytes may hold."""
    if held > allowance(size):
        raise InvalidData(
            f"{size} bytes that unpack to {held}: more than {RATIO} times as many, or than {CEILING >> 30} GiB"
        )


def members(archive: zipfile.ZipFile, size: int, *, stored: bool = False) -> dict[str, zipfile.ZipInfo]:
    """The members of a zip file of `size` bytes, by name; reading one gives no more bytes than it says here.

    stored: none may be compressed.

    Raises InvalidData if two have one name, one is encrypted or compressed otherwise than by deflate, or they say that
    they are larger than `check` allows or than the file itself.
    """
    found = {}
    for info in archive.infolist():
        if info.filename in found:
            raise InvalidData(f"holds two members called {info.filename!r:.200}")
        allowed = (zipfile.ZIP_STORED,) if stored else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if info.flag_bits & 0x1 or info.compress_type not in allowed:
            how = "compressed" if stored else "encrypted, or packed in a way not known here"
            raise InvalidData(f"member {info.filename!r:.200} is {how}")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise InvalidData(f"member {info.filename!r:.200} says that it has two sizes")
        found[info.filename] = info
    packed, held = (sum(getattr(info, of) for info in found.values()) for of in ("compress_size", "file_size"))
    if packed > size:
        raise InvalidData(f"{size} bytes whose members are said to take {packed}")
    check(held, size)
    return found
