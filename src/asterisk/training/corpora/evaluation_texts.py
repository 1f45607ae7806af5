"""The texts of evaluation sets, so that none of them is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asterisk.common.errors import InputError
from asterisk.training.corpora.sources import rows

NO_TEXTS = "qrels.tsv"


def evaluation_texts(folder: Path) -> Iterator[str]:
    """Yield every text of a set, or of a folder of sets.

    Each set is a folder of .tsv files whose first column is a label, a score or an id, as
    `asterisk-eval` reads them; .txt files of one text a line count too. InputError if there is
    none.
    """
    kinds = ("*.tsv", "*/*.tsv", "*.txt", "*/*.txt")
    found = sorted(path for kind in kinds for path in folder.glob(kind) if path.name != NO_TEXTS)
    if not folder.is_dir():
        raise InputError(f"{folder} holds no evaluation set: there is no such folder")
    if not found:
        raise InputError(f"{folder} holds no evaluation set: no .tsv or .txt file")
    for path in found:
        labelled = path.suffix == ".tsv"
        for row in rows(path):
            yield from row[1:] if labelled else row
