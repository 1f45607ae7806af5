"""What a finished run leaves: the checkpoint, its model card and the picture of its curve."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch.nn import functional

from asterisk.common.errors import InputError, one_line
from asterisk.common.files import replacing_file
from asterisk.common.plugins import require
from asterisk.model.checkpoint import Array, Checkpoint, save
from asterisk.training import bag
from asterisk.training.distil import LOSSES, Curve, Distillation, student_and_teacher
from asterisk.training.student import Start

TABLE = "embeddings.word_embeddings.weight"
UNMEASURED = "Not measured yet: `asterisk-eval`, then `asterisk-train … --evaluation`."
_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def write_checkpoint(
    run: Distillation,
    out: Path,
    start: Start | None,
    *,
    evaluation: str | None,
    licence: str | None,
) -> None:
    """Write a finished run's checkpoint to ``out``, and its curve to the run's folder, too.

    The licence of ``start`` stays unless one is given. ``evaluation`` is Markdown.
    """
    material, picture = run.material, run.folder / "curve.png"
    model, name = run.model.eval(), out.resolve().name
    bag_cosines = bag.read_cosines(run.folder / "bag") or {}
    draw_curve(picture, run.curve, bag_cosines.get("line"))
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
    cosines = held_out_cosines(run) | {"bag": bag_cosines.get("held_out_cosine")}
    text = write_card(checkpoint, run, start, cosines, evaluation or UNMEASURED)
    save(replace(checkpoint, card=text), out)
    with replacing_file(out / "curve.png") as staging:
        staging.write_bytes(picture.read_bytes())


def held_out_cosines(run: Distillation) -> dict[str, Any]:
    """Return mean cosines on held-out texts: before training, trained, and without each block."""
    model, texts, similarity = run.model, run.material.held_out, functional.cosine_similarity
    first = run.curve[0] if run.curve else {"passes": 1.0}
    trained, teacher = student_and_teacher(model, texts)
    bypassed = []  # the cosines to the teacher and to the whole model
    for block in range(model.config.num_layers):
        vectors, _ = student_and_teacher(model, texts, skip=block)
        bypassed.append([similarity(vectors, to).mean().item() for to in (teacher, trained)])
    before = None if first["passes"] else first["held_out_cosine"]
    own = similarity(trained, teacher).mean().item()
    return {"before": before, "trained": own, "bypassed": bypassed}


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
    """Draw losses and held-out cosine as PNG, with the ``bag``'s as a line; needs matplotlib."""
    require("matplotlib", "train").use("Agg")
    plt = require("matplotlib.pyplot", "train")
    figure, (above, below) = plt.subplots(2, sharex=True, figsize=(7, 7), layout="constrained")
    lines = [(above, name, name.replace("_", " ")) for name in LOSSES]
    for axes, name, label in (*lines, (below, "held_out_cosine", "this run")):
        points = [(row["passes"] / 1e6, row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    if bag is not None:
        below.axhline(bag, color="black", linestyle="--", label=f"the bag, {bag:.4f}")
    above.set_ylabel("loss")
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
    start: Start | None,
    cosines: Mapping[str, Any],
    evaluation: str,
) -> str:
    """Return the README of ``student``; ``cosines`` also has the ``bag``'s, or None."""
    origin = ""
    if start is not None:
        origin = start.origin if start.origin != student.name else f"an earlier {student.name}"
    spaces = {"trim_blocks": True, "keep_trailing_newline": True}
    jinja = require("jinja2", "train")
    card: str = jinja.Template(_TEMPLATE.read_text("utf-8"), **spaces).render(
        student=student,
        config=student.config,
        projected=student.teacher_projection is not None,
        licence=_licence_of(student.card) or ("other" if origin else "mit"),
        origin=origin,
        start=start,
        info=run.material.info,
        sources=run.material.sources,
        held_out=len(run.material.held_out),
        read=run.texts_read(),
        passes=run.seen,
        recipe=asdict(run.recipe),
        cosines=cosines,
        evaluation=evaluation,
    )
    return card


def _licence_of(card: str) -> str | None:
    """Return the licence that a model card names in its metadata, None if it names none."""
    head = card.split("\n---", 1)[0] if card.startswith("---") else ""
    found = re.search(r"^license:[ \t]*([A-Za-z0-9.+-]{1,50})[ \t]*$", head, re.MULTILINE)
    return found.group(1) if found else None
