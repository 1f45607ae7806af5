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
DENSE_ACTIVATIONS = ("identity", "tanh")
MOST_DENSE = 8
FINGERPRINT = re.compile(r"[0-9a-f]{64}")  # the name of an embedding space
MOST_FEATURES = 16_384
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


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear map after pooling, with its activation (sentence-transformers' ``Dense``)."""

    out_features: int
    activation: str = "identity"
    bias: bool = True

    def __post_init__(self) -> None:
        if not _is_count(self.out_features, MOST_FEATURES):
            raise ArtifactError(f"Dense: out_features must be 1 to {MOST_FEATURES:,}")
        if self.activation not in DENSE_ACTIVATIONS:
            raise ArtifactError(f"Dense: activation must be one of {', '.join(DENSE_ACTIVATIONS)}")
        if not isinstance(self.bias, bool):
            raise ArtifactError("Dense: bias must be true or false")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    r"""A bidirectional transformer encoder, its pooling, and the maps after it.

    The defaults are ``asterisk-256``: the shape of *Asterisk\*: Keep it Simple*
    (arXiv 2411.05691, section 3) in BERT's post-norm form, which `transformers`,
    sentence-transformers and llama.cpp load unchanged. ``norm_first`` without an
    ``embedding_norm`` is the shape of the original `asterisk-embedding-model`.

    Sizes are counts of elements. ``max_seq_length`` is the most tokens of a text, special ones
    included; 0 means all ``max_positions`` of the position table. ``normalize`` says whether an
    embedding is made unit length.
    """

    vocab_size: int = 50_259
    hidden_size: int = 256
    num_layers: int = 2
    num_heads: int = 2
    intermediate_size: int = 1_024
    max_positions: int = 512
    max_seq_length: int = 0
    layer_norm_eps: float = 1e-12
    norm_first: bool = False
    embedding_norm: bool = True
    activation: str = "gelu"
    pooling: str = "mean"
    dense: tuple[Dense, ...] = ()
    normalize: bool = True

    def __post_init__(self) -> None:
        if self.max_seq_length == 0:
            object.__setattr__(self, "max_seq_length", self.max_positions)

        def check(sound: bool, message: str) -> None:
            if not sound:
                raise ArtifactError(f"model configuration: {message}")

        for name, most in LIMITS.items():
            value, least = getattr(self, name), 0 if name == "num_layers" else 1
            check(_is_count(value, most, least), f"{name} must be {least} to {most}, not {value!r}")
        for name in ("norm_first", "embedding_norm", "normalize"):
            check(isinstance(getattr(self, name), bool), f"{name} must be true or false")
        for name, choices in (("activation", ACTIVATIONS), ("pooling", POOLINGS)):
            value, listed = getattr(self, name), ", ".join(choices)
            check(value in choices, f"{name} {value!r} is not supported; there are: {listed}")
        check(
            self.max_seq_length <= self.max_positions,
            f"max_seq_length {self.max_seq_length} is more than the {self.max_positions} positions "
            "of the model",
        )
        check(self.hidden_size % self.num_heads == 0, "hidden_size must be a multiple of num_heads")
        check(
            isinstance(self.layer_norm_eps, float) and 0 < self.layer_norm_eps < 1,
            "layer_norm_eps must lie between 0 and 1",
        )
        check(len(self.dense) <= MOST_DENSE, f"more than {MOST_DENSE} Dense modules")

    @property
    def embedding_size(self) -> int:
        """Elements of one embedding vector."""
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
        if not isinstance(values, dict) or set(values) != {field.name for field in fields(cls)}:
            raise ArtifactError("model configuration: wrong fields")
        dense = values["dense"]
        names = {field.name for field in fields(Dense)}
        if not isinstance(dense, list) or not all(
            isinstance(one, dict) and set(one) == names for one in dense
        ):
            raise ArtifactError("model configuration: dense is malformed")
        return cls(**{**values, "dense": tuple(Dense(**one) for one in dense)})


def _is_count(value: object, most: int, least: int = 1) -> bool:
    return type(value) is int and least <= value <= most


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor's name and shape, in the order the forward pass meets them.

    Matrices are ``[out, in]``, as PyTorch's. There is one token type, the one of a single text.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_positions, hidden),
        "embeddings.token_type_embeddings.weight": (1, hidden),
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
    """A model as llama.cpp counts it; sizes are counts of elements.

    ``pooling`` is its ``llama_pooling_type``. ``dense_outside`` says that the maps after pooling
    are not in the model's file.
    """

    architecture: str
    width: int
    blocks: int
    inner: int
    heads: int
    epsilon: float
    pooling: int
    dense_outside: bool


def llama_shape(config: ModelConfig) -> LlamaShape | None:
    """Return the shape of ``config`` in a GGUF file, or None if llama.cpp has none for it.

    BERT is in the file as it is, up to its pooling. A pre-norm encoder without a final norm, with
    the mean and at most one linear map behind it, becomes a wider ``gpt2`` of one block more: see
    `asterisk.exporters.gpt2_rewrite`.
    """
    hidden, heads = config.hidden_size, config.num_heads
    linear = [dense.activation for dense in config.dense] in ([], ["identity"])
    if not config.num_layers:
        return None
    if config.bert_shaped:
        architecture, width, blocks = "bert", hidden, config.num_layers
    elif (
        config.norm_first
        and not config.embedding_norm
        and linear
        and config.pooling == "mean"
        and config.embedding_size <= hidden
    ):
        step = math.lcm(_SPARE, heads)
        width = -(-(hidden + _SPARE) // step) * step
        architecture, blocks = "gpt2", config.num_layers + 1
    else:
        return None
    return LlamaShape(
        architecture,
        width,
        blocks,
        config.intermediate_size,
        heads,
        config.layer_norm_eps * hidden / width if architecture == "gpt2" else config.layer_norm_eps,
        LLAMA_POOLING[config.pooling],
        dense_outside=architecture == "bert" and bool(config.dense),
    )
