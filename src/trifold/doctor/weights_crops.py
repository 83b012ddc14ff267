"""Which crop and interpolation labelled photographs speak for: how likely each makes the right output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL.Image import Image
from torch import Tensor

from trifold.doctor.weights_given import Given, fed, levels_of
from trifold.preprocessing import INTERPOLATIONS, Preprocessing

SURE = 3.0
"""Standard errors of the mean paired difference from which another crop is named; some six are tried."""

BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A crop or interpolation tried.

    name: in words. correct: images right, of total. likelihood: mean logarithm of the right output's probability.
    ahead: that less the one's as given; error: its standard error over the images, which are the same for both.
    """

    name: str
    correct: int
    total: int
    likelihood: float
    ahead: float
    error: float
    given: bool

    @property
    def sure(self) -> float:
        """Standard errors by which it is ahead of the one as given."""
        return self.ahead / self.error if self.error > 0 else 0.0


def crops(given: Preprocessing) -> dict[str, Preprocessing]:
    """Usual crops and interpolations by name, the given one first, at its resolution and by its resizer."""
    larger = round(given.resolution / 0.875)
    found = {
        f"{given.crop}, {given.interpolation}": given,
        "centre square": replace(given, crop="square", resize=0),
        f"shorter side {larger}, centre {given.resolution}": replace(given, crop="resize", resize=larger),
        "TensorFlow's centre": replace(given, crop="tensorflow", resize=0),
        "the whole image squashed": replace(given, crop="whole", resize=0),
    }
    for name in INTERPOLATIONS[:2]:
        found[f"{given.crop}, {name}"] = replace(given, interpolation=name)
    kept: dict[str, Preprocessing] = {}
    for name, one in found.items():
        if one not in kept.values():
            kept[name] = one
    return kept


@torch.inference_mode()
def try_crops(given: Given, images: Sequence[Image], labels: Tensor) -> list[Crop]:
    """Each crop with what it gives these images, the most likely first; the other settings are as given.

    labels: the output that each image should give.
    """
    tried = {}
    for name, preprocessing in crops(given.settings.preprocessing).items():
        settings = replace(given.settings, preprocessing=preprocessing)
        parts = (fed(part, settings) for part in levels_of(images, preprocessing).split(BATCH))
        chances = torch.cat([given.network(part) for part in parts]).double().log_softmax(1)
        tried[name] = chances[torch.arange(len(labels)), labels], chances.argmax(1) == labels
    own, _ = next(iter(tried.values()))
    found = []
    for number, (name, (likelihood, right)) in enumerate(tried.items()):
        ahead = likelihood - own
        found.append(
            Crop(
                name=name,
                correct=int(right.sum()),
                total=len(labels),
                likelihood=float(likelihood.mean()),
                ahead=float(ahead.mean()),
                error=float(ahead.std() / len(labels) ** 0.5),
                given=number == 0,
            )
        )
    return sorted(found, key=lambda crop: (-crop.likelihood, not crop.given))
