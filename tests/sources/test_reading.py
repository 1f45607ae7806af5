"""What holds whatever a file holds: errors of one kind, keys of their own, bounded memory."""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asterisk.cli.reading_options import add_reading_options, reading_options, skip_report
from asterisk.common.errors import InputError, UsageError
from asterisk.sources import Database, Document, Options, Report, digest, documents, scan
from asterisk.sources.document import KINDS, Unreadable
from asterisk.sources.reading import read_file
from sources.helpers import SAMPLES, found, written

PIECES = [
    b"<rss>",
    b"</rss>",
    b"<pubDate>",
    b"&nbsp;",
    b"&#xd800;",
    b'{"version":"https://jsonfeed.org/version/1","items":[',
    b"\x1f\x8b",
    b"<channel>",
    b"<item>",
    b"</item>",
    b"<title>",
    b"</title>",
    b"<description>",
    b"<feed",
    b" xmlns='http://www.w3.org/2005/Atom'>",
    b"<entry>",
    b"</entry>",
    b"<content type='xhtml'>",
    b"<![CDATA[",
    b"]]>",
    b"<!DOCTYPE x [",
    b"<?xml version='1.0' encoding='",
    b"utf-16'?>",
    b"&amp;",
    b"<p>",
    b"<script>",
    b"<meta charset=",
    b"utf-7>",
    b"<!--",
    b"-->",
    b"&#x110000;",
    b"# ",
    b"```\n",
    b"---\n",
    b"title: ",
    b"[a](",
    b"`",
    b"|",
    b'{"text": "',
    b'"}\n',
    b'"',
    b"\\ud800",
    b",",
    b"\t",
    b"\n",
    b"\r\n",
    b"text",
    b"id\ttext\n",
    b"id,text\n",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xff",
    b"\xc3\xa9",
    b"\0",
]
contents = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), max_size=25).map(b"".join),
)


def check(documents: list[Document]) -> None:
    keys = [it.key for it in documents]
    assert len(set(keys)) == len(keys)
    for it in documents:
        assert it.text.strip()
        assert "\0" not in it.key + it.title + it.text
        f"{it.source}{it.key}{it.title}{it.text}".encode()
        more = (it.date, it.author, *it.tags) if it.date or it.author or it.tags else ()
        assert it.digest == digest(it.title, it.text, *more)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.one_of(contents, contents.map(gzip.compress)),
    kind=st.sampled_from([None, *KINDS]),
    suffix=st.sampled_from(["", ".xml", ".html", ".md", ".pdf"]),
    encoding=st.sampled_from(
        [None, "latin-1", "utf-16", "shift_jis", "utf-32-be", "iso2022_jp", "cp037"]
    ),
    field=st.sampled_from([None, "1", "2", "text"]),
)
def test_no_bytes_raise_anything(  # noqa: PLR0917
    tmp_path: Path,
    data: bytes,
    kind: str | None,
    suffix: str,
    encoding: str | None,
    field: str | None,
) -> None:
    path = written(tmp_path, f"file{suffix}", data)
    documents, lines = found(path, kind=kind, encoding=encoding, field=field)
    check(documents)
    assert all(line.startswith("file") and "\n" not in line for line in lines)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(sorted(path.name for path in SAMPLES.iterdir() if path.is_file())),
    cuts=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 3000), st.binary(max_size=3)), max_size=4
    ),
)
def test_mutated_samples_raise_nothing(
    tmp_path: Path, name: str, cuts: list[tuple[int, int, bytes]]
) -> None:
    data = (SAMPLES / name).read_bytes()
    for start, end, instead in cuts:
        data = data[:start] + instead + data[max(start, end) :]
    check(found(written(tmp_path, name, data))[0])


CHILD = """
import resource, sys
from pathlib import Path
from asterisk.sources import Options, documents
path, kind = Path(sys.argv[1]), sys.argv[2]
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
import asterisk.sources.records
before, count = peak(), 0
for document in documents([path], Options(kind=kind)): count += 1
print(count, (peak() - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("kind", "start", "record", "end"),
    [
        ("jsonl", "", '{"id": %d, "text": "' + "word " * 400 + '"}\n', ""),
        ("lines", "", "%d " + "word " * 400 + "\n", ""),
        ("tsv", "id\ttext\n", "%d\t" + "word " * 400 + "\n", ""),
        ("csv", "id,text\n", '%d,"' + "word " * 400 + '"\n', ""),
    ],
)
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, kind: str, start: str, record: str, end: str
) -> None:
    count = 2_500  # 5 MB
    with (tmp_path / "big").open("w") as file:
        file.write(start)
        for number in range(count):
            file.write(record % number)
        file.write(end)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "big"), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    records, megabytes = map(int, done.stdout.split())
    assert records == count
    assert megabytes <= 3


def test_nothing_heavy_is_imported() -> None:
    script = (
        "import sys, asterisk.sources, asterisk.cli.common\n"
        "heavy = {'numpy', 'torch', 'sqlite3', 'xml.parsers.expat', 'hashlib', 'http', 'socket',\n"
        "'markdown_it', 'pypdf'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_strict_stops_at_the_first_thing_skipped(tmp_path: Path) -> None:
    written(tmp_path, "a.txt", "text")
    written(tmp_path, "b.bin", b"\x7fELF\0")
    found = documents([tmp_path], report=Report(strict=True))
    assert next(found).text == "text"
    with pytest.raises(InputError, match=r"b\.bin: binary"):
        next(found)


def test_what_ends_the_reading_of_a_file_is_raised_to_who_asks_for_it(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", '"x"\nbad\n')
    written(tmp_path, "b.txt", b"\x7fELF\0")
    report, options = Report(), Options()
    one, other = scan([tmp_path])
    assert len(list(read_file(one, options, report))) == 1
    with pytest.raises(Unreadable, match="binary"):
        next(read_file(other, options, report))
    assert (report.count, report.summary()) == (1, "1 skipped")
    assert Report().summary() == ""


def test_one_file_does_not_flood_the_report(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", "bad\n" * 1000)
    written(tmp_path, "b.jsonl", "bad\n" * 23)
    lines: list[str] = []
    kept = Report(lines.append)
    assert not list(documents([tmp_path], None, kept))
    assert kept.summary() == "1,023 skipped"
    assert len(lines) == 42
    assert (lines[20], lines[41]) == (
        f"{tmp_path}/a.jsonl: 980 more",
        f"{tmp_path}/b.jsonl: 3 more",
    )


def parsed(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    add_reading_options(parser)
    return reading_options(parser.parse_args(arguments))


def test_arguments() -> None:
    assert parsed() == Options()
    given = (
        "--sqlite a.db --query Q --sqlite b.db --query R --include *.md --exclude old --follow "
        "--hidden --lines --encoding latin-1 --field 2 --title-field t --id-field i --no-header "
        "--max-file 1 --max-text 9 --kind csv --query-seconds 5"
    )
    assert parsed(*given.split()) == Options(
        kind="csv", lines=True, encoding="latin-1", field="2", title_field="t", id_field="i",
        header=False, include=("*.md",), exclude=("old",), follow=True, hidden=True,
        databases=(Database(Path("a.db"), "Q"), Database(Path("b.db"), "R")),
        largest_file=1 << 20, longest_text=9, query_seconds=5.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--sqlite", "a.db"], "each needs the other"),
        (["--query", "Q"], "each needs the other"),
        (
            ["--sqlite", "a.db", "--query", "Q", "--sqlite", "./a.db", "--query", "R"],
            "is given twice",
        ),
        (["--encoding", "nonsense"], "unknown encoding 'nonsense'"),
        (["--encoding", "zip"], "unknown encoding 'zip'"),
        (["--encoding", "utf-7"], "unknown encoding"),
    ],
)
def test_arguments_that_cannot_be_meant(arguments: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parsed(*arguments)


def test_a_report_prints_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_reading_options(parser)
    os.mkfifo(tmp_path / "fifo")
    list(documents([tmp_path], None, skip_report(parser.parse_args([]))))
    assert capsys.readouterr().err == f"{tmp_path}/fifo: a FIFO, not a file\n"
    with pytest.raises(InputError):
        list(documents([tmp_path], None, skip_report(parser.parse_args(["--strict"]))))
