"""A finished run given to others: one weights file that is the whole model, and its card, in a folder or on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCardData, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, without __all__

from trifold import weights
from trifold.cost import cost
from trifold.data.decode import printable
from trifold.errors import Failed, InvalidInput
from trifold.network import Network
from trifold.train.record import write_atomic
from trifold.train.use import Trained, load_run, weights_file
from trifold.weights.fetch import FILE, HUB

CARD = "README.md"
"""What the hub shows as a model's page."""

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*", re.IGNORECASE)
"""The form of SPDX's and the hub's identifiers of licences."""

_LISTED = 20
"""Classes that a card names."""


def write_shared(run: str | Path, folder: str | Path, *, licence: str, name: str = "") -> Path:
    """Writes a run's model for others into a folder, made if need be: `model.safetensors` and its card, `README.md`.

    run: a finished run's folder or weights file. licence: of the weights, an identifier such as apache-2.0 or other;
    it stands in the file's metadata and on the card. name: of the model on its card; "" for its network's.

    Raises InvalidInput for a licence of another form, or a folder that cannot be written; InvalidData as `load_run`.
    """
    if not _LICENCE.fullmatch(licence):
        raise InvalidInput(f"licence must be an identifier such as apache-2.0, mit or other, got {licence!r:.100}")
    load_run(run)  # which checks what is read below
    network, metadata = weights.load(weights_file(run))
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights.save(folder / FILE, network, {**metadata, "licence": json.dumps(licence)})
        write_atomic(folder / CARD, card(network, metadata, licence=licence, name=name or network.architecture.name))
    except OSError as error:
        raise InvalidInput(f"{printable(folder)}: cannot be written: {error.strerror or error}") from None
    return folder


def push_to_hub(
    run: str | Path, repository: str, folder: str | Path, *, licence: str, private: bool = False, token: str = ""
) -> str:
    """Writes a run's model as `write_shared` does and uploads that folder; returns the address of its page.

    repository: OWNER/NAME, made if it is not there. token: of the hub; "" for the one that `hf auth login` keeps.

    Raises InvalidInput as `write_shared`, or for another form of name; Failed, with the folder written, if the hub
    cannot be reached or refuses.
    """
    name = _repository(repository)
    written = write_shared(run, folder, licence=licence, name=name.partition("/")[2])
    api = HfApi(token=token or None)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=written, allow_patterns=[FILE, CARD], commit_message="Add the model"
        )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        why = f"the hub answers {status}" + ("; log in by `hf auth login`" if status in (401, 403) else "")
    except OSError as error:  # no token, no network
        why = printable(error).partition(". ")[0]
    else:
        return f"{constants.ENDPOINT}/{name}"
    raise Failed(f"{name}: cannot be pushed: {why}; what would be pushed lies in {printable(written)}")


def from_hub(repository: str, *, revision: str = "") -> Trained:
    """A model that `push_to_hub` gave: network, classes, preprocessing.

    repository: OWNER/NAME. revision: a commit, tag or branch; "" for the newest. The file is kept in the hub's cache;
    offline, the one there is used.

    Raises InvalidInput for another form of name; InvalidData if it cannot be had, or is no such model.
    """
    return load_run(f"{HUB}{_repository(repository)}" + (f"@{revision}" if revision else ""))


def _repository(repository: str) -> str:
    """The name, checked. Raises InvalidInput."""
    try:
        validate_repo_id(repository)
    except HFValidationError:
        repository = ""
    if repository.count("/") != 1:
        raise InvalidInput(f"repository must be OWNER/NAME as the hub allows it, got {repository!r:.100}")
    return repository


def card(network: Network, metadata: Mapping[str, str], *, licence: str, name: str) -> str:
    """A model's card: YAML that the hub reads, then what a reader must know before using it.

    metadata: of a run's weights file. Lines on the training are left out where an older file does not say it.
    """
    said: dict[str, Any] = {key: json.loads(text) for key, text in metadata.items()}
    training = said.get("training", {})
    data = ModelCardData(
        license=licence.lower(),
        library_name="trifold",
        pipeline_tag="image-classification",
        tags=["trifold", "image-classification", network.architecture.name],
        model_name=name,
        eval_results=_results(said, training),
    )
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {name}",
        _what(network, said["classes"]),
        "## Use\n\n```sh\npip install trifold\n"
        f"trifold predict {FILE} photo.jpg   # after downloading it; or hf:OWNER/NAME in its place\n```",
        "## Images\n\nPrepared as the file's own metadata say, which `trifold` does by itself:\n\n" + _images(said),
        *_trained(said, training),
    ]
    return "\n\n".join(parts) + "\n"


def _results(said: Mapping[str, Any], training: Mapping[str, Any]) -> list[EvalResult] | None:
    if not training:
        return None
    one = EvalResult(
        task_type="image-classification",
        dataset_type=training["data"],
        dataset_name=training["data"],
        dataset_split="test",
        metric_type="accuracy",
        metric_value=round(said["accuracy"]["test"], 6),
    )
    return [one]


def _what(network: Network, classes: list[str]) -> str:
    one = network.architecture
    costs = cost(one, num_classes=network.num_classes, in_channels=network.in_channels)
    named = ", ".join(classes[:_LISTED]) + (f" and {len(classes) - _LISTED} more" if classes[_LISTED:] else "")
    return (
        f"An image classifier of {len(classes)} classes: {named}.\n\nNetwork `{one.name}`: {costs.parameters:,} "
        f"parameters, {costs.multiply_adds:,} multiply-adds at {one.resolution} pixels."
    )


def _images(said: Mapping[str, Any]) -> str:
    rows = [(field, _short(value)) for field, value in said["preprocessing"].items()]
    return _table(rows)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(["| field | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _trained(said: Mapping[str, Any], training: Mapping[str, Any]) -> list[str]:
    """How it was trained and what it gave; nothing where the file does not say."""
    if not training:
        return []
    tested, images = training["tested"], training["images"]
    low, high = (100 * bound for bound in tested["interval"])
    lines = [
        f"Trained on `{training['data']}`, {images['train']:,} images, for {training['epochs']} epochs (seed "
        f"{training['seed']}); the weights of epoch {training['epoch']} were chosen on {images['minival']:,} images of "
        "the training set.",
        f"Accuracy on its {tested['total']:,} test images, looked at once: **{100 * said['accuracy']['test']:.2f} %** "
        f"(95 % interval {low:.2f} to {high:.2f}).",
    ]
    if training["pretrained"]:
        lines.append(f"It began with pretrained weights, SHA-256 {training['pretrained']}, whose licence applies too.")
    recipe = [(field, _short(value)) for field, value in said["recipe"].items()]
    return [
        "## Training and accuracy\n\n" + "\n\n".join(lines),
        "<details><summary>Recipe</summary>\n\n" + _table(recipe) + "\n\n</details>",
    ]
