"""What a finished run leaves: the checkpoint, its picture, and what was measured of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional

from asterisk.common.errors import InputError, one_line
from asterisk.common.files import replacing_file
from asterisk.model import checkpoint
from asterisk.model.checkpoint import Array, Checkpoint
from asterisk.model.encoder import Encoder
from asterisk.training import curve, static
from asterisk.training.agreement import vectors
from asterisk.training.card import Facts, write_card
from asterisk.training.caseless import unfold
from asterisk.training.distil import Distillation
from asterisk.training.material import Material
from asterisk.training.start import Begun

TABLE = "embeddings.word_embeddings.weight"


def write(
    run: Distillation,
    material: Material,
    out: Path,
    folder: Path,
    evaluated: str | None,
    *,
    begun: Begun | None = None,
    licence: str | None = None,
) -> None:
    """Write a finished run's checkpoint to ``out``; its curve is drawn in ``folder``.

    ``begun`` is what it began with, if that had weights; its licence stays unless one is given.
    """
    model = run.model.eval()
    line = static.facts_of(folder / "bag") or {}
    curve.draw(folder / "curve.png", run.curve, line.get("line"))
    facts = _facts(model, material, run, line.get("held_out_cosine"), evaluated)
    tensors = expanded(model, material)
    if begun is None:
        found = Checkpoint(
            out.resolve().name,
            model.config,
            tensors,
            teacher_projection=material.projection,
        )
    else:
        found = replace(begun.checkpoint, name=out.resolve().name, tensors=tensors)
        origin = begun.origin if begun.origin != found.name else f"an earlier {found.name}"
        facts = replace(facts, origin=origin, trained=begun.student)
    found = replace(found, licence=found.licence if licence is None else licence)
    card = write_card(found, run.recipe, facts, told=material.told, sources=material.sources)
    found = replace(found, card=card)
    checkpoint.save(found, out)
    with replacing_file(out / "curve.png") as staging:
        staging.write_bytes((folder / "curve.png").read_bytes())


def _facts(
    model: Encoder, material: Material, run: Distillation, line: float | None, told: str | None
) -> Facts:
    whole, theirs = vectors(model, material.apart)
    bypassed = []
    for index in range(model.config.num_layers):
        without, _ = vectors(model, material.apart, skip=index)
        bypassed.append((_cosine(whole, without), _cosine(without, theirs)))
    rows = run.curve
    start = rows[0]["held_out_cosine"] if rows and not rows[0]["passes"] else None
    return Facts(
        texts=run.texts_read(),
        passes=run.seen,
        held_out=len(material.apart),
        start=start,
        cosine=_cosine(whole, theirs),
        bag=line,
        bypassed=bypassed,
        evaluation=told,
    )


def _cosine(some: torch.Tensor, others: torch.Tensor) -> float:
    return float(functional.cosine_similarity(some, others).mean())


def expanded(model: Encoder, material: Material) -> dict[str, Array]:
    """Return a trained student's tensors, float32, every spelling of a token with its row."""
    state = model.state_dict()
    tensors: dict[str, Array] = {name: value.cpu().numpy() for name, value in state.items()}
    tensors[TABLE] = unfold(tensors[TABLE], material.train.fold)
    return tensors


def read_licence(path: Path) -> str:
    """Return the text of a licence; InputError if there is none."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(f"cannot read {path}: {one_line(failure)}") from None


def evaluation(path: Path) -> str:
    """Return `asterisk-eval`'s JSON as a table; InputError if it is something else."""
    from asterisk.evaluation.report import Report, markdown

    try:
        return markdown(Report.from_json(path.read_text("utf-8"))).strip()
    except (ValueError, RecursionError) as failure:
        raise InputError(f"{path}: {failure}") from None
