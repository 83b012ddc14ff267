"""From a finished run to an exported file that has passed the gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trifold.data.dataset import Dataset
from trifold.engines.onnxruntime import open_onnx
from trifold.errors import Failed, InvalidInput
from trifold.export.graph import Deployed
from trifold.export.interface import Interface
from trifold.export.onnx_file import onnx_model
from trifold.train.gate import Gate, pass_through
from trifold.train.use import held_out, load_run

SUFFIX = ".onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a run is to be exported: the fields of `Interface` that are a choice; threads: of the gate's engine."""

    batch: int = 0
    takes_levels: bool = False
    gives_probabilities: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        if type(self.threads) is not int or not 1 <= self.threads <= 1024:
            raise InvalidInput(f"threads must be a whole number from 1 to 1024, got {self.threads!r}")


class Refused(Failed):
    """An export that did not pass the gate, of which no file was left; `gate` says what was found."""

    def __init__(self, text: str, gate: Gate) -> None:
        super().__init__(text)
        self.gate = gate


def export_run(
    run: str | Path,
    dataset: Dataset,
    path: str | Path,
    wanted: Wanted,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Gate:
    """Writes a run's network as ONNX and returns what the gate found of it on the dataset's held-out images.

    The file stands under its name only once the gate is passed; an older file of that name is kept until then.

    Raises InvalidInput if the path does not end in .onnx or its folder is not there, or as `held_out`, `onnx_model`
    and `open_onnx` do; Refused if the gate is not passed.
    """
    path = Path(path)
    if path.suffix != SUFFIX or not path.parent.is_dir():
        raise InvalidInput(f"{path}: must end in {SUFFIX} and lie in a folder that is there")
    trained = load_run(run)
    samples, labels = held_out(run, dataset, trained)
    interface = Interface(
        name=trained.network.architecture.name,
        classes=trained.classes,
        num_classes=len(trained.classes),
        preprocessing=trained.preprocessing,
        batch=wanted.batch,
        takes_levels=wanted.takes_levels,
        gives_probabilities=wanted.gives_probabilities,
    )
    content: bytes = onnx_model(trained.network, interface).SerializeToString()
    session = open_onnx(content, threads=wanted.threads)
    gate = pass_through(Deployed(trained.network, interface), session, samples, labels, progress=progress)
    if gate.faults:
        raise Refused(f"{path}: not written, it did not pass the gate: {'; '.join(gate.faults)}", gate)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return gate
