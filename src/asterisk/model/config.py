"""What a model is: its shape, its pooling, its tensors, its prompts, and its form for llama.cpp."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from asterisk.common.errors import ArtifactError, UsageError

LIMITS = {
    "vocab_size": 1 << 20,
    "hidden_size": 4_096,
    "num_layers": 48,
    "num_heads": 64,
    "intermediate_size": 16_384,
    "max_positions": 8_192,
    "max_seq_length": 8_192,
}
ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens")  # sentence-transformers' names
FINGERPRINT = re.compile(r"[0-9a-f]{64}")  # the name of an embedding space
ROLES: Mapping[str, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),  # sentence-transformers' order
    "passage": ("passage", "document", "corpus"),
}
"""What a text is embedded as, and the names of the prompts for it, the first that exists."""
LLAMA_POOLING = {"mean": 1, "mean_sqrt_len_tokens": 1, "cls": 2, "max": 0}
"""llama_pooling_type. The root of the length is a factor on the mean; llama.cpp has no maximum, so
it puts out every token's vector."""
_SPARE = 32  # channels that a gpt2 has more than the model: at least one block of Q8_0


def check(sound: object, message: str) -> None:
    """Raise ArtifactError with ``message`` unless something is ``sound``."""
    if not sound:
        raise ArtifactError(message)


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear map after pooling, with its activation (sentence-transformers' ``Dense``)."""

    out_features: int
    activation: str = "identity"
    bias: bool = True

    def __post_init__(self) -> None:
        check(_is_count(self.out_features, 16_384), "Dense: out_features must be 1 to 16,384")
        activations = ("identity", "tanh")
        check(self.activation in activations, "Dense: activation must be one of identity, tanh")
        check(isinstance(self.bias, bool), "Dense: bias must be true or false")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    r"""A bidirectional transformer encoder, its pooling, and the maps after it.

    The defaults are ``asterisk-256``: the shape of *Asterisk\*: Keep it Simple*
    (arXiv 2411.05691, section 3) in BERT's post-norm form. ``norm_first`` without an
    ``embedding_norm`` is the shape of the original `asterisk-embedding-model`.
    """

    vocab_size: int = 50_259
    hidden_size: int = 256
    num_layers: int = 2
    num_heads: int = 2
    intermediate_size: int = 1_024
    max_positions: int = 512
    max_seq_length: int = 0  # tokens of a text, special ones included; 0 is `max_positions`
    layer_norm_eps: float = 1e-12
    norm_first: bool = False
    embedding_norm: bool = True
    activation: str = "gelu"
    pooling: str = "mean"
    dense: tuple[Dense, ...] = ()
    normalize: bool = True  # whether an embedding is made unit length

    def __post_init__(self) -> None:
        if self.max_seq_length == 0:
            object.__setattr__(self, "max_seq_length", self.max_positions)

        def check_field(sound: bool, message: str) -> None:
            check(sound, f"model configuration: {message}")

        for name, most in LIMITS.items():
            value, least = getattr(self, name), 0 if name == "num_layers" else 1
            stated = f"{name} must be {least} to {most}, not {value!r}"
            check_field(_is_count(value, most, least), stated)
        for name in ("norm_first", "embedding_norm", "normalize"):
            check_field(isinstance(getattr(self, name), bool), f"{name} must be true or false")
        for name, choices in (("activation", ACTIVATIONS), ("pooling", POOLINGS)):
            value, listed = getattr(self, name), ", ".join(choices)
            check_field(value in choices, f"{name} {value!r} is not supported; there are: {listed}")
        length, positions, eps = self.max_seq_length, self.max_positions, self.layer_norm_eps
        stated = f"max_seq_length {length} is more than the {positions} positions of the model"
        check_field(length <= positions, stated)
        divides = self.hidden_size % self.num_heads == 0
        check_field(divides, "hidden_size must be a multiple of num_heads")
        inside = isinstance(eps, float) and 0 < eps < 1
        check_field(inside, "layer_norm_eps must lie between 0 and 1")
        check_field(len(self.dense) <= 8, "more than 8 Dense modules")

    @property
    def embedding_size(self) -> int:
        """Elements of an embedding."""
        return self.dense[-1].out_features if self.dense else self.hidden_size

    @property
    def bert_shaped(self) -> bool:
        """Whether the blocks are those of Hugging Face's BertModel."""
        return self.embedding_norm and not self.norm_first

    @property
    def head_size(self) -> int:
        """Elements of one attention head's query, key and value."""
        return self.hidden_size // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        values = asdict(self)
        values["dense"] = list(values["dense"])
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build from plain JSON values; ArtifactError for fields that do not belong or lack."""
        names, dense_names = ({field.name for field in fields(it)} for it in (cls, Dense))
        if not isinstance(values, dict) or set(values) != names:
            raise ArtifactError("model configuration: wrong fields")
        dense = values["dense"]
        sound = isinstance(dense, list) and all(
            isinstance(one, dict) and set(one) == dense_names for one in dense
        )
        check(sound, "model configuration: dense is malformed")
        return cls(**{**values, "dense": tuple(Dense(**one) for one in dense)})


def _is_count(value: object, most: int, least: int = 1) -> bool:
    return type(value) is int and least <= value <= most


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return each tensor's name and shape in the forward pass's order; matrices ``[out, in]``."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_positions, hidden),
        "embeddings.token_type_embeddings.weight": (1, hidden),  # that of a single text
    }

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (hidden,)

    def linear(name: str, out: int, inputs: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, inputs)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    if config.embedding_norm:
        norm("embeddings.LayerNorm")
    for index in range(config.num_layers):
        block = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            linear(f"{block}.attention.self.{part}", hidden, hidden)
        linear(f"{block}.attention.output.dense", hidden, hidden)
        norm(f"{block}.attention.output.LayerNorm")
        linear(f"{block}.intermediate.dense", inner, hidden)
        linear(f"{block}.output.dense", hidden, inner)
        norm(f"{block}.output.LayerNorm")
    width = hidden
    for index, dense in enumerate(config.dense):
        linear(f"dense.{index}", dense.out_features, width, dense.bias)
        width = dense.out_features
    return shapes


def prompt_name_of(role: str, prompts: Iterable[str]) -> str | None:
    """Return the name of the prompt for ``role``, the first that there is; None without any."""
    names = set(prompts)
    return next((name for name in ROLES[role] if name in names), None)


def check_prompt_name(name: str | None, prompts: Iterable[str]) -> None:
    """Raise UsageError for a name that is none of ``prompts``."""
    names = list(prompts)
    if name is not None and name not in names:
        listed = ", ".join(map(repr, names)) or "none"
        raise UsageError(f"the model has no prompt {name!r}; there are: {listed}")


class LlamaShape(NamedTuple):  # half a millisecond quicker to import than a dataclass
    """A model as llama.cpp counts it; sizes are counts of elements."""

    architecture: str
    width: int
    blocks: int
    inner: int
    heads: int
    epsilon: float
    pooling: int  # llama_pooling_type
    dense_outside: bool  # the maps after pooling are not in the model's file


def llama_shape(config: ModelConfig) -> LlamaShape | None:
    """Return the shape of ``config`` in a GGUF file, or None if llama.cpp has none for it.

    BERT is in the file as it is, up to its pooling. A pre-norm encoder without a final norm, with
    the mean and at most one linear map behind it, becomes a wider ``gpt2`` of one block more: see
    `asterisk.exporters.gpt2_rewrite`.
    """
    hidden, heads = config.hidden_size, config.num_heads
    bert = LlamaShape(
        *("bert", hidden, config.num_layers, config.intermediate_size, heads),
        *(config.layer_norm_eps, LLAMA_POOLING[config.pooling], bool(config.dense)),
    )
    if not config.num_layers or config.bert_shaped:
        return bert if config.num_layers else None
    linear = [dense.activation for dense in config.dense] in ([], ["identity"])
    fits = linear and config.pooling == "mean" and config.embedding_size <= hidden
    if config.embedding_norm or not config.norm_first or not fits:
        return None
    step = math.lcm(_SPARE, heads)
    width = -(-(hidden + _SPARE) // step) * step
    return bert._replace(
        architecture="gpt2",
        width=width,
        blocks=config.num_layers + 1,
        epsilon=config.layer_norm_eps * hidden / width,
        dense_outside=False,
    )
