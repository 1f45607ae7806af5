"""How a sentence-transformers folder wants its model used: pooling, length, case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asterisk.common.errors import ArtifactError
from asterisk.common.files import read_object
from asterisk.model.modules import read_modules

POOLINGS = ("mean", "cls")
NO_LENGTH = 1 << 20  # what says "any" in a tokenizer's configuration is larger
ROBERTA_LIKE = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer")


@dataclass(frozen=True, slots=True)
class Manner:
    """What is read of a model folder.

    ``pooling`` is "mean" or "cls"; ``own_length`` the word pieces that its makers read, None if
    they did not say; ``positions`` how many there can be, None if any number; ``lowercase``,
    whether texts are lower-cased before its tokenizer sees them.
    """

    model: Path
    config: dict[str, Any]
    pooling: str = "mean"
    own_length: int | None = None
    positions: int | None = None
    lowercase: bool = False


def manner(folder: Path) -> Manner:
    """Read ``modules.json`` and what it names; a plain Hugging Face folder is pooled by the mean.

    Vectors are normalised whether or not the folder asks for it: a student is asked for
    directions. ArtifactError for what a token-by-token teacher cannot be.
    """
    said = read_modules(folder)
    elsewhere = "embed the corpus with it and give the vectors as .npy"
    if said.pooling not in POOLINGS:
        told = f"pooling {said.pooling!r} is none of: {', '.join(POOLINGS)}"
        raise ArtifactError(f"{folder}: {told}; {elsewhere}")
    if said.dense:
        raise ArtifactError(
            f"{folder} has a module Dense, which token states do not pass: {elsewhere}"
        )
    if said.default_prompt_name and said.prompts.get(said.default_prompt_name):
        raise ArtifactError(
            f"{folder} puts a prompt before every text, which is not supported: {elsewhere}"
        )
    config = read_object(said.transformer, "config.json")
    if not config:
        raise ArtifactError(f"{said.transformer / 'config.json'} is missing or empty")
    told_length = read_object(said.transformer, "tokenizer_config.json").get("model_max_length")
    length = said.max_seq_length or told_length
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in ROBERTA_LIKE:
        positions -= 1 + int(config.get("pad_token_id") or 0)  # its positions start behind padding
    return Manner(
        said.transformer,
        config,
        said.pooling,
        length if isinstance(length, int) and 0 < length < NO_LENGTH else None,
        positions if isinstance(positions, int) and positions > 0 else None,
        said.lowercase,
    )
