"""What int8 loses in deep models is in a few channels of the products' inputs. They are found here.

The FP32 encoder runs over sample texts, block after block. Each product is then computed as the
engine will, in int8, with and without two cures from the literature:

- **Smoothing** (SmoothQuant, arXiv:2211.10438): a channel's values are divided by a factor and its
  weights multiplied by it, so that what is large in the input becomes large in the weights, which
  have a scale for each row.
- **Exact channels** (LLM.int8(), arXiv:2208.07339): a few channels, the largest ones of every text,
  are multiplied in float32.

Smoothing that is free is taken where it helps: before attention's output the factors are part of
the value's weights, in a pre-norm model of the LayerNorm's, after a ReLU of the product's before
it. Anything else costs operators, so it is taken where a product loses more than it may. What all
products lose adds up from layer to layer: the deeper a model, the less one may lose. Two layers as
a rule need none or one cure, six need the cheap ones, twelve need more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.exporters.forward import PARTS, PLAIN, Array, Cure, Cures
from asterisk.exporters.rounding import quantise_rows
from asterisk.model.checkpoint import Checkpoint

# What a product may lose, times the layers, before operators are spent on it: one for smoothing,
# two or three for exact channels. These help less, and cost as much, with a scale a token.
SMOOTHING = 0.05
EXACT_CHANNELS = {"a text": 0.13, "a token": 0.26}
MOST = 0.05  # however few layers
GAIN = 0.9  # a cure that leaves more of the loss than this is none
STRENGTHS = (0.4, 0.5, 0.65, 0.8)  # SmoothQuant's alpha: how much of the range weights take
CLOSE = 1.02  # of two strengths that lose about the same, the smaller one changes less
EXACT = 8  # channels
STEPS = 4  # an octave; factors are rounded so that a last bit does not change the file
MOST_TOKENS = 16_384  # of samples
JUDGED = 1_024  # of them, on which losses are measured
TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True, slots=True)
class Product:
    """One product of a block, as the samples meet it.

    ``weight`` is [out, in], ``largest`` the largest magnitude in each channel of its input,
    ``inputs`` the inputs of some texts, [tokens, in] each, and ``results`` those times the weight,
    one after another.
    """

    weight: Array
    largest: Array
    inputs: Sequence[Array]
    results: Array


def calibrate(
    checkpoint: Checkpoint, samples: Sequence[Sequence[int]], *, per_token: bool
) -> list[Cures]:
    """Return the cures of each block, or nothing without ``samples`` (token ids of texts).

    ``per_token`` says that an engine rounds activations with a scale for each token; otherwise
    one scale serves a text. Deterministic, on one thread.
    """
    if not samples:
        return []
    config = checkpoint.config
    layers = max(1, config.num_layers)
    free = {"output"}
    if config.norm_first:
        free |= {"attention", "inner"}
    if config.activation == "relu":
        free.add("outer")
    # One scale a text suffers from large channels everywhere, a scale a token after the activation.
    exact = {"outer"} if per_token else {"attention", "inner", "outer"}
    most = min(MOST, EXACT_CHANNELS["a token" if per_token else "a text"] / layers)
    plan: list[Cures] = []
    for products in _blocks(checkpoint, _spread(samples, MOST_TOKENS)):
        cures = {}
        for part, product in products.items():
            cure, smooth = PLAIN, part in free or part != "outer"
            if smooth:
                limit = 0.0 if part in free else SMOOTHING / layers
                cure = _smoothed(product, cure, limit, per_token)
            if part in exact:
                cure = _with_exact(product, cure, most, per_token, smooth)
            cures[part] = cure
        plan.append(cures)
    return plan


def largest_scores(checkpoint: Checkpoint, samples: Sequence[Sequence[int]]) -> list[float]:
    """Return the largest magnitude among each block's attention scores on ``samples``.

    Nothing without samples.
    """
    if not samples:
        return []
    import torch

    from asterisk.runtimes.torch import TorchEngine

    encoder = TorchEngine(checkpoint).encoder
    largest = [0.0] * checkpoint.config.num_layers
    heads, size = checkpoint.config.num_heads, checkpoint.config.head_size
    with torch.inference_mode():
        for ids in _spread(samples, MOST_TOKENS // 4):
            x = encoder.embeddings(torch.tensor([list(ids)]))
            for index, block in enumerate(encoder.blocks):
                attend = block.attention.self
                given = block.attention.output.LayerNorm(x) if block.norm_first else x
                query, key = (
                    each(given)[0].view(-1, heads, size).transpose(0, 1)
                    for each in (attend.query, attend.key)
                )
                scores = query @ key.transpose(1, 2)
                found = float(scores.abs().max()) * size**-0.5
                largest[index] = max(largest[index], found)
                x = block(x)
    return largest


def _spread(samples: Sequence[Sequence[int]], most: int) -> list[Sequence[int]]:
    """Return samples from all over the list, of ``most`` tokens together, the longest one aside."""
    total = sum(map(len, samples))
    return list(samples[:: -(-total // most)])


def _blocks(
    checkpoint: Checkpoint, samples: Sequence[Sequence[int]]
) -> Iterator[dict[str, Product]]:
    """Run the samples through one block after another and yield each block's products."""
    import torch

    from asterisk.runtimes.torch import TorchEngine

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encoder = TorchEngine(checkpoint).encoder
        judged = set(map(id, _spread(samples, JUDGED)))
        with torch.inference_mode():
            states = [encoder.embeddings(torch.tensor([list(ids)])) for ids in samples]
            for block in encoder.blocks:
                attend = block.attention.self
                linears = {
                    "attention": (attend.query, attend.key, attend.value),
                    "output": (block.attention.output.dense,),
                    "inner": (block.intermediate.dense,),
                    "outer": (block.output.dense,),
                }
                seen: dict[str, Array] = {}
                handles = [
                    linear[0].register_forward_pre_hook(partial(_see, seen, part))
                    for part, linear in linears.items()
                ]
                largest: dict[str, Array] = {}
                inputs: dict[str, list[Array]] = {part: [] for part in PARTS}
                for index, ids in enumerate(samples):
                    states[index] = block(states[index])
                    for part, values in seen.items():
                        most = np.abs(values).max(0)
                        largest[part] = np.maximum(largest.get(part, most), most)
                        if id(ids) in judged:
                            inputs[part].append(values)
                for handle in handles:
                    handle.remove()
                products = {}
                for part, joined in linears.items():
                    weight = np.concatenate([linear.weight.numpy() for linear in joined])
                    results = _matmul(np.concatenate(inputs[part]), weight)
                    products[part] = Product(weight, largest[part], inputs[part], results)
                yield products
    finally:
        torch.set_num_threads(threads)


def _see(seen: dict[str, Array], part: str, _: Any, given: Any) -> None:
    seen[part] = given[0][0].numpy()


def _smoothed(product: Product, cure: Cure, limit: float, per_token: bool) -> Cure:
    """Return ``cure`` with the factors that lose least, if it loses more than ``limit``."""
    without = _loss(product, cure, per_token)
    if without <= limit:
        return cure
    tried = [replace(cure, factors=_factors(product, cure.exact, each)) for each in STRENGTHS]
    losses = [_loss(product, each, per_token) for each in tried]
    best = next(index for index, loss in enumerate(losses) if loss <= CLOSE * min(losses))
    return tried[best] if losses[best] <= GAIN * without else cure


def _with_exact(product: Product, cure: Cure, limit: float, per_token: bool, smooth: bool) -> Cure:
    """Return ``cure`` with the largest channels exact, if it loses more than ``limit``.

    The others are smoothed anew if ``smooth``.
    """
    without = _loss(product, cure, per_token)
    if without <= limit or len(product.largest) <= EXACT:
        return cure
    rounded = np.rint(STEPS * np.log2(np.maximum(product.largest, TINY)))
    exact = Cure(exact=np.sort(np.argsort(-rounded, kind="stable")[:EXACT]))
    if smooth:
        exact = _smoothed(product, exact, 0.0, per_token)
    return exact if _loss(product, exact, per_token) <= GAIN * without else cure


def _factors(product: Product, exact: npt.NDArray[np.intp], strength: float) -> Array:
    """Return SmoothQuant's factors, rounded to quarter octaves, their median 1."""
    columns = np.abs(product.weight).max(0)
    given, held = np.log2(np.maximum([product.largest, columns], TINY))
    wanted = strength * given - (1 - strength) * held
    still = (product.largest == 0) | (columns == 0)  # nothing to move
    still[exact] = True
    wanted[still] = np.median(wanted)
    wanted = np.rint(STEPS * (wanted - np.median(wanted))) / STEPS
    # In doubles, whose last bit is another on other machines, but not the float32 they round to.
    factors: Array = np.exp2(wanted.astype(np.float64)).astype(np.float32)
    return factors


def _loss(product: Product, cure: Cure, per_token: bool) -> float:
    """Return how far a token's result in int8 is off, relative to its length: root mean square."""
    inputs, weight = product.inputs, product.weight
    if cure.factors is not None:
        inputs, weight = [x / cure.factors for x in inputs], weight * cure.factors
    x, exact = np.concatenate(inputs), cure.exact
    if len(exact):
        wide, weight = weight[:, exact], weight.copy()
        weight[:, exact] = 0
        inputs = [_without(each, exact) for each in inputs]
    codes, scales = quantise_rows(weight)
    rounded = np.concatenate([_round(each, per_token) for each in inputs])
    found = _matmul(rounded, codes * scales[:, None])
    if len(exact):
        found += _matmul(x[:, exact], wide)
    right = np.square(product.results).sum(1)
    wrong = np.square(found - product.results).sum(1)
    return float(np.sqrt((wrong / np.maximum(right, TINY)).mean()))


def _without(x: Array, channels: npt.NDArray[np.intp]) -> Array:
    x = x.copy()
    x[:, channels] = 0
    return x


def _matmul(x: Array, weight: Array) -> Array:
    """Return ``x`` [n, in] times ``weight`` [out, in], transposed, on PyTorch's one thread."""
    import torch

    result: Array = (torch.from_numpy(x) @ torch.from_numpy(weight).T).numpy()
    return result


def _round(x: Array, per_token: bool) -> Array:
    """Return ``x`` [tokens, in] as its 8 unsigned bits give it back: asymmetric, 0 exact."""
    axis = 1 if per_token else None
    low = np.minimum(x.min(axis, keepdims=True), 0)
    scale = (np.maximum(x.max(axis, keepdims=True), 0) - low) / 255
    scale[scale == 0] = 1
    zero = np.rint(-low / scale)
    rounded: Array = ((np.rint(x / scale) + zero).clip(0, 255) - zero) * scale
    return rounded
