"""ONNX Runtime, opened by path so that it maps the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from asterisk.artifact import Artifact
from asterisk.common import plugins
from asterisk.common.errors import ArtifactError, EngineError, one_line
from asterisk.runtimes.engine import ArtifactEngine, Vector, utf8_path
from asterisk.runtimes.onnx_header import check_graph

INPUT, OUTPUT = "input_ids", "sentence_embedding"
WEIGHTS = "weights.bin"


class OnnxEngine(ArtifactEngine):
    """An inference session, one a lane.

    One may run in several threads at once, but they wait for each other's memory: two lanes on one
    were 1.7 to 1.8 times as fast as one, on two 1.9 times, for the layers' 2 MB once more.
    """

    format: ClassVar[str] = "onnx"

    def __init__(self, artifact: Artifact) -> None:
        ort = plugins.require("onnxruntime", "onnx")
        if WEIGHTS not in artifact.manifest.files:
            raise ArtifactError(f"{artifact.folder}: no hash for {WEIGHTS}")
        check_graph(artifact.entry, WEIGHTS)
        try:
            self.session: Any = ort.InferenceSession(
                utf8_path(artifact.entry), session_options(ort), providers=["CPUExecutionProvider"]
            )
            shapes = [(v.name, v.type, v.shape) for v in self.session.get_inputs()]
            shapes += [(v.name, v.type, v.shape) for v in self.session.get_outputs()]
        except Exception as failure:
            raise ArtifactError(
                f"ONNX Runtime refuses {artifact.entry}: {one_line(failure)}"
            ) from None
        if shapes != [
            (INPUT, "tensor(int64)", [1, "tokens"]),
            (OUTPUT, "tensor(float)", [1, artifact.config.embedding_size]),
        ]:
            raise ArtifactError(f"{artifact.entry} has other inputs or outputs than an encoder")

    @classmethod
    def open(cls, artifact: Artifact, lanes: int) -> list[Self]:
        """Open one session a lane; see `ArtifactEngine.open`."""
        return [cls(artifact) for _ in range(lanes)]

    def run(self, ids: Sequence[int]) -> Vector:
        """Return the pooled vector of one text, float32 [embedding_size], not normalised."""
        try:
            vector: Vector = self.session.run([OUTPUT], {INPUT: np.array([ids], np.int64)})[0][0]
        except Exception as failure:
            raise EngineError(f"ONNX Runtime: {one_line(failure)}") from None
        return vector


def session_options(ort: Any) -> Any:
    """Return the options of one text at a time on one thread, for the module ``onnxruntime``."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # One text at a time fills an arena of 6 MB at most; without one, activations are mapped
    # and unmapped at every call. A remembered pattern would need the lengths to repeat.
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    return options
