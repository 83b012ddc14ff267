"""The sets of images that a user can name: a folder, or a built-in set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trifold.data.dataset import Dataset
from trifold.data.digits import open_digits
from trifold.data.folder import open_folder

BUILT_IN: dict[str, Callable[[], Dataset]] = {"digits": open_digits}


def open_data(data: str | Path, *, skip_bad: bool = False) -> Dataset:
    """The built-in set of that name, or the images in that folder; "./digits" is the folder.

    Raises InvalidData as `open_folder` does.
    """
    built_in = BUILT_IN.get(str(data)) if isinstance(data, str) else None
    return built_in() if built_in else open_folder(data, skip_bad=skip_bad)
