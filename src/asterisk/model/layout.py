"""Which tensors a checkpoint holds, by name and shape."""

from __future__ import annotations

from asterisk.model.config import ModelConfig


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
