"""A network ready to run in one engine: a call from images to outputs, and what it was made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Outputs = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One network in one engine.

    engine: "onnxruntime". version: the engine's. threads: it computes with so many.
    call: images (batch, channels, height, width), float32, to outputs (batch, num_classes), float32; may be called
    from several threads at once. metadata: the file's, as text by key.
    """

    engine: str
    version: str
    threads: int
    call: Callable[[Images], Outputs]
    metadata: dict[str, str]

    def __call__(self, images: Images) -> Outputs:
        """The outputs of some images."""
        return self.call(images)
