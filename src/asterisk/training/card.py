"""The model card that travels with a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from asterisk.training.recipe import TrainingRecipe


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured on ``texts`` held-out texts.

    ``start`` and ``cosine`` are mean cosines to the teacher before and after training; a pair of
    ``bypassed`` is, without that block, the mean cosine to the whole model and to the teacher.
    """

    texts: int
    start: float
    cosine: float
    bypassed: Sequence[tuple[float, float]]


def write_card(name: str, recipe: TrainingRecipe, sources: Sequence[str], facts: Facts) -> str:
    """Return the README of a checkpoint, with Hugging Face's metadata block."""
    rows = "\n".join(
        f"| block {index + 1} bypassed | {teacher:.4f} | {whole:.4f} |"
        for index, (whole, teacher) in enumerate(facts.bypassed)
    )
    choices = "\n".join(f"| {field} | {value} |" for field, value in asdict(recipe).items())
    return f"""---
language: en
license: mit
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---
# {name}

A two-layer sentence encoder for small machines, distilled from {recipe.teacher} (Apache-2.0) by
`asterisk-train`. Mean pooling over tokens, L2-normalised, GPT-2's byte-level BPE without special
tokens, at most 512 tokens. `teacher_projection.safetensors` maps the teacher's vectors into this
space.

## Use

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("checkpoints/{name}").encode(["a text", "another"])  # [2, 256]
```

or `asterisk-export` to ONNX, TFLite and GGUF.

## Measured

Mean cosines on {facts.texts} texts that were never trained on, to the teacher's projected vectors
and to the whole model's own; a block that could be bypassed unnoticed would have learned nothing:

| | to the teacher | to the whole model |
|---|--:|--:|
| before training | {facts.start:.4f} | |
| **trained** | **{facts.cosine:.4f}** | 1 |
{rows}

## Trained

| | |
|---|---|
{choices}

On texts drawn from: {", ".join(sources)}. Their sources are English Wikipedia and other text under
CC BY-SA, CC BY, CC0, the WordNet licence, Apache-2.0, or in the public domain.

## Limits

English; trained on texts of up to {recipe.limit} tokens, so that later positions are untrained. No
retrieval or classification has been measured yet. The weights are under the MIT licence; the
texts they were distilled on have licences of their own, and none of them is here.
"""
