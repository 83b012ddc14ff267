"""What the user of an exported file must know of it, as a value that stands in the file's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trifold.errors import InvalidData
from trifold.preprocessing import Preprocessing, from_dict

KEY = "trifold.interface"
"""The metadata key under which the value stands, as JSON, in files of every format."""

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """What goes into an exported network and what comes out.

    name: the architecture's. classes: their names, in the order of the outputs; () where they are not known.
    num_classes: outputs. preprocessing: how an image becomes the network's input.
    batch: images a call; 0 means any number from 1.
    takes_levels: whether the input is pixel levels 0 to 255, as float32, cropped and resized, and the graph normalises
    them; else it is what `preprocessing` gives in the end.
    gives_probabilities: whether a softmax is part of the graph; else it gives logits.

    Raises InvalidData if the values do not fit each other.
    """

    name: str
    classes: tuple[str, ...]
    num_classes: int
    preprocessing: Preprocessing
    batch: int = 0
    takes_levels: bool = False
    gives_probabilities: bool = False

    def __post_init__(self) -> None:
        if type(self.num_classes) is not int or self.num_classes < 1:
            raise InvalidData(f"interface: num_classes must be a whole number from 1, got {self.num_classes!r}")
        if self.classes and len(set(self.classes)) != self.num_classes:
            raise InvalidData(
                f"interface: classes must be {self.num_classes} different names, got {len(set(self.classes))}"
            )
        if type(self.batch) is not int or not 0 <= self.batch <= 4096:
            raise InvalidData(f"interface: batch must be 1 to 4096, or 0 for any, got {self.batch!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        size = self.preprocessing.resolution
        return self.preprocessing.channels, size, size

    def to_json(self) -> str:
        """The text that `from_json` reads."""
        data = {
            "format": FORMAT,
            "name": self.name,
            "classes": list(self.classes),
            "num_classes": self.num_classes,
            "preprocessing": self.preprocessing.to_dict(),
            "batch": self.batch,
            "takes_levels": self.takes_levels,
            "gives_probabilities": self.gives_probabilities,
        }
        return json.dumps(data, ensure_ascii=False)


def from_metadata(metadata: Mapping[str, str], source: str) -> Interface:
    """The value in a file's metadata. Raises InvalidData naming source if there is none, or it breaks a rule."""
    if KEY not in metadata:
        raise InvalidData(f"{source}: was not written by trifold export: its metadata has no {KEY!r}")
    try:
        data: Any = json.loads(metadata[KEY])
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise InvalidData(f"{source}: its interface must be a JSON object of format {FORMAT}")
        classes = data.pop("classes")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise InvalidData(f"{source}: its interface's classes must be a list of names")
        return Interface(classes=tuple(classes), preprocessing=from_dict(data.pop("preprocessing")), **data)
    except InvalidData as error:
        text = str(error)
        raise InvalidData(text if text.startswith(source) else f"{source}: {text}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidData(f"{source}: its interface cannot be read: {error}") from None
