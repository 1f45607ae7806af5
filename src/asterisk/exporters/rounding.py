"""How weights are rounded: int8 by row, NF4, and the calibration that keeps int8's losses small.

What int8 loses in deep models is in a few channels of the products' inputs. Calibration runs the
FP32 encoder over sample texts, block after block. It computes each product as the engine will, in
int8, with and without two methods from the literature:

- **Smoothing** (SmoothQuant, arXiv:2211.10438): a channel's values are divided by a factor and its
  weights multiplied by it, so that what is large in the input becomes large in the weights, which
  have a scale for each row.
- **Exact channels** (LLM.int8(), arXiv:2208.07339): a few channels, the largest ones of every text,
  are multiplied in float32.

Smoothing that is free is taken where it helps: before attention's output the factors are part of
the value's weights, in a pre-norm model of the LayerNorm's, after a ReLU of the product's before
it. Anything else costs operators, so it is taken where a product loses more than it may. What all
products lose adds up from layer to layer: the deeper a model, the less one may lose. Two layers as
a rule need no method or one, six need the cheap ones, twelve need more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import UsageError
from asterisk.exporters import Samples
from asterisk.exporters.forward import PLAIN, Array, BlockCalibration, Calibration
from asterisk.model.checkpoint import Checkpoint

LARGEST_INT8 = 127  # symmetric: -128 is not used
NF4_BLOCK = 32  # values that share a scale
_TAIL = 0.9677083  # the paper's outermost quantile: halfway to the edge of the last of 15 or 16
_SHARES = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05)  # of a block's largest value, tried as its scale

# What a product may lose, times the layers, before operators are spent on it: one for smoothing,
# two or three for exact channels. These help less, and cost as much, with a scale a token.
SMOOTHING = 0.05
EXACT_CHANNELS = {"a text": 0.13, "a token": 0.26}
MOST = 0.05  # however few layers
GAIN = 0.9  # a method that leaves more of the loss than this is not worth it
STRENGTHS = (0.4, 0.5, 0.65, 0.8)  # SmoothQuant's alpha: how much of the range weights take
CLOSE = 1.02  # of two strengths that lose about the same, the smaller one changes less
EXACT = 8  # channels
STEPS = 4  # an octave; factors are rounded so that a last bit does not change the file
MOST_TOKENS = 16_384  # of samples
JUDGED = 1_024  # of them, on which losses are measured
TINY = np.finfo(np.float32).tiny


def quantise_rows(matrix: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """Return symmetric int8 codes [n, d] and float32 scales [n] of a float32 matrix [n, d]."""
    codes, scales = np.empty(matrix.shape, np.int8), np.empty(len(matrix), np.float32)
    for rows in _chunks(matrix, 16_384):
        part = matrix[rows]
        scale = np.abs(part).max(1) / np.float32(LARGEST_INT8)
        scale[scale == 0] = 1  # a row of zeros; any scale will do
        codes[rows] = np.rint(part / scale[:, None]).clip(-LARGEST_INT8, LARGEST_INT8)
        scales[rows] = scale
    return codes, scales


def nf4_levels() -> Array:
    """Return NF4's sixteen levels, ascending from -1 to 1, float32; the eighth is 0.

    Quantiles of a normal distribution (QLoRA, arXiv:2305.14314, section 3 and appendix E), to which
    a token table's values are close: a quarter less squared error than by even steps.
    """
    below = [NormalDist().inv_cdf(1 - p) for p in np.linspace(_TAIL, 0.5, 8)[:-1]]
    above = [NormalDist().inv_cdf(p) for p in np.linspace(_TAIL, 0.5, 9)[:-1]]
    return np.array(sorted([*below, 0.0, *above]) / np.max(above), np.float32)


def nf4_pairs() -> Array:
    """Return both values of every byte, float32 [256, 2]: the low half's, then the high half's."""
    byte = np.arange(256)
    return np.stack([nf4_levels()[byte & 15], nf4_levels()[byte >> 4]], axis=1)


def quantise_nf4(table: Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Return bytes [n, d / 2] and scales [n, d / 32] of a float32 table [n, d].

    Each scale is the one of a few that leaves the smallest squared error: the largest value of a
    block is worth less than the other 31. UsageError if d is not a multiple of 32.
    """
    width = table.shape[1]
    if width % NF4_BLOCK:
        raise UsageError(
            f"a table {width} wide has no whole blocks of {NF4_BLOCK}; use recipe int8"
        )
    levels = nf4_levels()
    edges = (levels[1:] + levels[:-1]) / 2
    packed = np.empty((len(table), width // 2), np.uint8)
    all_scales = np.empty((len(table), width // NF4_BLOCK), np.float16)
    for rows in _chunks(table, 4_096):
        blocks = table[rows].reshape(-1, NF4_BLOCK)
        largest = np.abs(blocks).max(1, keepdims=True)
        least = np.full(len(blocks), np.inf, np.float32)
        codes = np.zeros(blocks.shape, np.uint8)
        scales = np.zeros((len(blocks), 1), np.float16)
        for share in _SHARES:
            # Rounded first: what a device multiplies by is what the codes should fit.
            scale = (largest * np.float32(share)).clip(max=np.finfo(np.float16).max)
            scale = scale.astype(np.float16)
            wide = scale.astype(np.float32)
            found = np.searchsorted(edges, blocks / np.where(wide, wide, 1)).astype(np.uint8)
            error = np.square(levels[found] * wide - blocks).sum(1)
            better = error < least
            least[better], codes[better] = error[better], found[better]
            scales[better] = scale[better]
        packed[rows] = (codes[:, 0::2] | (codes[:, 1::2] << np.uint8(4))).reshape(-1, width // 2)
        all_scales[rows] = scales.reshape(-1, width // NF4_BLOCK)
    return packed, all_scales


def _chunks(matrix: Array, size: int) -> Iterator[slice]:
    """Yield slices of so many rows, for intermediate results that stay small."""
    return (slice(start, start + size) for start in range(0, len(matrix), size))


@dataclass(frozen=True, slots=True)
class Product:
    """One product of a block, as the samples meet it."""

    weight: Array  # [out, in]
    largest: Array  # magnitude in each channel of its input
    inputs: Sequence[Array]  # of some texts, [tokens, in] each
    results: Array  # those times the weight, one after another
    per_token: bool  # a scale for each token rather than for each text

    def smoothed(self, exact: npt.NDArray[np.intp], limit: float) -> Calibration:
        """Return the factors that lose least, if the product loses more than ``limit`` without."""
        plain = Calibration(exact=exact)
        loss = self.loss(plain)
        if loss <= limit:
            return plain
        tried = [replace(plain, factors=self.factors(exact, each)) for each in STRENGTHS]
        losses = [self.loss(each) for each in tried]
        best = next(index for index, each in enumerate(losses) if each <= CLOSE * min(losses))
        return tried[best] if losses[best] <= GAIN * loss else plain

    def with_exact(self, current: Calibration, limit: float, *, smooth: bool) -> Calibration:
        """Return one with the largest channels exact, if ``current`` loses more than ``limit``."""
        loss = self.loss(current)
        if loss <= limit or len(self.largest) <= EXACT:
            return current
        octaves = np.rint(STEPS * np.log2(np.maximum(self.largest, TINY)))
        channels = np.sort(np.argsort(-octaves, kind="stable")[:EXACT])
        exact = self.smoothed(channels, 0.0) if smooth else Calibration(exact=channels)
        return exact if self.loss(exact) <= GAIN * loss else current

    def factors(self, exact: npt.NDArray[np.intp], strength: float) -> Array:
        """Return SmoothQuant's factors, rounded to quarter octaves, their median 1."""
        columns = np.abs(self.weight).max(0)
        inputs, weights = np.log2(np.maximum([self.largest, columns], TINY))
        octaves = strength * inputs - (1 - strength) * weights
        fixed = (self.largest == 0) | (columns == 0)  # nothing to move
        fixed[exact] = True
        octaves[fixed] = np.median(octaves)
        octaves = np.rint(STEPS * (octaves - np.median(octaves))) / STEPS
        # In doubles, whose last bit is another on other machines, but not the float32 of it.
        factors: Array = np.exp2(octaves.astype(np.float64)).astype(np.float32)
        return factors

    def loss(self, calibration: Calibration) -> float:
        """Return how far a token's int8 result is off, relative to its length: root mean square."""
        inputs, weight, exact = self.inputs, self.weight, calibration.exact
        if calibration.factors is not None:
            inputs = [x / calibration.factors for x in inputs]
            weight = weight * calibration.factors
        large, wide = np.concatenate(inputs)[:, exact], weight[:, exact]
        if len(exact):
            inputs, weight = [x.copy() for x in inputs], weight.copy()
            for each in (*inputs, weight):
                each[:, exact] = 0
        codes, scales = quantise_rows(weight)
        rounded = np.concatenate([_round_activations(x, self.per_token) for x in inputs])
        found = _matmul(rounded, codes * scales[:, None])
        if len(exact):
            found += _matmul(large, wide)
        right = np.square(self.results).sum(1)
        wrong = np.square(found - self.results).sum(1)
        return float(np.sqrt((wrong / np.maximum(right, TINY)).mean()))


def calibrate(
    checkpoint: Checkpoint, samples: Samples, *, per_token: bool
) -> list[BlockCalibration]:
    """Return the calibration of each block, or nothing without ``samples`` (token ids of texts).

    The engine rounds activations with a scale for each token if ``per_token``, or for each text.
    """
    return calibrate_with_scores(checkpoint, samples, per_token=per_token)[0]


def calibrate_with_scores(
    checkpoint: Checkpoint, samples: Samples, *, per_token: bool
) -> tuple[list[BlockCalibration], list[float]]:
    """Return `calibrate`'s result and that of `largest_scores`, by one run of the encoder."""
    config = checkpoint.config
    layers = max(1, config.num_layers)
    free = {"output"}
    free |= {"attention", "inner"} if config.norm_first else set()
    free |= {"outer"} if config.activation == "relu" else set()
    # One scale a text suffers from large channels everywhere, a scale a token after the activation.
    exact = {"outer"} if per_token else {"attention", "inner", "outer"}
    most = min(MOST, EXACT_CHANNELS["a token" if per_token else "a text"] / layers)
    blocks: list[BlockCalibration] = []
    scores = []
    tokens, scored = _spread(samples, MOST_TOKENS), _spread(samples, MOST_TOKENS // 4)
    for products, score in _blocks(checkpoint, tokens, scored, per_token):
        block = {}
        for part, product in products.items():
            smooth = part in free or part != "outer"
            limit = 0.0 if part in free else SMOOTHING / layers
            found = product.smoothed(PLAIN.exact, limit) if smooth else PLAIN
            if part in exact:
                found = product.with_exact(found, most, smooth=smooth)
            block[part] = found
        blocks.append(block)
        scores.append(score)
    return blocks, scores


def largest_scores(checkpoint: Checkpoint, samples: Samples) -> list[float]:
    """Return the largest magnitude among each block's attention scores, if there are samples."""
    some = _spread(samples, MOST_TOKENS // 4)
    return [score for _, score in _blocks(checkpoint, some, some, per_token=True)]


def _spread(samples: Samples, most: int) -> list[Sequence[int]]:
    """Return samples from all over the list, of ``most`` tokens together, the longest one aside."""
    total = sum(map(len, samples))
    return list(samples[:: max(1, -(-total // most))])


def _blocks(
    checkpoint: Checkpoint, samples: Samples, scored: Samples, per_token: bool
) -> Iterator[tuple[dict[str, Product], float]]:
    """Yield each block's products on the samples, and the largest attention score on ``scored``."""
    if not samples:
        return
    import torch

    from asterisk.runtimes.torch import TorchEngine

    judged = set(map(id, _spread(samples, JUDGED)))
    with_scores = set(map(id, scored))
    heads, size = checkpoint.config.num_heads, checkpoint.config.head_size
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        stack.enter_context(torch.inference_mode())
        encoder = TorchEngine(checkpoint).encoder
        states = [encoder.embeddings(torch.tensor([list(ids)])) for ids in samples]
        for block in encoder.blocks:
            attend = block.attention.self
            linears = {
                "attention": (attend.query, attend.key, attend.value),
                "output": (block.attention.output.dense,),
                "inner": (block.intermediate.dense,),
                "outer": (block.output.dense,),
            }
            seen: dict[Any, Any] = {}  # each matrix's input and result, one after another

            def see(linear: Any, x: Any, y: Any, seen: dict[Any, Any] = seen) -> None:
                seen[linear] = x[0][0], y[0]

            for linear in (attend.key, *(first for first, *_ in linears.values())):
                linear.register_forward_hook(see)
            largest: dict[str, Array] = {}
            inputs: dict[str, list[Array]] = {part: [] for part in linears}
            score = 0.0
            for index, ids in enumerate(samples):
                states[index] = block(states[index])
                for part, (linear, *_) in linears.items():
                    values = seen[linear][0].numpy()
                    most = np.abs(values).max(0)
                    largest[part] = np.maximum(largest.get(part, most), most)
                    if id(ids) in judged:
                        inputs[part].append(values)
                if id(ids) in with_scores:
                    results = (seen[linear][1] for linear in (attend.query, attend.key))
                    query, key = (it.view(-1, heads, size).transpose(0, 1) for it in results)
                    found = float((query @ key.transpose(1, 2)).abs().max()) * size**-0.5
                    score = max(score, found)
            seen.clear()  # the hooks hold it
            products = {}
            for part, joined in linears.items():
                weight = np.concatenate([linear.weight.numpy() for linear in joined])
                right = _matmul(np.concatenate(inputs[part]), weight)
                products[part] = Product(weight, largest[part], inputs[part], right, per_token)
            yield products, score


def _matmul(x: Array, weight: Array) -> Array:
    """Return ``x`` [n, in] times ``weight`` [out, in], transposed, on PyTorch's one thread."""
    import torch

    result: Array = (torch.from_numpy(x) @ torch.from_numpy(weight).T).numpy()
    return result


def _round_activations(x: Array, per_token: bool) -> Array:
    """Return ``x`` [tokens, in] as its 8 unsigned bits give it back: asymmetric, 0 exact."""
    axis = 1 if per_token else None
    low = np.minimum(x.min(axis, keepdims=True), 0)
    scale = (np.maximum(x.max(axis, keepdims=True), 0) - low) / 255
    scale[scale == 0] = 1
    zero = np.rint(-low / scale)
    rounded: Array = ((np.rint(x / scale) + zero).clip(0, 255) - zero) * scale
    return rounded
