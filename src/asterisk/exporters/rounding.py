"""Symmetric int8, one scale a row: what the int8 recipes of ONNX and TFLite share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LARGEST_INT8 = 127  # symmetric: -128 is not used
_ROWS = 16_384  # at a time, to stay small


def quantise_rows(
    matrix: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 codes [n, d] and float32 scales [n] of a float32 matrix [n, d]."""
    codes = np.empty(matrix.shape, np.int8)
    scales = np.empty(len(matrix), np.float32)
    for start in range(0, len(matrix), _ROWS):
        part = matrix[start : start + _ROWS]
        scale = np.abs(part).max(1) / np.float32(LARGEST_INT8)
        scale[scale == 0] = 1  # a row of zeros; any scale will do
        rounded = np.rint(part / scale[:, None]).clip(-LARGEST_INT8, LARGEST_INT8)
        codes[start : start + _ROWS] = rounded
        scales[start : start + _ROWS] = scale
    return codes, scales
