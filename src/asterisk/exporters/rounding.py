"""Symmetric int8, one scale a row: what the int8 recipes of ONNX and TFLite share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LARGEST_INT8 = 127  # symmetric: -128 is not used


def quantise_rows(
    matrix: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 codes [n, d] and float32 scales [n] of a float32 matrix [n, d]."""
    scales = np.abs(matrix).max(1) / np.float32(LARGEST_INT8)
    scales[scales == 0] = 1  # a row of zeros; any scale will do
    rounded = np.rint(matrix / scales[:, None]).clip(-LARGEST_INT8, LARGEST_INT8)
    return rounded.astype(np.int8), scales
