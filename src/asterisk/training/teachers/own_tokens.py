"""An encoder of BERT's family as a teacher of students that share its tokenizer.

Student token i is asked for the teacher's state at token i: nothing need be aligned or projected.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from asterisk.common.errors import ArtifactError, UsageError
from asterisk.model.checkpoint import load
from asterisk.model.encoder import Encoder, of_checkpoint, pool
from asterisk.training.teachers.bert_torch import PIECES, batches
from asterisk.training.teachers.teacher import AT_ONCE, Seen

Array = npt.NDArray[np.float32]
ENGINES = {"bf16": torch.bfloat16, "torch": torch.float32}
_NO_SPANS = np.empty((0, 2), "i8")


class OwnTokens:
    """A checkpoint folder, seen token by token in its own tokens, special ones included.

    Texts are cut to ``longest`` tokens, or the checkpoint's own length where that is less.
    ``engine`` "bf16" or "torch", float32. ArtifactError for a folder that is no checkpoint or puts
    a prompt before every text.
    """

    def __init__(self, folder: Path, *, engine: str | None = None, longest: int = 512) -> None:
        if engine == "int8":
            raise UsageError("--engine int8 is for students with GPT-2's tokenizer")
        self.engine = engine or "bf16"
        self.checkpoint = load(folder)
        config = self.checkpoint.config
        if self.checkpoint.prompts.get(self.checkpoint.default_prompt_name or ""):
            raise ArtifactError(f"{folder} puts a prompt before every text, which is not supported")
        self.size, self.width = config.embedding_size, config.hidden_size
        self.longest = min(longest, config.max_seq_length)
        self._tokenizer = self.checkpoint.tokenizer.open()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._kind = ENGINES[self.engine]
        self._model: Encoder = of_checkpoint(self.checkpoint).eval()
        self._model.to(self._device, self._kind)

    @property
    def identity(self) -> dict[str, Any]:
        """What its vectors depend on, as JSON."""
        return {
            "kind": "checkpoint",
            "fingerprint": self.checkpoint.fingerprint,
            "tokenizer": self.checkpoint.tokenizer.identity(),
            "engine": self.engine,
            "longest": self.longest,
        }

    def look(self, texts: Sequence[str]) -> list[Seen]:
        """Read every text; what is beyond the longest is not seen."""
        room = self.longest - self.checkpoint.tokenizer.specials
        ids = [
            np.array(self._tokenizer.with_special_tokens(self._tokenizer.encode(text, room)), "i8")
            for text in texts
        ]
        found: dict[int, Seen] = {}
        for some in batches(ids, PIECES[self._device.type]):
            for index, seen in zip(some, self._read([ids[index] for index in some]), strict=True):
                found[index] = seen
        return [found[index] for index in range(len(texts))]

    def sentences(self, start: int, texts: Sequence[str]) -> Array:  # noqa: ARG002
        """Return the sentence vectors of texts, float32 [n, size], L2-normalised."""
        parts = (texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE))
        return np.stack([seen.sentence for part in parts for seen in self.look(part)])

    @torch.inference_mode()
    def _read(self, some: list[npt.NDArray[np.int64]]) -> list[Seen]:
        longest = max(map(len, some))
        ids = torch.zeros(len(some), longest, dtype=torch.long)
        mask = torch.zeros(len(some), longest, dtype=torch.bool)
        for row, these in enumerate(some):
            ids[row, : len(these)] = torch.from_numpy(these)
            mask[row, : len(these)] = True
        mask = mask.to(self._device)
        states = self._model.tokens(ids.to(self._device), mask).float()
        pooled = pool(states, mask, self.checkpoint.config.pooling)
        whole = self._model.project(pooled.to(self._kind)).float() if self._model.dense else pooled
        sentences = functional.normalize(whole, dim=-1).cpu().numpy()
        read: Array = states.cpu().numpy()
        return [
            Seen(sentences[row], read[row, : len(these)], these, _NO_SPANS)
            for row, these in enumerate(some)
        ]
