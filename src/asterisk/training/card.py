"""The model card that travels with a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from asterisk.model.checkpoint import Checkpoint
from asterisk.training.corpora import licences
from asterisk.training.material import Told
from asterisk.training.recipe import TrainingRecipe

_POOLINGS = {
    "mean": "Mean pooling over tokens",
    "cls": "The first token's vector",
    "max": "Max pooling over tokens",
    "mean_sqrt_len_tokens": "Sum over tokens by the root of their number",
}
UNMEASURED = "Not measured yet: `asterisk-eval`, then `asterisk-train … --evaluation`."


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run was and what was measured on ``held_out`` texts that were never trained on.

    ``passes`` were made over ``texts`` different texts; ``start`` and ``cosine`` are mean cosines
    to the teacher before and after training, ``bag`` the best static table's; a pair of
    ``bypassed`` is, without that block, the mean cosine to the whole model and to the teacher.
    ``evaluation`` is the Markdown of an evaluation; ``curve`` tells whether a picture of the curve
    stands beside. ``origin`` names what the run began with, if it had weights, and ``trained``
    tells whether that was a student, too.
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
    origin: str = ""
    trained: bool = False


def write_card(
    student: Checkpoint,
    recipe: TrainingRecipe,
    facts: Facts,
    *,
    told: Told,
    sources: Sequence[str],
) -> str:
    """Return the README of ``student``, with Hugging Face's metadata block."""
    name, config = student.name, student.config
    size = config.embedding_size
    projected = "" if student.teacher_projection is None else "projected "
    licence = licence_of(student.card) or ("other" if facts.origin else "mit")
    choices = "\n".join(f"| {field} | {value} |" for field, value in asdict(recipe).items())
    picture = "![The curve of this run](curve.png)\n\n" if facts.curve else ""
    before = ", after what the checkpoint it began with had seen" if facts.trained else ""
    origin = f", beginning as {facts.origin}" if facts.origin else ""
    return f"""---
language: en
license: {licence}
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---
# {name}

A sentence encoder for small machines: {config.num_layers} layers, {config.num_heads} heads,
{size}-d vectors, distilled from {told.teacher} by `asterisk-train`{origin}.
{_POOLINGS[config.pooling]}, L2-normalised, {_tokens(told)}, at most {config.max_seq_length} tokens.
{_space(student, told)}

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

Mean cosines on {facts.held_out:,} texts that were never trained on, to the teacher's
{projected}vectors and to the whole model's own; a block that could be bypassed unnoticed would have
learned nothing:

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

{_licences(licence, student, told, facts)}

## Recipe

| | |
|---|---|
{choices}

## Limits

English. {"Case is not seen, because the teacher sees none. " if recipe.fold_case else ""}A student
does not surpass its teacher: what {told.teacher} confuses, this does. Text beyond
{config.max_seq_length} tokens is not read. Sources are encyclopaedic, scientific, technical and
governmental; slang, code and other languages are outside them. Biases of the teacher and of the
texts have not been measured.
"""


def licence_of(card: str) -> str | None:
    """Return the licence that a model card names in its metadata, None if it names none."""
    head = card.split("\n---", 1)[0] if card.startswith("---") else ""
    found = re.search(r"^license:[ \t]*([A-Za-z0-9.+-]{1,50})[ \t]*$", head, re.MULTILINE)
    return found.group(1) if found else None


def _tokens(told: Told) -> str:
    if told.own_tokens:
        return "the teacher's tokenizer"
    return "GPT-2's byte-level BPE without special tokens"


def _space(student: Checkpoint, told: Told) -> str:
    if student.teacher_projection is None:
        return f"""Its vectors are in the space of {told.teacher} itself: what that model embedded,
here or anywhere, can be searched with this one's queries, and the other way round (LEAF, arXiv
2509.12539)."""
    return """`teacher_projection.safetensors` maps the teacher's vectors into this space, so that
documents may be embedded by the teacher and queries by this model. Vectors may be cut to their
first 128 or 64 dimensions: they are ordered by variance."""


def _licences(licence: str, student: Checkpoint, told: Told, facts: Facts) -> str:
    texts = "The texts have licences of their own, and none of them is\nhere"
    if facts.origin:
        copy = ", of which LICENSE is a copy" if student.licence else ""
        return f"""The weights began as {facts.origin}, were changed by training and are under
the same licence, {licence}{copy}. {texts}."""
    theirs = "Apache-2.0" if told.teacher == "all-MiniLM-L6-v2" else "under its own"
    return f"The weights are under the MIT licence. {texts}; the teacher is {theirs}."


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
