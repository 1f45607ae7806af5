"""One row for every spelling of a word, where the teacher cannot see case."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asterisk.tokenizer import ByteLevelBPE


def fold(tokenizer: ByteLevelBPE, size: int) -> npt.NDArray[np.int64]:
    """Return each token's lower-case twin, or itself, int64 [size].

    A caseless teacher gives " The" and " the" one reading; training one row for both shows it to
    every sighting of either.
    """
    twins = np.arange(size)
    known = {tokenizer.token_bytes(token): token for token in range(size)}
    for spelt, token in known.items():
        try:
            lower = spelt.decode("utf-8").lower().encode("utf-8")
        except UnicodeDecodeError:
            continue
        twins[token] = known.get(lower, token)
    return twins


def unfold(
    table: npt.NDArray[np.float32], twins: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.float32]:
    """Return ``table`` [size, d] with each token's row replaced by its twin's.

    So that whoever reads the table needs to know nothing of twins.
    """
    return table if twins is None else table[twins]
