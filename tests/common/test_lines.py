"""Text files as Windows, old Macs and spreadsheets save them, through every door that reads one."""

from __future__ import annotations

import codecs
import gzip
import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from asterisk.apps.classify.labelled import load as labelled
from asterisk.apps.dedup.calibration import labelled as judged
from asterisk.bench.plan import read_plan as plan
from asterisk.cli.export import _texts as export_texts
from asterisk.common.errors import InputError
from asterisk.common.streams.lines import lines
from asterisk.common.streams.reading import read
from asterisk.evaluation.sets import load as evaluation_sets
from asterisk.training.corpora.sources import records, rows
from benchmarks.dedup.reading import texts as last_columns
from benchmarks.search.corpus import _rows as passages

ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
    "utf-32-be": codecs.BOM_UTF32_BE,
}
ENDS = ["\n", "\r\n", "\r"]
FIRST, SECOND = "Ein größerer Text über 氷河, lang genug", "noch einer, 👍, ebenfalls lang genug"


def texts_of(path):
    return [record.text for record in read([path], json_lines=None, field="text")]


def packed(path):
    data = path.read_bytes()
    path = path.with_suffix(".txt.gz")
    path.write_bytes(gzip.compress(data))
    zst = path.with_suffix(".zst")
    zst.write_bytes(zstandard.compress(data))
    assert texts_of(path) == texts_of(zst)
    return texts_of(path)


TEXTS = [FIRST, SECOND]
BOTH = [json.dumps(TEXTS[0], ensure_ascii=False), json.dumps({"text": SECOND})]
DOORS = {
    "asterisk-embed, -classify": ("a.txt", TEXTS, texts_of, TEXTS),
    "JSON lines": ("a.jsonl", BOTH, texts_of, TEXTS),
    "packed": ("a.txt", TEXTS, packed, TEXTS),
    "asterisk-export --texts": ("a.txt", TEXTS, export_texts, TEXTS),
    "asterisk-classify train": (
        "a.tsv",
        [f"ä\t{FIRST}", f"b\t{SECOND}"],
        lambda path: [*labelled(path).labels, *labelled(path).texts],
        ["ä", "b", *TEXTS],
    ),
    "asterisk-dedup --labelled": (
        "a.tsv",
        [f"1\t{FIRST}\t{SECOND}", f"0\t{SECOND}\t{FIRST}"],
        judged,
        ([True, False], TEXTS, TEXTS[::-1]),
    ),
    "asterisk-eval --data": (
        "test.tsv",
        [f"0.5\t{FIRST}\t{SECOND}", f"1\t{SECOND}\t{FIRST}"],
        lambda path: evaluation_sets(path.parent, "test").sets[0].first,
        TEXTS,
    ),
    "asterisk-data": ("a.tsv", [f"ä\t{FIRST}", SECOND], rows, [("ä", FIRST), (SECOND,)]),
    "asterisk-data, records": ("a.jsonl", [BOTH[1]], records, [{"text": SECOND}]),
    "asterisk-bench --plan": ("a.toml", ["# ä", "processes = 3"], plan, {"processes": 3}),
    "the benchmark of dedup": ("a.tsv", [f"x\t{FIRST}"], lambda p: last_columns([p]), [FIRST]),
    "the benchmark of search": ("a.tsv", [f"x\t{FIRST}", SECOND], lambda p: passages([p]), TEXTS),
}


@pytest.mark.parametrize("end", ENDS, ids=repr)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("door", DOORS)
def test_every_command_reads_every_text_file(tmp_path, door, encoding, end):
    name, given_lines, call, expected = DOORS[door]
    path = tmp_path / name
    path.write_bytes(ENCODINGS[encoding] + end.join([*given_lines, ""]).encode(encoding))
    found = call(path)
    assert (found if isinstance(found, (tuple, dict)) else list(found)) == expected


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))),
    st.sampled_from(ENDS),
    st.sampled_from(list(ENCODINGS)),
)
def test_lines_come_back_as_they_were_written(tmp_path_factory, some, end, encoding):
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    if encoding == "utf-8" and some:  # nothing marks it, so that its own beginning must not
        some[0] = some[0].lstrip("\ufeff")
    path.write_bytes(ENCODINGS[encoding] + "".join(line + end for line in some).encode(encoding))
    assert [line for _, line in lines(path)] == some


@given(st.binary(max_size=200))
def test_any_bytes_are_lines_or_one_clear_failure(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    try:
        found = [line for _, line in lines(path)]
    except InputError as failure:
        found = [str(failure)]
    assert not any("\n" in line or "\r" in line for line in found)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"good\rbad \xff\n", "line 2: not UTF-8 (byte 5)"),
        ("ä\n".encode() * 9_000 + b"ab\xc3", "line 9001: not UTF-8 (byte 3)"),
        ("a\nbc".encode("utf-16-le") + b"\x00\xd8x\0", "line 2: not UTF-16-LE (byte 5)"),
        ("a\nbc".encode("utf-16-le") + b"x", "line 2: not UTF-16-LE (byte 5)"),
        (b"a\n" + b"x" * 2_000, "line 2: longer than 1 KB"),
        (b"a\n" + "漢".encode() * 400, "line 2: longer than 1 KB"),
    ],
)
def test_a_line_that_is_no_text_is_named(tmp_path, data, told):
    path = tmp_path / "a.txt"
    mark = codecs.BOM_UTF16_LE if "UTF-16" in told else b""
    path.write_bytes(mark + data)
    with pytest.raises(InputError) as failure:
        list(lines(path, 1_024))
    assert str(failure.value) == f"{path}, {told}"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none: No such file"):
        list(lines(tmp_path / "none"))
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(b"text\n" * 999)[:-9])
    with pytest.raises(InputError, match=r"cut\.gz is damaged"):
        list(lines(cut))
