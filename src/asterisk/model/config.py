"""The shape of an encoder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from asterisk.errors import ArtifactError

MODEL_TYPE = "asterisk"  # of encoders that are no BertModel
LIMITS = {
    "vocab_size": 65_535,  # the tokenizer's table stores ids in 16 bits
    "hidden_size": 4_096,
    "num_layers": 48,
    "num_heads": 64,
    "intermediate_size": 16_384,
    "max_positions": 8_192,
    "projection_size": 4_096,
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    r"""A bidirectional transformer encoder with masked mean pooling.

    The defaults are ``asterisk-256``: the shape of *Asterisk\*: Keep it Simple*
    (arXiv 2411.05691, section 3) in BERT's post-norm form, which `transformers`,
    sentence-transformers and llama.cpp load unchanged. ``norm_first`` with a
    ``projection_size`` is the shape of the original `asterisk-embedding-model`.

    Sizes are counts of elements. ``projection_size`` 0 means that the pooled hidden state is the
    embedding.
    """

    vocab_size: int = 50_259
    hidden_size: int = 256
    num_layers: int = 2
    num_heads: int = 2
    intermediate_size: int = 1_024
    max_positions: int = 512
    layer_norm_eps: float = 1e-12
    norm_first: bool = False
    embedding_norm: bool = True
    projection_size: int = 0

    def __post_init__(self) -> None:
        for name, most in LIMITS.items():
            value = getattr(self, name)
            least = 0 if name in {"num_layers", "projection_size"} else 1
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ArtifactError(
                    f"model configuration: {name} must be {least} to {most}, not {value!r}"
                )
        for name in ("norm_first", "embedding_norm"):
            if not isinstance(getattr(self, name), bool):
                raise ArtifactError(f"model configuration: {name} must be true or false")
        if self.hidden_size % self.num_heads:
            raise ArtifactError("model configuration: hidden_size must divide into num_heads")
        if not isinstance(self.layer_norm_eps, float) or not 0 < self.layer_norm_eps < 1:
            raise ArtifactError("model configuration: layer_norm_eps must lie between 0 and 1")

    @property
    def embedding_size(self) -> int:
        """Elements of one embedding vector."""
        return self.projection_size or self.hidden_size

    @property
    def bert_shaped(self) -> bool:
        """Whether Hugging Face's BertModel with masked mean pooling is the same encoder."""
        return self.embedding_norm and not self.norm_first and not self.projection_size

    @property
    def head_size(self) -> int:
        """Elements of one attention head's query, key and value."""
        return self.hidden_size // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build from plain JSON values; ArtifactError for fields that do not belong."""
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not set(values) <= known:
            raise ArtifactError("model configuration: unknown fields")
        return cls(**values)


def to_json(config: ModelConfig) -> dict[str, Any]:
    """Return a checkpoint's `config.json`: BertModel's own, or one that only this package knows.

    The second has a ``model_type`` of its own, so that nothing else takes the weights for BERT's.
    """
    if config.bert_shaped:
        return to_huggingface(config)
    return {"model_type": MODEL_TYPE, **config.to_dict()}


def from_json(values: dict[str, Any]) -> ModelConfig:
    """Read what `to_json` writes; ArtifactError if it is another architecture."""
    if values.get("model_type") != MODEL_TYPE:
        return from_huggingface(values)
    values = {name: value for name, value in values.items() if name != "model_type"}
    missing = {field.name for field in fields(ModelConfig)} - set(values)
    if missing:  # a default would be a guess at another model's shape
        raise ArtifactError(f"config.json: {min(missing)} is missing")
    return ModelConfig.from_dict(values)


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """Return `config.json` as Hugging Face's BertModel reads it.

    Weights are stored in 16 bits but computed in 32, hence ``dtype``.
    """
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "attention_probs_dropout_prob": 0.0,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_norm_eps": config.layer_norm_eps,
        "max_position_embeddings": config.max_positions,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "pad_token_id": 50_257,
        "type_vocab_size": 1,
        "vocab_size": config.vocab_size,
    }


def from_huggingface(values: dict[str, Any]) -> ModelConfig:
    """Read what `to_huggingface` writes; ArtifactError if it is another architecture."""
    if values.get("model_type") != "bert" or values.get("hidden_act") != "gelu":
        raise ArtifactError("config.json: not a BERT-shaped encoder with GELU")
    if values.get("position_embedding_type", "absolute") != "absolute":
        raise ArtifactError("config.json: only learned absolute positions are supported")
    if values.get("type_vocab_size", 1) != 1:
        raise ArtifactError("config.json: token types other than one are not supported")
    try:
        return ModelConfig(
            vocab_size=values["vocab_size"],
            hidden_size=values["hidden_size"],
            num_layers=values["num_hidden_layers"],
            num_heads=values["num_attention_heads"],
            intermediate_size=values["intermediate_size"],
            max_positions=values["max_position_embeddings"],
            layer_norm_eps=float(values["layer_norm_eps"]),
        )
    except KeyError as missing:
        raise ArtifactError(f"config.json: {missing.args[0]} is missing") from None
    except (TypeError, ValueError):
        raise ArtifactError("config.json: layer_norm_eps is not a number") from None
