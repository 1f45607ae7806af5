"""Any Hugging Face encoder as a teacher, by PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, one_line
from asterisk.common.plugins import require

PIECES = {"cpu": 4_096, "cuda": 65_536}  # word pieces at once, padding included
Ids = Sequence[npt.NDArray[np.int64]]


class TorchEncoder:
    """Reads texts' word pieces, like lengths together: bfloat16 if ``half`` or on a GPU.

    ArtifactError if `transformers` cannot open the folder. Code in the folder is never run.
    """

    def __init__(self, folder: Path, *, half: bool = False) -> None:
        self._torch: Any = require("torch", "train")
        models: Any = require("transformers", "train").AutoModel
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        kind = self._torch.bfloat16 if half or self._device == "cuda" else self._torch.float32
        require("transformers.utils.logging", "train").disable_progress_bar()
        try:
            model = models.from_pretrained(
                folder, dtype=kind, local_files_only=True, trust_remote_code=False
            )
        except Exception as failure:
            # Whatever the library and those below it raise for a folder they cannot open.
            raise ArtifactError(f"cannot open the teacher {folder}: {one_line(failure)}") from None
        if getattr(model.config, "is_encoder_decoder", False):
            raise ArtifactError(f"the teacher {folder} is no encoder alone")
        self._model = model.to(self._device).eval()
        self.size: int = model.config.hidden_size

    def states(self, texts: Ids) -> list[npt.NDArray[np.float32]]:
        """Return the last hidden states of texts' word pieces [T], float32 [T, size] each."""
        found: dict[int, npt.NDArray[np.float32]] = {}
        for some in batches(texts, PIECES[self._device]):
            longest = max(len(texts[index]) for index in some)
            ids = np.zeros((len(some), longest), "i8")
            mask = np.zeros((len(some), longest), "i8")
            for row, index in enumerate(some):
                ids[row, : len(texts[index])] = texts[index]
                mask[row, : len(texts[index])] = 1
            for index, states in zip(some, self._read(ids, mask), strict=True):
                found[index] = states[: len(texts[index])]
        return [found[index] for index in range(len(texts))]

    def _read(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        padding = self._model.config.pad_token_id
        ids = np.where(mask > 0, ids, 0 if padding is None else padding)
        with self._torch.inference_mode():
            made = self._model(
                input_ids=self._torch.from_numpy(ids).to(self._device),
                attention_mask=self._torch.from_numpy(mask).to(self._device),
            )
            states: npt.NDArray[np.float32] = made.last_hidden_state.float().cpu().numpy()
        return states


def batches(texts: Ids, pieces: int) -> Iterator[list[int]]:
    """Yield the places of texts of like length that make about ``pieces`` word pieces."""
    some: list[int] = []
    for index in sorted(range(len(texts)), key=lambda index: len(texts[index])):
        if some and (len(some) + 1) * len(texts[index]) > pieces:
            yield some
            some = []
        some.append(index)
    if some:
        yield some
