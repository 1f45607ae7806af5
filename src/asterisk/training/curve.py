"""What a run went through, as CSV and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from asterisk.common.errors import ArtifactError
from asterisk.common.files import replacing_file
from asterisk.common.plugins import require

FIELDS = (
    "passes",
    "learning_rate",
    "cosine_loss",
    "l2_loss",
    "token_loss",
    "relation_loss",
    "contrast_loss",
    "pair_loss",
    "held_out_cosine",
)
_OLD = {"texts": "passes", "sentence_loss": "cosine_loss"}
Row = Mapping[str, float]


def read(path: Path) -> list[dict[str, float]]:
    """Return the rows of a curve, none where there is no file; a loss that is not used is absent.

    ``learning_rate`` is a share of the peak; losses are means since the row before. ArtifactError
    for a file that is no curve.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                {
                    _OLD.get(name, name): float(value)
                    for name, value in row.items()
                    if name and value
                }
                for row in csv.DictReader(file)
            ]
        return [{name: row[name] for name in FIELDS if name in row} for row in rows]
    except (ValueError, csv.Error):
        raise ArtifactError(f"{path} is not a curve") from None


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows that `read` gives back, all or none."""
    with replacing_file(path) as staging, staging.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows({**row, "passes": int(row["passes"])} for row in rows)


def draw(path: Path, rows: Sequence[Row], bag: float | None = None) -> None:
    """Draw losses and held-out cosine over passes as PNG; ``bag`` is the bag's cosine, a line.

    MissingExtra without matplotlib.
    """
    require("matplotlib", "train").use("Agg")
    plt = require("matplotlib.pyplot", "train")
    figure, (above, below) = plt.subplots(2, sharex=True, figsize=(7, 7), layout="constrained")
    for name in FIELDS[2:-1]:
        known = [(row["passes"] / 1e6, row[name]) for row in rows if name in row]
        if known:
            above.plot(*zip(*known, strict=True), label=name.replace("_", " "))
    above.set_ylabel("loss")
    looks = [(row["passes"] / 1e6, row["held_out_cosine"]) for row in rows]
    if looks:
        below.plot(*zip(*looks, strict=True), label="this run")
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
