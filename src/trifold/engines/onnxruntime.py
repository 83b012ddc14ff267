"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trifold.engines.session import Images, Outputs, Session
from trifold.errors import InvalidData, InvalidInput

INSTALL = "pip install 'trifold[onnx]'"


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InvalidInput(f"the engine onnxruntime is not installed: {INSTALL}") from None
    return onnxruntime


def open_onnx(model: str | Path | bytes, *, threads: int) -> Session:
    """An .onnx file, or its bytes, in ONNX Runtime on `threads` threads of the CPU, all its optimisations on.

    Raises InvalidInput with the install line if it is not installed, InvalidData if it cannot run the file.
    """
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class but this
        name = "the model" if isinstance(model, bytes) else str(model)
        raise InvalidData(f"{name}: ONNX Runtime cannot run it: {' '.join(str(error).split())[:300]}") from None
    name = session.get_inputs()[0].name

    def call(images: Images) -> Outputs:
        outputs: Outputs = session.run(None, {name: np.ascontiguousarray(images)})[0]
        return outputs

    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return Session(
        engine="onnxruntime",
        version=str(runtime.__version__),
        threads=threads,
        call=call,
        metadata=metadata,
    )
