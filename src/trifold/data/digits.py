"""The built-in set: scikit-learn's 1,797 scanned handwritten digits, 8x8 pixels each, no download."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from trifold.data.dataset import Dataset, Sample, content_digest

NOTE = "8x8 pixel scans of handwritten digits, enlarged to the network's resolution"


def open_digits() -> Dataset:
    """1,797 grey digits of ten classes "0" to "9", 8x8 pixels, white on black (Alpaydin & Kaynak 1998, UCI).

    The set's 17 levels, 0 to 16, become 0 to 255. The split is left to the seed; digits are never mirrored.
    """
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    samples = tuple(
        Sample(
            name=f"{label}/{number:04d}.png",
            label=int(label),
            split="",
            width=8,
            height=8,
            mode="L",
            digest=content_digest(image.tobytes()),
            content=_png(image),
        )
        for number, (image, label) in enumerate(zip(images, digits.target, strict=True))
    )
    classes = tuple(str(digit) for digit in range(10))
    return Dataset(name="digits", source="digits", classes=classes, samples=samples, note=NOTE, mirror=False)


def _png(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
