"""Labelled texts in a file, good and bad."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.apps.classify.head import check_label
from asterisk.apps.classify.labelling import held_out, load
from asterisk.common.errors import InputError

LINE_TEXT = st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"]))
LABEL = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)


@given(st.lists(st.tuples(LABEL, LINE_TEXT.filter(str.strip)), min_size=1, max_size=20))
@settings(deadline=None, max_examples=40)
def test_what_is_written_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "labelled.tsv"
    path.write_bytes("".join(f"{label}\t{text}\n" for label, text in rows).encode())
    found = load(path)
    assert list(zip(found.labels, found.texts, strict=True)) == rows
    assert found.records[-1].position == f"{path}, line {len(rows)}"


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=40)
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.tsv"
    path.write_bytes(data)
    try:
        found = load(path)
    except InputError as refusal:
        message = str(refusal)
    else:
        assert all(text.strip() for text in found.texts)
        assert all(check_label(label) for label in found.labels)
        return
    assert message.isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no labelled texts"),
        (b"\n \n", "no labelled texts"),
        (b"label\ttext\nlabel text\n", "line 2: no tab"),
        (b"label\t \n", "line 1: empty text"),
        (b" \ttext\n", "line 1: '' cannot be a label"),
        (b"a\x00b\ttext\n", "line 1: 'a\\x00b' cannot be a label"),
        (b"x" * 201 + b"\ttext\n", "cannot be a label"),
        (b"label\t\xff\n", "line 1: not UTF-8"),
    ],
)
def test_lines_that_are_none(tmp_path, content, message):
    path = tmp_path / "labelled.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError) as failure:
        load(path)
    assert message in str(failure.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        load(tmp_path / "none")


def test_a_tenth_is_held_out_and_always_the_same(tmp_path):
    path = tmp_path / "labelled.tsv"
    path.write_text("".join(f"label\ttext {n}\n" for n in range(1_000)))
    train, apart = held_out(load(path), 10)
    assert sorted(train + apart) == list(range(1_000))
    assert 60 < len(apart) < 140
    path.write_text("".join(f"other\ttext {n}\n" for n in reversed(range(1_000))))
    assert [999 - n for n in held_out(load(path), 10)[1]][::-1] == apart
    path.write_text("label\ttext\n")
    with pytest.raises(InputError, match="--dev"):
        held_out(load(path), 10)
