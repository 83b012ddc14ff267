"""Where a weight file comes from: Hugging Face's hub, a URL, or a place on this machine, in that order reversed.

What was fetched from a URL lies in the folder of `cache`, what came from the hub in huggingface_hub's own cache.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import urllib.error
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trifold.data.decode import printable
from trifold.errors import InvalidData, InvalidInput

HUB = "hf:"
"""Begins the sources on the hub: hf:OWNER/NAME, hf:OWNER/NAME@REVISION, either followed by :FILE."""

FILE = "model.safetensors"
"""The file of a hub's repository unless one is named."""

SECONDS = 30.0
"""Without a byte for so long, a server counts as not there."""


def cache() -> Path:
    """The folder of fetched files: `TRIFOLD_CACHE`, else trifold/ in `XDG_CACHE_HOME`, else in ~/.cache."""
    own = os.environ.get("TRIFOLD_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trifold"


def place(source: str) -> Path:
    """Where a file of a source is looked for first, and where a user without a network puts it."""
    if source.startswith(HUB):
        owner_and_name, revision, file = _parts(source)
        named = owner_and_name.replace("/", "--") + (f"@{revision}" if revision else "")
        return cache() / (named + (Path(file).suffix if file == FILE else f"--{file.replace('/', '--')}"))
    parts = urllib.parse.urlsplit(source)  # the whole of it: files of one name stand in several folders
    return cache() / f"{parts.hostname}{parts.path}".replace("/", "--")


def fetch(source: str, digest: str = "") -> Path:
    """The file of a source, fetched unless it is there.

    source: as HUB says, an http or https URL, or a path. digest: `sha256:` or `md5:` and the beginning of the file's
    hexadecimal digest; "" asks for none.

    Raises InvalidData if the file cannot be had, saying which file to place where, or has another digest.
    """
    if not source.startswith((HUB, "http://", "https://")):
        path = Path(source)
        if not path.exists():
            raise InvalidData(f"{printable(source)}: no such file")
    elif place(source).is_file():
        path = place(source)
    else:
        path = _from_hub(source) if source.startswith(HUB) else _from_url(source, digest)
    if digest:
        _check(path, digest)
    return path


def _parts(source: str) -> tuple[str, str, str]:
    """Repository, revision ("" for the newest) and file of a hub's source. Raises InvalidInput for another form."""
    where, _, file = source.removeprefix(HUB).partition(":")
    name, _, revision = where.partition("@")
    owner, _, own = name.partition("/")
    if not owner or not own or "/" in own:
        raise InvalidInput(f"source must be {HUB}OWNER/NAME[@REVISION][:FILE], got {printable(source)!r:.200}")
    return name, revision, file or FILE


def _from_hub(source: str) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import logging as hub_logging

    name, revision, file = _parts(source)
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)  # of its retries: what becomes of them is told below
    try:
        return Path(hf_hub_download(name, file, revision=revision or None))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        why = "offline mode is on" if constants.HF_HUB_OFFLINE else "there is no network, or the hub does not answer"
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        why = f"the hub answers {status}"
    except HFValidationError as error:
        raise InvalidInput(f"source {printable(source)!r:.200}: {printable(error)}") from None
    except OSError as error:
        why = printable(error)
    finally:
        hub_logging.set_verbosity(verbosity)
    where = f"{constants.ENDPOINT}/{name}/resolve/{revision or 'main'}/{file}"
    raise InvalidData(f"{name}: cannot be fetched: {why}; place {where} at {place(source)}") from None


def _from_url(source: str, digest: str) -> Path:
    import torch

    path = place(source)
    kind, _, begins = digest.partition(":")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _patience(SECONDS):
            torch.hub.download_url_to_file(source, str(path), hash_prefix=begins if kind == "sha256" else None)
    except urllib.error.HTTPError as error:
        why = f"the server answers {error.code}"
    except RuntimeError:  # the digest, the only one it raises
        raise InvalidData(f"{printable(source)}: what the server gave has not the {kind} digest {begins}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = printable(getattr(reason, "strerror", None) or reason)
    else:
        return path
    raise InvalidData(f"{printable(source)}: cannot be fetched: {why}; place the file at {path}") from None


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Within it a socket that is silent for so long is an error; torch.hub sets no such limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _check(path: Path, digest: str) -> None:
    """Raises InvalidData if a file's digest begins otherwise."""
    kind, _, begins = digest.partition(":")
    if kind not in ("sha256", "md5") or not begins:
        raise InvalidInput(f"digest must be sha256: or md5: and hexadecimal digits, got {digest!r:.100}")
    with path.open("rb") as content:
        found = hashlib.file_digest(content, kind).hexdigest()
    if not found.startswith(begins.lower()):
        raise InvalidData(f"{printable(path)}: its {kind} digest must begin with {begins}, got {found[: len(begins)]}")
