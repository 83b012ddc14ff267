"""One image decoded strictly: 8-bit grey or RGB, whole, at least 4x4 pixels; anything else is refused by name."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from trifold.errors import InvalidData

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MODES = ("L", "RGB")
MIN_SIDE = 4
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF_BITS_PER_SAMPLE = 258
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on damaged files."""


def printable(text: object) -> str:
    """The text on one line: characters that cannot be printed become "?"."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises InvalidData naming the file if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidData(f"{printable(path)}: cannot be read: {error.strerror}") from None


def decode(content: bytes, name: object, *, upright: bool = True) -> Image.Image:
    """The image in a file's bytes, fully decoded, mode L or RGB, turned upright by its EXIF orientation.

    name: what the error calls the image, its path. upright: false leaves it as it is stored.

    Raises InvalidData naming image, field, value and what is allowed: not an image, cut short, a mode other than
    L and RGB, more than 8 bits a channel (Pillow would cut them to 8 without a word), a side under 4 pixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            _check(content, image)
            image.load()
            return ImageOps.exif_transpose(image) if upright else image.copy()
    except InvalidData as error:
        raise InvalidData(f"{printable(name)}: {error}") from None
    except UnidentifiedImageError:
        raise InvalidData(f"{printable(name)}: not an image that Pillow can read") from None
    except _DECODER_ERRORS as error:
        raise InvalidData(f"{printable(name)}: cannot be decoded: {printable(error)}") from None


def _check(content: bytes, image: Image.Image) -> None:
    bits = _bits(content, image)
    if bits > 8:
        raise InvalidData(f"bit depth is {bits}; allowed is 8 bits a channel")
    if image.mode not in MODES:
        raise InvalidData(f"mode is {image.mode}{_MODE_NAMES.get(image.mode, '')}; allowed are L (8-bit grey) and RGB")
    if min(image.size) < MIN_SIDE:
        width, height = image.size
        raise InvalidData(f"size is {width}x{height} pixels; allowed is {MIN_SIDE}x{MIN_SIDE} or more")


_MODE_NAMES = {"P": " (palette)", "RGBA": " (with transparency)", "LA": " (with transparency)", "1": " (1 bit)"}


def _bits(content: bytes, image: Image.Image) -> int:
    """Bits a channel as the file's header has them, where its format allows more than 8."""
    if content.startswith(_PNG):
        return content[24]
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return 8
    value = tags.get(_TIFF_BITS_PER_SAMPLE, 8)
    return int(max(value)) if isinstance(value, tuple) else int(value)
