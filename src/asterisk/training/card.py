"""The model card that travels with a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from asterisk.corpora import licences
from asterisk.model.config import ModelConfig
from asterisk.training.material import Told
from asterisk.training.recipe import TrainingRecipe

UNMEASURED = "Not measured yet: `asterisk-eval`, then `asterisk-train … --evaluation`."


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run was and what was measured on ``held_out`` texts that were never trained on.

    ``passes`` were made over ``texts``; ``start`` and ``cosine`` are mean cosines to the teacher
    before and after training, ``bag`` the best static table's; a pair of ``bypassed`` is, without
    that block, the mean cosine to the whole model and to the teacher. ``evaluation`` is the
    Markdown of an evaluation; ``curve`` tells whether a picture of the curve stands beside,
    ``continued`` whether the run began with another checkpoint's weights.
    """

    texts: int
    passes: int
    held_out: int
    start: float | None
    cosine: float
    bag: float | None
    bypassed: Sequence[tuple[float, float]]
    evaluation: str | None = None
    curve: bool = True
    continued: bool = False


def write_card(
    name: str,
    config: ModelConfig,
    recipe: TrainingRecipe,
    facts: Facts,
    *,
    told: Told,
    sources: Sequence[str],
) -> str:
    """Return the README of a checkpoint, with Hugging Face's metadata block."""
    size = config.embedding_size
    choices = "\n".join(f"| {field} | {value} |" for field, value in asdict(recipe).items())
    picture = "![The curve of this run](curve.png)\n\n" if facts.curve else ""
    before = ", after what the checkpoint it began with had seen" if facts.continued else ""
    return f"""---
language: en
license: mit
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---
# {name}

A sentence encoder for small machines: {config.num_layers} layers, {config.num_heads} heads,
{size}-d vectors, distilled from {told.teacher} by `asterisk-train`. Mean pooling over tokens,
L2-normalised, GPT-2's byte-level BPE without special tokens, at most {config.max_positions} tokens.
`teacher_projection.safetensors` maps the teacher's vectors into this space, so that documents may
be embedded by the teacher and queries by this model. Vectors may be cut to their first 128 or 64
dimensions: they are ordered by variance.

## Use

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("checkpoints/{name}").encode(["a text", "another"])  # [2, {size}]
```

or `asterisk-export` to ONNX, TFLite and GGUF.

## Evaluation

<!-- evaluation -->
{facts.evaluation or UNMEASURED}
<!-- /evaluation -->

Mean cosines on {facts.held_out:,} texts that were never trained on, to the teacher's projected
vectors and to the whole model's own; a block that could be bypassed unnoticed would have learned
nothing:

| | to the teacher | to the whole model |
|---|--:|--:|
{_rows(facts)}

{picture}## Data

{facts.texts:,} texts, up to {told.limit} tokens of each, passed {facts.passes:,} times in
all{before}; `asterisk-data` drew them from the sources below, without duplicates and without
any text of the evaluation sets.

| source | what it is, licence |
|---|---|
{licences.table(sources)}

The weights are under the MIT licence. The texts have licences of their own, and none of them is
here; the teacher is {"Apache-2.0" if told.teacher == "all-MiniLM-L6-v2" else "under its own"}.

## Recipe

| | |
|---|---|
{choices}

## Limits

English. {"Case is not seen, because the teacher sees none. " if recipe.fold_case else ""}A student
does not surpass its teacher: what {told.teacher} confuses, this does. Text beyond
{config.max_positions} tokens is not read. Sources are encyclopaedic, scientific, technical and
governmental; slang, code and other languages are outside them. Biases of the teacher and of the
texts have not been measured.
"""


def _rows(facts: Facts) -> str:
    start = (
        []
        if facts.start is None
        else [f"| before training, where the curve of 1,000 of them begins | {facts.start:.4f} | |"]
    )
    bag = [] if facts.bag is None else [f"| the best static token table | {facts.bag:.4f} | |"]
    blocks = [
        f"| block {index + 1} bypassed | {teacher:.4f} | {whole:.4f} |"
        for index, (whole, teacher) in enumerate(facts.bypassed)
    ]
    return "\n".join([*start, *bag, f"| **trained** | **{facts.cosine:.4f}** | 1 |", *blocks])
