"""NF4, four bits a value: the quantiles of a normal distribution, and a scale for each 32 values.

Source: QLoRA (arXiv:2305.14314), section 3 and appendix E. A token table's values are close to
normal, so that these sixteen levels leave a quarter less squared error than evenly spaced ones. Two
values share a byte, and a table of all 256 bytes gives both at once: every engine that can look up
rows can unpack it, and unpacks only the rows of the text.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import UsageError

BLOCK = 32

_TAIL = 0.9677083  # the paper's outermost quantile: halfway to the edge of the last of 15 or 16
_SHARES = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05)  # of a block's largest value, tried as its scale
_ROWS = 4_096  # at a time, to stay small


def levels() -> npt.NDArray[np.float32]:
    """Return the sixteen levels, ascending from -1 to 1, float32; the eighth is 0."""
    below = [NormalDist().inv_cdf(1 - p) for p in np.linspace(_TAIL, 0.5, 8)[:-1]]
    above = [NormalDist().inv_cdf(p) for p in np.linspace(_TAIL, 0.5, 9)[:-1]]
    return np.array(sorted([*below, 0.0, *above]) / np.max(above), np.float32)


def pairs() -> npt.NDArray[np.float32]:
    """Return both values of every byte, float32 [256, 2]: the low half's, then the high half's."""
    byte = np.arange(256)
    return np.stack([levels()[byte & 15], levels()[byte >> 4]], axis=1)


def quantise_nf4(
    table: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Return bytes [n, d / 2] and scales [n, d / 32] of a float32 table [n, d].

    Each scale is the one of a few that leaves the smallest squared error: the largest value of a
    block is worth less than the other 31. UsageError if d is not a multiple of 32.
    """
    width = table.shape[1]
    if width % BLOCK:
        raise UsageError(f"a table {width} wide has no whole blocks of {BLOCK}; use recipe int8")
    parts = [_rows(table[start : start + _ROWS]) for start in range(0, len(table), _ROWS)]
    packed, scales = (np.concatenate(part) for part in zip(*parts, strict=True))
    return packed, scales


def _rows(
    table: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    blocks = table.reshape(-1, BLOCK)
    largest = np.abs(blocks).max(1, keepdims=True)
    least = np.full(len(blocks), np.inf, np.float32)
    codes = np.zeros(blocks.shape, np.uint8)
    scales = np.zeros((len(blocks), 1), np.float16)
    book = levels()
    edges = (book[1:] + book[:-1]) / 2
    for share in _SHARES:
        # Rounded first: what a device multiplies by is what the codes should fit.
        scale = (largest * np.float32(share)).clip(max=np.finfo(np.float16).max).astype(np.float16)
        wide = scale.astype(np.float32)
        found = np.searchsorted(edges, blocks / np.where(wide, wide, 1)).astype(np.uint8)
        error = np.square(book[found] * wide - blocks).sum(1)
        better = error < least
        least[better], codes[better], scales[better] = error[better], found[better], scale[better]
    packed: npt.NDArray[np.uint8] = codes[:, 0::2] | (codes[:, 1::2] << np.uint8(4))
    return packed.reshape(len(table), -1), scales.reshape(len(table), -1)
