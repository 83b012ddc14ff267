"""A first look at images that decodes none: what a plan needs to know of them before torch is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from trifold.data.folder import list_folder
from trifold.data.listing import Listing
from trifold.data.table_file import list_table

LOOKED_AT = 8
"""Images whose headers are read for their channels."""


class Glimpse(NamedTuple):
    """What a source seems to hold: classes, channels (1 if the images looked at are grey) and images to train on."""

    classes: int
    channels: int
    images: int


_KNOWN = {
    "digits": Glimpse(10, 1, 1797),
    "cifar10": Glimpse(10, 3, 50_000),
    "cifar100": Glimpse(100, 3, 50_000),
    "flowers102": Glimpse(102, 3, 1_020),
    "stanford_cars": Glimpse(196, 3, 8_144),
    "fgvc_aircraft": Glimpse(100, 3, 3_334),
    "oxford_pets": Glimpse(37, 3, 3_680),
    "food101": Glimpse(101, 3, 75_750),
}
"""The built-in set, and torchvision's, whose readers load torch."""


def glimpse(data: str) -> Glimpse | None:
    """What DATA seems to hold; None for a set of torchvision's that is not known here.

    Raises InvalidData if a folder or .csv is absent or lists no images.
    """
    name, colon, _ = data.partition(":")
    if data == "digits" or (colon and not Path(data).exists()):
        return _KNOWN.get(name)
    is_table = Path(data).suffix.lower() == ".csv" and not Path(data).is_dir()
    listing = list_table(data) if is_table else list_folder(data)
    return Glimpse(len(listing.classes), _channels(listing), sum(one.split != "test" for one in listing.candidates))


def _channels(listing: Listing) -> int:
    found = set()
    for candidate in listing.candidates[:: 1 + len(listing.candidates) // LOOKED_AT]:
        try:
            with Image.open(str(candidate.content)) as image:
                found.add(image.mode)
        except (OSError, ValueError):  # it is named when the data are opened
            continue
    return 1 if found == {"L"} else 3
