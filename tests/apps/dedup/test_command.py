"""`asterisk-dedup` as a user types it, and what bad input gets."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import asterisk
from asterisk.apps.dedup.deduplication import escaped
from asterisk.apps.dedup.texts import normalize
from asterisk.apps.dedup.vectors import Vectors
from asterisk.cli.dedup import main
from asterisk.common.vectors import to_int8

NEWS = "The council voted on Tuesday to close the old bridge for repairs until the spring."
OTHER = "A new species of frog has been described from the cloud forests of Ecuador."
HOSTILE = "\x1b]0;owned\x07 back\\slash\tand \u202eturned"


@pytest.fixture(scope="module")
def folder(prompted):
    return prompted


@pytest.fixture
def command(capfdbinary):
    """Run the command here and return it, finished."""

    def call(_: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as left:
            status = left.code
        return subprocess.CompletedProcess([], status, *capfdbinary.readouterr())

    return call


@pytest.fixture
def texts(tmp_path):
    place = tmp_path / "texts"
    place.mkdir()
    rows = [NEWS, OTHER, NEWS.upper(), f"{NEWS} {HOSTILE}", f"{NEWS}  {HOSTILE}"]
    lines = [json.dumps({"id": f"n{row}\t", "text": text}) for row, text in enumerate(rows)]
    (place / "a.jsonl").write_text("\n".join(lines) + "\n")
    return place


def one_line(done, status):
    message = done.stderr.decode()
    assert done.returncode == status, message
    assert message.count("\n") == 1, message
    assert "Traceback" not in message
    return message


def test_a_report_is_safe_to_read(command, folder, texts):
    done = command("dedup", texts, "--artifact", folder, "--threshold", "1")
    assert done.returncode == 0, done.stderr
    message = done.stdout.decode()
    assert message.startswith("5 texts: 2 exact copies, 0 empty, 3 compared\nthreshold 1\n")
    assert "2 clusters; 2 texts (40.0%) repeat another, 3 stay" in message
    assert "[n0" in message
    assert all(one.isprintable() for line in message.split("\n") for one in line)


def test_json_holds_everything(command, folder, texts, tmp_path):
    out = tmp_path / "found.json"
    done = command("dedup", texts, "--artifact", folder, "--out", out, "--threshold", "1")
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    found = json.loads(out.read_text())
    assert (found["texts"], found["removed"], found["complete"]) == (5, 2, True)
    first, second = found["clusters"]
    assert first["representative"] == 0
    assert [member["row"] for member in first["members"]] == [0, 2]
    assert [member["key"].strip() for member in second["members"]] == ["n3", "n4"]
    assert all(member["similarity"] == 1 for member in first["members"])


def test_a_table_has_whole_cells(command, folder, texts):
    done = command("dedup", texts, "--artifact", folder, "--format", "tsv", "--threshold", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().split("\n")[:-1]
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 4
    assert [row["representative"] for row in rows] == ["1", "0", "1", "0"]
    assert all(None not in row and None not in row.values() for row in rows)
    assert all(float(row["similarity"]) == 1 for row in rows)
    assert "\x1b" not in done.stdout.decode()


@pytest.mark.parametrize("name", ["kept.jsonl", "kept.tsv"])
def test_what_stays_is_written_whole(command, folder, texts, tmp_path, name):
    keep = tmp_path / name
    done = command("dedup", texts, "--artifact", folder, "--threshold", "1", "--keep", keep)
    assert done.returncode == 0, done.stderr
    if name.endswith("jsonl"):
        rows = [json.loads(line) for line in keep.read_text().splitlines()]
        assert [row["text"] for row in rows] == [NEWS, OTHER, f"{NEWS} {HOSTILE}"]
    else:
        lines = keep.read_text().split("\n")
        assert lines[0] == "source\tkey\ttitle\ttext"
        assert len(lines) == 5
        assert lines[3].split("\t")[3] == escaped(f"{NEWS} {HOSTILE}")


@pytest.mark.parametrize("option", ["--keep", "--out"])
@pytest.mark.parametrize("link", [False, True])
def test_nothing_is_written_over_its_own_input(command, folder, texts, option, link):
    target = source = texts / "a.jsonl"
    if link:
        target = texts.parent / "elsewhere"
        target.hardlink_to(source)
    before = source.read_bytes()
    call = ("dedup", texts, "--artifact", folder, "--format", "json", option, target)
    message = one_line(command(*call), 2)
    assert "read from" in message
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    "case",
    [
        ([], 2, "--db"),
        (["TEXTS"], 2, "--artifact"),
        (["TEXTS", "--db", "x"], 2, "--db"),
        (["TEXTS", "--artifact", "A", "--threshold", "0"], 2, "0"),
        (["TEXTS", "--artifact", "A", "--threshold", "2"], 2, "0 to 1"),
        (["TEXTS", "--artifact", "A", "--threshold", ".9", "--precision", ".9"], 2, "not allowed"),
        (["TEXTS", "--artifact", "A", "--labelled", "x"], 2, "--precision"),
        (["TEXTS", "--artifact", "A", "--precision", ".9", "--labelled", "/nope"], 4, "/nope"),
        (["TEXTS", "--artifact", "A", "--precision", "0.95"], 2, "no calibration"),
        (["TEXTS", "--artifact", "/nope"], 5, "/nope"),
        (["/nope", "--artifact", "A"], 4, "/nope"),
        (["TEXTS", "--artifact", "A", "--out", "/nope/out"], 7, "/nope/out"),
        (["TEXTS", "--artifact", "A", "--out", "/dev/null"], 7, "plain file"),
        (["TEXTS", "--artifact", "A", "--out", "EMPTY/q", "--keep", "EMPTY/./q"], 2, "same file"),
        (["TEXTS", "--artifact", "A", "--out", "EMPTY/q.csv"], 2, ".txt, .json, .tsv, .tab; --f"),
        (["TEXTS", "--artifact", "A", "--keep", "EMPTY/q.json"], 2, ".ndjson, .tsv, .tab\n"),
        (["EMPTY", "--artifact", "A"], 4, "no text"),
        (["--db", "TEXTS/a.jsonl"], 4, "index"),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_line(command, folder, texts, case):
    arguments, status, says = case
    empty = texts.parent / "empty"
    empty.mkdir()
    names = {"A": folder, "TEXTS": texts, "EMPTY": empty}
    given = [
        str(names.get(word, word)).replace("TEXTS", str(texts)).replace("EMPTY", str(empty))
        for word in arguments
    ]
    assert says in one_line(command("dedup", *given), status)
    assert not list(empty.iterdir())


def test_a_full_disk_leaves_nothing(command, folder, texts, tmp_path):
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from asterisk.cli.dedup import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); sys.exit(main(sys.argv[1:]))"
    )
    place = tmp_path / "out"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, texts, "--artifact", folder, "--out", place / "x.json"],
        capture_output=True, check=False,
    )  # fmt: skip
    one_line(done, 7)
    assert list(place.iterdir()) == []


def wait_for_spool(pid):
    """Wait until texts are being read: a file without a name is open by then."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(link.readlink()).endswith("(deleted)") and link.stat().st_size:
                    return
        time.sleep(0.05)


def test_ctrl_c_is_130_and_leaves_nothing(folder, tmp_path):
    big = tmp_path / "big.txt"
    big.write_text("".join(f"{NEWS} {number} {OTHER}\n" for number in range(60_000)))
    place = tmp_path / "out"
    place.mkdir()
    command = [sys.executable, "-m", "asterisk.cli.dedup", big, "--lines", "--artifact", folder]
    with subprocess.Popen(
        [*map(str, command), "--out", str(place / "x.json")], stderr=subprocess.PIPE
    ) as process:
        wait_for_spool(process.pid)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert message.count(b"\n") == 1
    assert list(place.iterdir()) == []


@pytest.fixture
def index(folder, texts, tmp_path):
    from asterisk.apps.search import Index
    from asterisk.sources import documents

    path = tmp_path / "notes.db"
    long = " ".join(f"{OTHER} Sentence {number} of a long one." for number in range(60))
    (texts / "long.txt").write_text(long)
    (texts / "again.txt").write_text(long.replace("Sentence 7 ", "Clause 7 "))
    with asterisk.load(folder) as runtime, Index.create(path, folder) as made:
        made.update(documents([texts]), runtime)
    return path


def test_an_index_is_deduplicated_with_the_vectors_it_has(command, index):
    done = command("dedup", "--db", index, "--format", "json", "--threshold", "0.99")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["texts"], found["exact"]) == (7, 2)
    members = [
        {Path(member["source"]).name + member["key"].strip() for member in cluster["members"]}
        for cluster in found["clusters"]
    ]
    assert {"long.txt", "again.txt"} in members
    assert any({"a.jsonln0", "a.jsonln2"} <= one for one in members)


def test_an_index_of_another_model_is_refused(command, index, folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    facts = json.loads((other / "artifact.json").read_text())
    facts |= {"fingerprint": "0" * 64, "compatible_with": []}
    (other / "artifact.json").write_text(json.dumps(facts))
    message = one_line(command("dedup", "--db", index, "--artifact", other), 4)
    assert "another model" in message
    with asterisk.load(folder) as runtime:
        facts["compatible_with"] = [runtime.fingerprint]
    (other / "artifact.json").write_text(json.dumps(facts))
    assert command("dedup", "--db", index, "--artifact", other).returncode == 0


def test_an_index_is_not_written_over(command, index):
    before = index.read_bytes()
    message = one_line(command("dedup", "--db", index, "--keep", index), 2)
    assert "read from" in message
    assert index.read_bytes() == before


@pytest.mark.parametrize("link", [False, True])
def test_the_names_beside_an_index_are_its_own(index, tmp_path, capsys, link):
    given = index
    if link:
        given = tmp_path / "other.db"
        given.symlink_to(index)
    for end in ("-wal", "-shm", "-journal", "-lock"):
        own = index.with_name(index.name + end)
        own.write_bytes(b"theirs")
        for option in ("--keep", "--out"):
            assert main(["--db", str(given), option, str(own)]) == 2
            message = capsys.readouterr().err
            assert "belongs to the database" in message
            assert message.count("\n") == 1
        assert own.read_bytes() == b"theirs"
        own.unlink()
        assert main(["--db", str(given), "--keep", str(own)]) == 2  # whether it is there or not
        assert capsys.readouterr().err.count("\n") == 1
        assert not own.exists()


def test_numbers_differ_or_do_not_matter(command, folder, tmp_path):
    place = tmp_path / "lines.txt"
    place.write_text("".join(f"{NEWS} It costs {cost} euros.\n" for cost in (200, 300)))
    given = ("dedup", place, "--lines", "--artifact", folder, "--format", "json")
    for numbers, removed, option in (("differ", 0, ()), ("ignore", 1, ("--numbers", "ignore"))):
        done = command(*given, *option)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["removed"], found["numbers"]) == (removed, numbers)


def test_prompts(prompted, tmp_path, capsys):
    place = tmp_path / "lines.txt"
    place.write_text(f"{NEWS}\n{NEWS} Again.\n")
    found = {}
    for name in (None, "query"):
        given = [] if name is None else ["--prompt-name", name]
        arguments = [str(place), "--lines", "--artifact", str(prompted), "--format", "json"]
        assert main([*arguments, "--threshold", "0.1", *given]) == 0
        found[name] = json.loads(capsys.readouterr().out)["clusters"]
    with asterisk.load(prompted) as runtime:
        texts = [normalize(text) for text in place.read_text().splitlines()]
        for name, clusters in found.items():
            rows = Vectors(to_int8(runtime.encode(texts, prompt_name=name)))
            cosine = rows.of_pairs(np.array([0]), np.array([1]))[0]
            message = [member["similarity"] for one in clusters for member in one["members"]]
            assert any(abs(value - cosine) < 1e-4 for value in message)
    assert main([*arguments, "--prompt-name", "none"]) == 2
    message = capsys.readouterr().err
    assert "no prompt 'none'" in message
    assert message.count("\n") == 1


def test_an_index_is_not_embedded_again(index, capsys):
    assert main(["--db", str(index), "--prompt-name", "query"]) == 2
    assert "an index holds vectors" in capsys.readouterr().err


def test_numpy_is_not_there_before_its_threads_are_set(python):
    done = python("import sys, asterisk.cli.dedup; print('numpy' in sys.modules)")
    assert done.stdout == "False\n"
