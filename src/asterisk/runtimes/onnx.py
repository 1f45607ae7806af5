"""ONNX Runtime, opened by path so that it maps the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from asterisk import plugins
from asterisk.artifact import Artifact
from asterisk.errors import ArtifactError, EngineError
from asterisk.runtimes.engine import ArtifactEngine, Vector

INPUT, OUTPUT = "input_ids", "sentence_embedding"
LARGEST_GRAPH = 16 << 20
# One external-data entry, serialised whole: field 13 of TensorProto, 23 bytes long, key and value.
_LOCATION = b"location"
_ENTRY = b"\x6a\x17\x0a\x08location\x12\x0bweights.bin"


class OnnxEngine(ArtifactEngine):
    """An inference session; it may run in several threads at once, so all lanes share it."""

    format: ClassVar[str] = "onnx"

    def __init__(self, artifact: Artifact) -> None:
        ort = plugins.require("onnxruntime", "onnx")
        _check_graph(artifact.entry)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # One text at a time fills an arena of 6 MB at most; without one, activations are mapped
        # and unmapped at every call. A remembered pattern would need the lengths to repeat.
        options.enable_cpu_mem_arena = True
        options.enable_mem_pattern = False
        options.log_severity_level = 4
        try:
            self.session: Any = ort.InferenceSession(
                str(artifact.entry), options, providers=["CPUExecutionProvider"]
            )
            shapes = [(v.name, v.type, v.shape) for v in self.session.get_inputs()]
            shapes += [(v.name, v.type, v.shape) for v in self.session.get_outputs()]
        except Exception as failure:
            raise ArtifactError(f"ONNX Runtime refuses {artifact.entry}: {failure}") from None
        if shapes != [
            (INPUT, "tensor(int64)", [1, "tokens"]),
            (OUTPUT, "tensor(float)", [1, artifact.config.embedding_size]),
        ]:
            raise ArtifactError(f"{artifact.entry} has other inputs or outputs than an encoder")

    @classmethod
    def open(cls, artifact: Artifact, lanes: int) -> list[Self]:
        """Open one session for all lanes; see `ArtifactEngine.open`."""
        return [cls(artifact)] * lanes

    def run(self, ids: Sequence[int]) -> Vector:
        """Return the pooled vector of one text, float32 [embedding_size], not normalised."""
        try:
            vector: Vector = self.session.run([OUTPUT], {INPUT: np.array([ids], np.int64)})[0][0]
        except Exception as failure:
            raise EngineError(f"ONNX Runtime: {failure}") from None
        return vector


def _check_graph(path: Path) -> None:
    """Refuse a graph whose weights would be read from anywhere but the file beside it."""
    if path.stat().st_size > LARGEST_GRAPH:
        raise ArtifactError(f"{path} is too large: weights belong into a file of their own")
    graph = path.read_bytes()
    if graph.count(_LOCATION) != graph.count(_ENTRY):
        raise ArtifactError(f"{path} refers to data outside its artifact")
