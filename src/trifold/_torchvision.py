"""torchvision, imported so that it also works beside a build of torch its compiled operators do not load into.

``import torchvision`` stops at ``operator torchvision::nms does not exist`` where its extension was compiled for
another build of torch (a CUDA torchvision beside a CPU torch, say): it registers fake kernels for two operators that
the extension would have declared. Declaring their schemas first lets the transforms, the models, the datasets and timm
work; calling one of the compiled operators still raises torchvision's own error.

Every other module takes torchvision from here (``from trifold._torchvision import v2``), and imports this module before
timm. It acts when it is imported, as no other module does, because the declaration must precede torchvision's import.
"""

import importlib.machinery
import importlib.util

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def missing_operators() -> tuple[str, ...]:
    """The operators that torchvision's import asks for and torch does not know, by name."""
    return tuple(name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name))


def load_extension() -> bool:
    """Whether torchvision's compiled extension loads into this torch; it is loaded as torchvision itself would.

    Raises ModuleNotFoundError if torchvision is not installed.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("torchvision is not installed: pip install torchvision", name="torchvision")
    loader = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    extension = importlib.machinery.FileFinder(package.submodule_search_locations[0], loader).find_spec("_C")
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except (ImportError, OSError):  # the classes that torchvision catches: the extension was built for another torch
        return False
    return True


def declare_missing_operators() -> torch.library.Library | None:
    """The library that declares what torchvision's import asks for, or None where torchvision imports without it.

    The declaration lasts as long as the returned value is kept.
    """
    missing = missing_operators()
    if not missing or load_extension():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in missing:
        library.define(_SCHEMAS[name])
    return library


_DECLARATION = declare_missing_operators()

import torchvision  # noqa: E402  the declaration above must come first
from torchvision.transforms import v2  # noqa: E402  the declaration above must come first

__all__ = ["declare_missing_operators", "load_extension", "missing_operators", "torchvision", "v2"]
