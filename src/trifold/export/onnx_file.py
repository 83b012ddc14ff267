"""A network written as ONNX by torch's exporter, with its interface in the file's metadata."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from trifold.errors import InvalidInput
from trifold.export.graph import Deployed
from trifold.export.interface import KEY, Interface
from trifold.network import Network

INSTALL = "pip install 'trifold[onnx]'"


def onnx_model(network: Network, interface: Interface) -> Any:
    """The network as an onnx.ModelProto: input `images`, output `logits` or `probabilities`, batch norm folded.

    Raises InvalidInput with the install line if ONNX is not installed, or naming an operator that it does not have.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError:
        raise InvalidInput(f"ONNX files are written by onnx and onnxscript: {INSTALL}") from None
    deployed = Deployed(network, interface)
    dynamic = None if interface.batch else {"images": {0: torch.export.Dim("batch", min=1)}}
    output = "probabilities" if interface.gives_probabilities else "logits"
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # torch's exporter warns of its own dependencies' deprecations
            program = torch.onnx.export(
                deployed,
                (deployed.example(),),
                dynamo=True,
                input_names=["images"],
                output_names=[output],
                dynamic_shapes=dynamic,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise InvalidInput(f"{interface.name}: cannot be written as ONNX: {_first_line(error)}") from error
    finally:
        logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: interface.to_json()})
    return _without_notes(model)


def _without_notes(model: Any) -> Any:
    """The model without what the exporter noted on each node: stack traces hold paths of the machine."""
    for part in (model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    del model.graph.value_info[:]
    return model


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)


def write_onnx(network: Network, interface: Interface, path: str | Path) -> None:
    """Writes the network as one .onnx file. Raises InvalidInput as `onnx_model` does."""
    model = onnx_model(network, interface)
    Path(path).write_bytes(model.SerializeToString())
