"""What int8 loses in deep models is in a few channels of the products' inputs. They are found here.

The FP32 encoder runs over sample texts, block after block. Each product is then computed as the
engine will, in int8, with and without two cures from the literature:

- **Smoothing** (SmoothQuant, arXiv:2211.10438): a channel's values are divided by a factor and its
  weights multiplied by it, so that what is large in the input becomes large in the weights, which
  have a scale for each row.
- **Exact channels** (LLM.int8(), arXiv:2208.07339): the few largest channels after the activation,
  the same ones for every text, are multiplied in float32. Only where a whole tensor has one scale;
  a scale a token suffers less than the two more copies would cost.

A cure that is free is taken where it helps: before attention's output the factors are part of the
value's weights, in a pre-norm model of the LayerNorm's, after a ReLU of the product's before it.
Any other costs a node or three, so it is taken where the loss is above an `ALLOWANCE`, which is
smaller the more products there are to add up. A model of two layers as a rule needs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.exporters.forward import Array, Smoothing
from asterisk.exporters.rounding import quantise_rows
from asterisk.model.checkpoint import Checkpoint

ALLOWANCE = 0.05
"""How far all products together may be off, relative to their results, before a cure is bought."""
GAIN = 0.9  # a cure that leaves more of the loss than this is none
STRENGTHS = (0.5, 0.65, 0.8)  # SmoothQuant's alpha: how much of the range goes to the weights
EXACT = 8  # channels
STEPS = 4  # an octave; factors are rounded so that a last bit does not change the file
MOST_TOKENS = 16_384  # of samples
JUDGED = 1_024  # of them, on which losses are measured
PARTS = ("attention", "output", "inner", "outer")


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
) -> list[Smoothing]:
    """Return what to change in each block, or nothing without ``samples`` (token ids of texts).

    ``per_token`` says that an engine rounds activations with a scale for each token; otherwise
    one scale serves a text. Deterministic, on one thread.
    """
    if not samples:
        return []
    config = checkpoint.config
    allowance = ALLOWANCE / np.sqrt(len(PARTS) * max(1, config.num_layers))
    plan = []
    for products in _blocks(checkpoint, _spread(samples, MOST_TOKENS)):
        free = {"attention": config.norm_first, "output": True, "inner": config.norm_first}
        if config.activation == "relu":
            free["outer"] = True
        factors = {
            part: _smoothing(products[part], 0.0 if free[part] else allowance, per_token)
            for part in free
        }
        order, exact = None, 0
        if not per_token:
            order = _exact_last(products["outer"], factors.get("outer"), allowance)
            exact = 0 if order is None else EXACT
        plan.append(Smoothing(**factors, order=order, exact=exact))
    return plan


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


def _smoothing(product: Product, allowance: float, per_token: bool) -> Array | None:
    """Return the factors [in] that lose least, or None where smoothing is not worth its node."""
    without = _loss(product, None, per_token)
    if without <= allowance:
        return None
    tried = [_factors(product, strength) for strength in STRENGTHS]
    losses = [_loss(product, factors, per_token) for factors in tried]
    best = int(np.argmin(losses))
    return tried[best] if losses[best] <= GAIN * without else None


def _factors(product: Product, strength: float) -> Array:
    """Return SmoothQuant's factors, rounded to quarter octaves, their median 1."""
    columns = np.abs(product.weight).max(0)
    given = np.log2(np.maximum(product.largest, np.finfo(np.float32).tiny))
    held = np.log2(np.maximum(columns, np.finfo(np.float32).tiny))
    wanted = strength * given - (1 - strength) * held
    wanted[(product.largest == 0) | (columns == 0)] = np.median(wanted)  # nothing to move
    wanted = np.rint(STEPS * (wanted - np.median(wanted))) / STEPS
    factors: Array = np.exp2(wanted).astype(np.float32)
    return factors


def _exact_last(
    product: Product, factors: Array | None, allowance: float
) -> npt.NDArray[np.intp] | None:
    """Return the order [in] that has the largest channels last, or None if that is no cure."""
    if len(product.largest) <= EXACT:
        return None
    without = _loss(product, factors, False)
    if without <= allowance:
        return None
    largest = product.largest if factors is None else product.largest / factors
    rounded = np.rint(STEPS * np.log2(np.maximum(largest, np.finfo(np.float32).tiny)))
    chosen = np.argsort(-rounded, kind="stable")[:EXACT]
    order = np.concatenate([np.setdiff1d(np.arange(len(largest)), chosen), np.sort(chosen)])
    inputs = [x[:, order] for x in product.inputs]
    left = Product(product.weight[:, order], largest[order], inputs, product.results)
    moved = None if factors is None else factors[order]
    return order if _loss(left, moved, False, EXACT) <= GAIN * without else None


def _loss(product: Product, factors: Array | None, per_token: bool, exact: int = 0) -> float:
    """Return how far the product in int8 is off, relative to the one in float32."""
    inputs, weight = product.inputs, product.weight
    if factors is not None:
        inputs, weight = [x / factors for x in inputs], weight * factors
    narrow = weight.shape[1] - exact
    rounded = np.concatenate([_round(x[:, :narrow], per_token) for x in inputs])
    found = _matmul(rounded, _round_rows(weight[:, :narrow]))
    if exact:
        found += _matmul(np.concatenate([x[:, narrow:] for x in inputs]), weight[:, narrow:])
    right = float(np.square(product.results).sum())
    return float(np.sqrt(np.square(found - product.results).sum() / right)) if right else 0.0


def _matmul(x: Array, weight: Array) -> Array:
    """Return ``x`` [n, in] times ``weight`` [out, in], transposed, on PyTorch's one thread."""
    import torch

    result: Array = (torch.from_numpy(x) @ torch.from_numpy(weight).T).numpy()
    return result


def _round_rows(weight: Array) -> Array:
    codes, scales = quantise_rows(weight)
    return codes * scales[:, None]


def _round(x: Array, per_token: bool) -> Array:
    """Return ``x`` [tokens, in] as its 8 unsigned bits give it back: asymmetric, 0 exact."""
    axis = 1 if per_token else None
    low = np.minimum(x.min(axis, keepdims=True), 0)
    scale = (np.maximum(x.max(axis, keepdims=True), 0) - low) / 255
    scale[scale == 0] = 1
    zero = np.rint(-low / scale)
    rounded: Array = ((np.rint(x / scale) + zero).clip(0, 255) - zero) * scale
    return rounded
