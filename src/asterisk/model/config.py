"""What an encoder is: its shape, its pooling and what follows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from asterisk.common.errors import ArtifactError

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
        for name, most in LIMITS.items():
            value = getattr(self, name)
            least = 0 if name == "num_layers" else 1
            if not _is_count(value, most, least):
                raise ArtifactError(
                    f"model configuration: {name} must be {least} to {most}, not {value!r}"
                )
        for name in ("norm_first", "embedding_norm", "normalize"):
            if not isinstance(getattr(self, name), bool):
                raise ArtifactError(f"model configuration: {name} must be true or false")
        for name, known in (("activation", ACTIVATIONS), ("pooling", POOLINGS)):
            if getattr(self, name) not in known:
                raise ArtifactError(
                    f"model configuration: {name} {getattr(self, name)!r} is not supported; "
                    f"there are: {', '.join(known)}"
                )
        if self.max_seq_length > self.max_positions:
            raise ArtifactError(
                f"model configuration: max_seq_length {self.max_seq_length} is more than "
                f"the {self.max_positions} positions of the model"
            )
        if self.hidden_size % self.num_heads:
            raise ArtifactError("model configuration: hidden_size must divide into num_heads")
        if not isinstance(self.layer_norm_eps, float) or not 0 < self.layer_norm_eps < 1:
            raise ArtifactError("model configuration: layer_norm_eps must lie between 0 and 1")
        if len(self.dense) > MOST_DENSE:
            raise ArtifactError(f"model configuration: more than {MOST_DENSE} Dense modules")

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
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != known:
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
