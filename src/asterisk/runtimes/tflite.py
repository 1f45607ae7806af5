"""LiteRT on a TFLite file that is mapped, not read."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from asterisk.artifact import Artifact
from asterisk.common.errors import ArtifactError, EngineError, MissingExtra, one_line
from asterisk.runtimes.engine import ArtifactEngine, Vector, utf8_path
from asterisk.runtimes.tflite_header import check_file

INPUT, OUTPUT = "input_ids", "sentence_embedding"
_NOTICE = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
_one_at_a_time = threading.Lock()
if hasattr(os, "register_at_fork"):  # another thread may hold it, which the child has not
    os.register_at_fork(after_in_child=_one_at_a_time._at_fork_reinit)  # type: ignore[attr-defined]


class TfliteEngine(ArtifactEngine):
    """An interpreter of its own, with its own copy of the layers' weights in packed form.

    Interpreters share nothing but the mapped file: two threads in one would mix up their texts.
    """

    format: ClassVar[str] = "tflite"

    def __init__(self, artifact: Artifact) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError:
            raise MissingExtra("ai-edge-litert", "tflite") from None
        except (ImportError, OSError) as failure:  # its libraries do not fit this system
            raise EngineError(f"LiteRT cannot start: {one_line(failure)}") from None
        path, size = artifact.entry, artifact.config.embedding_size
        check_file(path)
        self._length = 0
        try:
            with _without_notice():
                interpreter: Any = Interpreter(utf8_path(path), num_threads=1)
                self._interpreter = interpreter
                inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
                shapes = [
                    (side["name"], side["dtype"], list(side["shape_signature"]))
                    for side in (*inputs, *outputs)
                ]
                if shapes != [(INPUT, np.int32, [1, -1]), (OUTPUT, np.float32, [1, size])]:
                    raise ArtifactError(f"{path} has other inputs or outputs than an encoder")
                self._input, self._output = inputs[0]["index"], outputs[0]["index"]
                # Packs the weights, and refuses now what would be refused at the first text.
                vector = self._run([artifact.config.vocab_size - 1])
        except ArtifactError:
            raise
        except Exception as failure:
            raise ArtifactError(f"LiteRT refuses {path}: {one_line(failure)}") from None
        if vector.shape != (size,) or not np.isfinite(vector).all():
            raise ArtifactError(f"{path} gives no vector of {size}")

    @classmethod
    def open(cls, artifact: Artifact, sessions: int) -> list[Self]:
        """Open ``sessions``, an interpreter each; see `ArtifactEngine.open`."""
        return [cls(artifact) for _ in range(sessions)]

    def run(self, ids: Sequence[int]) -> Vector:
        """Return the pooled vector of one text, float32 [embedding_size], not normalised."""
        try:
            return self._run(ids)
        except Exception as failure:
            raise EngineError(f"LiteRT: {one_line(failure)}") from None

    def close(self) -> None:
        """Release the interpreter and, with the last one, the mapped file."""
        self._interpreter = None

    def _run(self, ids: Sequence[int]) -> Vector:
        interpreter = self._interpreter
        if interpreter is None:
            raise EngineError("the session is closed")
        if len(ids) != self._length:
            self._length = 0  # in case the next lines fail
            interpreter.resize_tensor_input(self._input, [1, len(ids)])
            interpreter.allocate_tensors()
            self._length = len(ids)
        interpreter.set_tensor(self._input, np.array([ids], np.int32))
        interpreter.invoke()
        vector: Vector = interpreter.get_tensor(self._output)[0]
        return vector


@contextlib.contextmanager
def _without_notice() -> Iterator[None]:
    """Keep the engine's one line about its delegate off stderr; it has no switch for that.

    Meanwhile stderr goes to a file in memory, and what others wrote there is passed on afterwards.
    """
    with _one_at_a_time:
        try:
            stderr = os.dup(2)
        except OSError:  # there is no stderr to keep clean
            yield
            return
        if sys.platform == "linux":
            aside = os.memfd_create("stderr")
        else:  # mypy sees one platform's branch only
            import tempfile

            with tempfile.TemporaryFile() as file:
                aside = os.dup(file.fileno())
        os.dup2(aside, 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.lseek(aside, 0, os.SEEK_SET)
            with open(aside, "rb") as file:  # noqa: PTH123 - a descriptor
                for line in file:
                    if line.rstrip() != _NOTICE:
                        os.write(2, line)
