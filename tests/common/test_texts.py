"""The texts that ship with the project: well formed, varied, credited and not test data."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from asterisk.common.texts import KINDS, Text, load

EVAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval"
RUN = 13
"""Words in a row that mark a text as quoted from test data."""


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def runs(text: str) -> set[str]:
    found = words(text)
    return {" ".join(found[i : i + RUN]) for i in range(len(found) - RUN + 1)}


@pytest.fixture(scope="module")
def sources() -> dict[str, int]:
    table = files("asterisk.common.texts").joinpath("SOURCES.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|.*\| (\d+) \|$", table, flags=re.MULTILINE)
    return {key: int(count) for key, count in rows}


def test_enough_of_every_kind():
    counts = Counter(text.kind for text in load())
    assert tuple(sorted(counts)) == tuple(sorted(KINDS))
    assert 950 <= len(load()) <= 1100
    least = {
        "news": 240, "note": 140, "question": 190, "definition": 140,
        "fragment": 75, "passage": 110, "rough": 30,
    }  # fmt: skip
    assert {kind: counts[kind] for kind in least if counts[kind] < least[kind]} == {}


def test_loading_twice_gives_the_same_texts():
    assert load() == load()
    assert isinstance(load()[0], Text)


def test_ids_are_unique_and_say_the_kind():
    assert len({text.id for text in load()}) == len(load())
    assert all(re.fullmatch(rf"{text.kind}-\d{{4}}", text.id) for text in load())


def test_texts_are_unique():
    exact = Counter(text.text for text in load())
    folded = Counter(text.text.casefold().strip(" .?!") for text in load())
    assert [text for text, n in exact.items() if n > 1] == []
    assert [text for text, n in folded.items() if n > 1] == []


def test_texts_do_not_repeat_one_another():
    owners: dict[str, str] = {}
    shared = []
    for text in load():
        for run in runs(text.text):
            if owners.setdefault(run, text.id) != text.id:
                shared.append((owners[run], text.id, run))
    assert shared == []


def test_every_source_is_credited_with_its_number_of_rows(sources: dict[str, int]):
    assert dict(Counter(text.source for text in load())) == sources


def test_one_normalised_line_each():
    for text in load():
        assert unicodedata.is_normalized("NFC", text.text), text.id
        assert text.text == text.text.strip() != "", text.id
        assert not any(
            unicodedata.category(c) in {"Cc", "Zl", "Zp", "Co", "Cs", "Cn"} for c in text.text
        ), text.id
        assert "\ufffd" not in text.text, text.id
        assert text.kind == "rough" or "  " not in text.text, text.id


def test_the_file_is_small():
    table = files("asterisk.common.texts").joinpath("texts.tsv").read_bytes()
    assert table.startswith(b"id\tkind\tsource\ttext\n")
    assert table.endswith(b"\n")
    assert b"\r" not in table
    assert len(table) < 900_000


def test_the_order_is_mixed():
    assert {text.kind for text in load()[:100]} == set(KINDS)
    assert len({text.source for text in load()[:100]}) >= 10


def test_lengths_fill_the_bands_that_the_benchmark_draws_from():
    from asterisk.tokenizer import gpt2

    tokenizer = gpt2()
    lengths = [len(tokenizer.encode(text.text)) for text in load()]
    for low, high in ((6, 10), (28, 36), (115, 140)):
        assert sum(low <= n <= high for n in lengths) >= 80, (low, high)
    assert sum(n > 512 for n in lengths) >= 30
    assert sum(130 <= n <= 500 for n in lengths) >= 75


def test_none_is_evaluation_data():
    if not EVAL.is_dir():
        pytest.skip("no ../shared/data beside the repository, so there is nothing to compare with")
    whole = {" ".join(words(text.text)): text.id for text in load()}
    whole.pop("", None)
    parts = {run: text.id for text in load() for run in runs(text.text)}
    found = set()
    for path in sorted(EVAL.glob("*/*.tsv")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                for field in line.rstrip("\n").split("\t"):
                    there = words(field)
                    text = " ".join(there)
                    if len(text) > 3 and text in whole:
                        found.add((path.parent.name, whole[text]))
                    for i in range(len(there) - RUN + 1):
                        run = " ".join(there[i : i + RUN])
                        if run in parts:
                            found.add((path.parent.name, parts[run]))
    assert found == set()
