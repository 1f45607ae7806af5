"""The commands as a user types them, and what bad input gets: one line, a status, nothing left."""

from __future__ import annotations

import importlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import random_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import asterisk
from asterisk.model.checkpoint import save
from asterisk.model.config import ModelConfig


@pytest.fixture(scope="module")
def folder(artifact_of):
    return artifact_of("onnx", "int8")


@pytest.fixture
def command(command):
    """Run a command here, for speed, or in a process of its own if it needs an environment."""

    def call(name, *args, input=b"", **options):
        if options:
            return command(name, *args, input=input, **options)
        stdin, out, err = (
            io.TextIOWrapper(io.BytesIO(data), "utf-8") for data in (input, b"", b"")
        )
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        main = importlib.import_module(f"asterisk.cli.{name}").main
        with mock.patch.multiple(sys, stdin=stdin, stdout=out, stderr=err):
            try:
                status = main([str(argument) for argument in args])
            except SystemExit as ended:
                status = ended.code
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for stream in (out, err):
            stream.flush()
        written = [stream.buffer.getvalue() for stream in (out, err)]
        return subprocess.CompletedProcess(name, status or 0, *written)

    return call


def one_line(done, status):
    assert done.returncode == status, done.stderr.decode()
    told = done.stderr.decode()
    assert told.count("\n") == 1, told
    assert "Traceback" not in told
    return told


# --- embed


def test_lines_in_json_lines_out(command, folder):
    done = command("embed", folder, input="one text\nein zweiter, größer\n".encode())
    assert done.returncode == 0
    assert done.stderr == b""
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["index"] for row in rows] == [0, 1]
    with asterisk.load(folder) as runtime:
        expected = runtime.encode(["one text", "ein zweiter, größer"])
    assert np.array_equal(np.array([row["embedding"] for row in rows], "f4"), expected)


def test_json_lines_in_csv_out(command, folder, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": "a", "text": "one"}\n"two"\n{"id": 3, "text": "three\\nlines"}\n')
    out = tmp_path / "out.csv"
    done = command("embed", folder, source, "--out", out, "--dim", 8)
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in out.read_text().splitlines()]
    assert rows[0] == ["index", "id", *(f"d{i}" for i in range(8))]
    assert [row[:2] for row in rows[1:]] == [["0", "a"], ["1", ""], ["2", "3"]]
    with asterisk.load(folder) as runtime:
        expected = runtime.encode(["one", "two", "three\nlines"], dim=8)
    assert np.array_equal(np.array([row[2:] for row in rows[1:]], "f4"), expected)


def test_npy_with_its_sidecar(command, folder, tmp_path, lines):
    source = tmp_path / "in.txt"
    source.write_text("\n".join(lines[:150]) + "\n")
    out = tmp_path / "out.npy"
    done = command("embed", folder, source, "--out", out, "--threads", 2)
    assert done.returncode == 0, done.stderr
    vectors = np.load(out, allow_pickle=False)
    with asterisk.load(folder) as runtime:
        assert np.array_equal(vectors, runtime.encode(lines[:150]))
        facts = json.loads((tmp_path / "out.npy.json").read_text())
        assert facts["fingerprint"] == runtime.fingerprint
    assert facts["rows"] == 150
    assert facts["dim"] == 256


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ([], ""),
        (["--prompt-name", "passage"], "passage: "),
        (["--role", "query"], "query: "),
        (["--role", "document"], ""),
    ],
    ids=str,
)
def test_prompts(command, prompted, tmp_path, options, prompt):
    out = tmp_path / "out.npy"
    done = command("embed", prompted, "--out", out, *options, input=b"one text\n")
    assert done.returncode == 0, done.stderr
    with asterisk.load(prompted) as runtime:
        assert np.array_equal(np.load(out), runtime.encode([f"{prompt}one text"]))
    assert json.loads((tmp_path / "out.npy.json").read_text())["prompt"] == prompt


def test_a_prompt_that_is_not_there(command, prompted, folder):
    done = command("embed", prompted, "--prompt-name", "none", input=b"text\n")
    assert "no prompt 'none'; there are: 'document', 'passage', 'query'" in one_line(done, 2)
    done = command("embed", folder, "--prompt-name", "passage", input=b"text\n")
    assert "no prompt 'passage'" in one_line(done, 2)
    done = command("embed", prompted, "--prompt-name", "query", "--role", "query", input=b"a\n")
    assert "not allowed with" in one_line(done, 2)


def test_a_checkpoint_is_embedded_with_pytorch(command, toy_folder):
    done = command("embed", toy_folder, input=b"one text\n")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["embedding"]) == 256


@pytest.mark.parametrize("rule", ["error", "skip", "null"])
def test_empty_texts(command, folder, tmp_path, rule):
    text = b"full\n\n   \nfull again\n"
    done = command("embed", folder, "--on-empty", rule, input=text)
    if rule == "error":
        assert "standard input, line 2: empty text" in one_line(done, 4)
        return
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == (2 if rule == "skip" else 4)
    assert [row["embedding"] is None for row in rows].count(True) == (0 if rule == "skip" else 2)
    out = tmp_path / "out.npy"
    assert command("embed", folder, "--on-empty", rule, "--out", out, input=text).returncode == 0
    empty = np.isnan(np.load(out)).all(axis=1)
    assert empty.tolist() == ([False] * 2 if rule == "skip" else [False, True, True, False])


def test_long_texts(command, folder):
    text = b"short\n" + b"word " * 600 + b"\n"
    done = command("embed", folder, input=text)
    assert done.returncode == 0
    assert b"1 text truncated to 512 tokens" in done.stderr
    done = command("embed", folder, "--on-long", "error", input=text)
    assert "line 2: a text has more than 512 tokens" in one_line(done, 4)


def test_ten_megabytes_in_one_line(command, folder):
    done = command("embed", folder, input=b"x" * 10_000_000 + b"\n")
    assert done.returncode == 0
    assert b"1 text truncated" in done.stderr


def test_invalid_utf8(command, folder):
    done = command("embed", folder, input=b"good\nbad \xff\xfe\n")
    assert "standard input, line 2: not UTF-8 (byte 5)" in one_line(done, 4)


@pytest.mark.parametrize(
    "line", ["{", "1", '{"other": "text"}', '{"text": 1}', "null", "[" * 9_999]
)
def test_json_lines_without_a_text(command, folder, line):
    done = command("embed", folder, "--json", input=line.encode() + b"\n")
    assert "line 1" in one_line(done, 4)


def test_nothing_is_left_of_a_failed_run(command, folder, tmp_path):
    out = tmp_path / "out.npy"
    out.write_bytes(b"old")
    done = command("embed", folder, "--out", out, input=b"good\n" * 200 + b"\xff\n")
    one_line(done, 4)
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]


def test_where_nothing_can_be_written(command, folder, tmp_path):
    done = command("embed", folder, "--out", tmp_path / "none" / "out.npy", input=b"text\n")
    one_line(done, 7)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "asterisk.cli.embed", folder],
            input=b"text\n" * 500,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert "No space left" in one_line(done, 7)


def test_a_reader_that_leaves(folder):
    done = subprocess.run(
        f"yes text | head -3000 | {sys.executable} -m asterisk.cli.embed {folder} | head -1",
        shell=True,
        capture_output=True,
        check=False,
    )
    assert done.stdout.startswith(b'{"index": 0')
    assert done.stderr == b""


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["{folder}", "nofile.txt"],
        ["{folder}", "--dim", "0"],
        ["{folder}", "--dim", "257"],
        ["{folder}", "--dim", "x"],
        ["{folder}", "--format", "npy"],
        ["{folder}", "--threads", "-1"],
        ["{folder}", "--on-long", "perhaps"],
        [],
    ],
)
def test_arguments_that_cannot_be_meant(command, folder, arguments):
    done = command("embed", *(a.format(folder=folder) for a in arguments), input=b"text\n")
    assert done.returncode in {2, 4, 5}
    assert b"Traceback" not in done.stderr
    assert done.stderr


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=200))
def test_any_bytes_on_standard_input(folder, data):
    """Any input ends with a status and never an exception."""
    from asterisk.cli import embed

    stdin = mock.Mock(buffer=io.BytesIO(data))
    stdout = mock.Mock(buffer=io.BytesIO())
    with mock.patch("sys.stdin", stdin), mock.patch("sys.stdout", stdout):
        status = embed.main([str(folder), "--on-empty", "skip"])
    assert status in {0, 4}
    try:
        data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8")
    except UnicodeDecodeError:
        assert status == 4
    else:
        assert status == 0


@pytest.mark.parametrize("name", ["x.parquet", "x.json", "x.npz", "x.jsonl.gz"])
def test_an_unknown_suffix_is_refused_unless_a_format_is_named(command, folder, tmp_path, name):
    out = tmp_path / name
    told = one_line(command("embed", folder, "--out", out, input=b"text\n"), 2)
    assert f"{name}: its name must end in one of .jsonl, .ndjson, .csv, .npy; --format" in told
    assert not list(tmp_path.iterdir())
    done = command("embed", folder, "--out", out, "--format", "csv", input=b"text\n")
    assert done.returncode == 0, done.stderr
    assert out.read_text().startswith("index,id,d0")


@pytest.mark.parametrize("precision", ["float32", "int8", "binary", "ubinary"])
def test_precisions(command, folder, tmp_path, precision):
    source = tmp_path / "in.txt"
    source.write_text("one\n\ntwo\n")
    with asterisk.load(folder) as runtime:
        expected = runtime.encode(["one", "two"], dim=60, precision=precision)
    common = ("embed", folder, source, "--precision", precision, "--dim", 60)
    done = command(*common, "--on-empty", "skip", "--out", tmp_path / "a.npy")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    facts = json.loads((tmp_path / "a.npy.json").read_text())
    assert (facts["precision"], facts["dim"], facts["rows"]) == (precision, 60, 2)
    done = command(*common, "--on-empty", "null")
    first, none, last = (json.loads(line)["embedding"] for line in done.stdout.splitlines())
    assert none is None
    kind = float if precision == "float32" else int
    assert all(type(value) is kind for value in first + last)
    assert np.array_equal(np.array([first, last], expected.dtype), expected)
    done = command(*common, "--on-empty", "null", "--format", "csv")
    rows = [line.split(",")[2:] for line in done.stdout.decode().splitlines()]
    assert len(rows[0]) == expected.shape[1]
    assert set(rows[2]) == {""}
    assert [list(map(kind, row)) for row in (rows[1], rows[3])] == [first, last]


def test_a_missing_vector_has_no_place_among_integers(command, folder, tmp_path):
    for precision in ("int8", "binary", "ubinary"):
        options = ("--precision", precision, "--on-empty", "null", "--out", tmp_path / "a.npy")
        told = one_line(command("embed", folder, *options, input=b"\n"), 2)
        assert f"an .npy of {precision} has nothing for a text without a vector" in told
    assert not list(tmp_path.iterdir())


# --- a locale that knows ASCII only

ASCII = {
    "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "",  # tox sets it
}  # fmt: skip


@pytest.fixture
def ascii_command(command):
    """Run a command as a cron job or a bare container does."""
    return lambda name, *args: command(name, *args, env={**os.environ, **ASCII})


@pytest.mark.parametrize("engine", ["onnx int8", "tflite int8", "gguf q8_0", "torch"])
def test_paths_that_the_locale_cannot_decode(
    ascii_command, artifact_of, toy_folder, tmp_path, engine
):
    there = tmp_path / "Größe"
    source = toy_folder if engine == "torch" else artifact_of(*engine.split())
    shutil.copytree(source, there / "modèle")
    (there / "ä.txt").write_text("größer\n")
    out = there / "ö.npy"
    done = ascii_command("embed", there / "modèle", there / "ä.txt", "--out", out)
    assert done.returncode == 0, done.stderr
    with asterisk.load(source) as runtime:
        assert np.array_equal(np.load(out), runtime.encode(["größer"]))
    if engine != "torch":
        done = ascii_command("verify", there / "modèle")
        assert done.returncode == 0, done.stderr
        assert b"files intact" in done.stdout
    told = one_line(ascii_command("embed", there / "modèle", there / "ü.txt"), 4)
    assert "No such file" in told


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    """A checkpoint of one narrow layer, for exports in a process of their own."""
    shape = ModelConfig(hidden_size=32, num_heads=1, num_layers=1, intermediate_size=64)
    folder = tmp_path_factory.mktemp("small") / "toy"
    save(random_checkpoint(shape), folder)
    return folder


@pytest.mark.parametrize("format", ["onnx", "tflite", "gguf"])
def test_exporting_where_the_locale_cannot_decode(ascii_command, small_folder, tmp_path, format):
    there = tmp_path / "Größe"
    shutil.copytree(small_folder, there / "toy")
    done = ascii_command("export", there / "toy", "--format", format, "--out", there)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_what_the_terminal_cannot_show_has_escapes(command, ascii_command, folder, tmp_path):
    texts = tmp_path / "ä.txt"
    texts.write_text("氷河 größer\n氷河 größer\n")
    call = ("dedup", texts, "--lines", "--artifact", folder)
    done = ascii_command(*call)
    assert done.returncode == 0, done.stderr
    assert rb"\u6c37\u6cb3 gr\xf6\xdfer" in done.stdout
    done = command(*call, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert r"\u6c37\u6cb3 größer".encode("latin-1") in done.stdout
    call = ("classify", "zero-shot", "--labels", "größer,klein", "--model", folder, "größer")
    assert ascii_command(*call).stdout.decode().split("\t")[::2] == ["größer", "größer\n"]


def test_a_name_that_is_not_utf8_is_refused_where_the_engine_cannot_take_it(
    command, folder, tmp_path
):
    copy = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    shutil.copytree(folder, copy)
    assert "needs a name in UTF-8; rename it" in one_line(command("verify", copy), 5)


# --- export


def test_what_there_is(command):
    done = command("export", "--list")
    assert done.returncode == 0
    listed = {tuple(line.split()[:2]) for line in done.stdout.decode().splitlines()}
    assert {("onnx", "int8"), ("onnx", "fp32"), ("gguf", "q8_0"), ("tflite", "int8")} <= listed


def test_listing_imports_no_engine(python):
    done = python(
        "import sys\n"
        "from asterisk.cli.export import main\n"
        "main(['--list'])\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    assert done.returncode == 0
    for engine in ("torch", "onnx", "onnxruntime", "ai_edge_litert", "xllamacpp", "gguf"):
        assert f"'{engine}'" not in done.stderr


def test_exports_where_it_says(command, toy_folder, tmp_path):
    done = command("export", toy_folder, "--format", "onnx", "--out", tmp_path / "new" / "out")
    assert done.returncode == 0, done.stderr.decode()
    folder = tmp_path / "new" / "out" / "toy-onnx-int8"
    assert str(folder) in done.stdout.decode()
    assert command("verify", folder).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--format", "pdf"], 2, "no exporter named 'pdf'; there are: gguf, onnx, tflite"),
        (["--format", "onnx", "--recipe", "int2"], 2, "there are: int8, int8-emb4"),
        (["--recipe", "int8"], 2, "--recipe needs one --format"),
    ],
)
def test_unknown_formats_and_recipes(  # noqa: PLR0917
    command, toy_folder, tmp_path, arguments, status, told
):
    done = command("export", toy_folder, *arguments, "--out", tmp_path)
    assert told in one_line(done, status)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", [[], ["--recipe", "auto"]])
def test_what_one_format_cannot_hold_the_others_get(command, toy, tmp_path, recipe):
    from dataclasses import replace

    save(replace(toy, config=replace(toy.config, activation="relu")), tmp_path / "relu")
    done = command("export", tmp_path / "relu", *recipe, "--out", tmp_path / "out")
    assert done.returncode == 2
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("asterisk-export: gguf cannot hold ReLU")
    assert last.count("ReLU") == 1
    assert {path.name.split("-")[1] for path in (tmp_path / "out").iterdir()} == {"onnx", "tflite"}


def test_an_empty_name_is_no_model(command, tmp_path):
    assert "name is empty" in one_line(command("export", "", "--out", tmp_path / "out"), 2)


def test_no_checkpoint(command, tmp_path):
    assert "is not a checkpoint" in one_line(command("export", tmp_path, "--format", "onnx"), 5)


def test_below_its_gate_nothing_is_left(command, toy, tmp_path):
    """Weights that int8 cannot hold: one huge value in each row drowns the others."""
    from dataclasses import replace

    tensors = {name: values.copy() for name, values in toy.tensors.items()}
    for name, values in tensors.items():
        if values.ndim == 2 and "layer" in name:
            values[:, 0] = 60.0
    save(replace(toy, tensors=tensors), tmp_path / "bad")
    done = command("export", tmp_path / "bad", "--format", "onnx", "--out", tmp_path / "out")
    assert done.returncode == 6
    assert done.stderr.decode().splitlines()[-1].startswith("asterisk-export: onnx int8: cosine")
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder(command, toy_folder, tmp_path):
    (tmp_path / "file").write_text("")
    done = command("export", toy_folder, "--format", "onnx", "--out", tmp_path / "file")
    assert "cannot write" in one_line(done, 7)


def test_a_full_disk(small_folder, tmp_path):
    """A file may grow to 1 MB only: what fails half way leaves nothing behind."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "asterisk.cli.export",
            small_folder,
            "--format",
            "onnx",
            "--out",
            tmp_path,
        ],
        capture_output=True,
        preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 7
    assert "cannot write" in done.stderr.decode().splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_extra(small_folder, tmp_path, python, missing):
    done = python(
        "import sys\n"
        "sys.modules[sys.argv[1]] = None\n"
        "from asterisk.cli.export import main\n"
        "sys.exit(main([sys.argv[2], '--format', 'onnx', '--out', sys.argv[3]]))",
        missing,
        small_folder,
        tmp_path,
    )
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert f"{missing} is not installed; install it with: pip install 'asterisk-edge[" in last
    assert not list(tmp_path.iterdir())


# --- verify


def test_verify_finds_damage(command, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    done = command("verify", folder, copy)
    assert done.returncode == 0
    assert done.stdout.decode().count("files intact") == 2
    with (copy / "weights.bin").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff")
    assert "sha256" in one_line(command("verify", copy), 5)


def test_verify_finds_wrong_vectors(command, artifact_of, tmp_path):
    """A weight's exponent bit flipped and re-hashed passes every hash and fails on its vectors."""
    import onnx

    from asterisk.artifact import MANIFEST, sha256

    copy = tmp_path / "copy"
    shutil.copytree(artifact_of("onnx", "fp32"), copy)
    graph = onnx.load(copy / "model.onnx", load_external_data=False).graph
    matrix = next(t for t in graph.initializer if list(t.dims) == [256, 768])
    offset = next(int(e.value) for e in matrix.external_data if e.key == "offset")
    data = bytearray((copy / "weights.bin").read_bytes())
    data[offset + 3] ^= 0x40  # the highest exponent bit of a little-endian float
    (copy / "weights.bin").write_bytes(data)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"]["weights.bin"] = sha256(copy / "weights.bin")
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert "cosine to FP32" in one_line(command("verify", copy), 6)


@pytest.mark.parametrize("name", ["embed", "export", "verify", "train", "bench"])
def test_help(command, name):
    done = command(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: asterisk-{name}".encode())


# --- what a careless user does


def test_options_may_stand_between(command, folder, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("\ufefffirst\nsecond\n")
    done = command("embed", folder, "--out", tmp_path / "out.npy", source)
    assert done.returncode == 0, done.stderr
    with asterisk.load(folder) as runtime:
        expected = runtime.encode(["first", "second"])  # the byte order mark is no text
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)


ALL_CLOSED = ">&- 2>&- <&-"


@pytest.mark.parametrize(
    ("name", "closed"),
    [
        *(("embed", closed) for closed in (">&-", "<&-", "2>&-", "2> >(true)", ALL_CLOSED)),
        ("verify", ALL_CLOSED),
        ("export", ALL_CLOSED),
    ],
)
def test_closed_streams(folder, tmp_path, name, closed):
    arguments = {
        "embed": f"{folder} {__file__} --on-empty skip",
        "verify": folder,
        "export": "--list",
    }[name]
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m asterisk.cli.{name} {arguments} {closed}"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


def test_a_terminated_export_leaves_nothing(small_folder, tmp_path):
    import time

    arguments = [small_folder, "--format", "onnx", "--out", tmp_path]
    with subprocess.Popen(
        [sys.executable, "-m", "asterisk.cli.export", *arguments], stderr=subprocess.PIPE
    ) as process:
        while not list(tmp_path.iterdir()):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_without_pytorch(toy_folder, python):
    done = python(
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from asterisk.cli.embed import main\n"
        "sys.exit(main([sys.argv[1], '--json']))",
        toy_folder,
    )
    assert done.returncode == 3
    assert "torch is not installed; install it with: pip install 'asterisk-edge[torch]'" in (
        done.stderr
    )


def test_names_that_no_artifact_can_have(command, toy_folder, tmp_path):
    copy = tmp_path / "my checkpoint é"
    shutil.copytree(toy_folder, copy)
    done = command("export", copy, "--format", "onnx", "--out", tmp_path / "out")
    assert "rename its folder" in one_line(done, 2)
    assert not (tmp_path / "out").exists()


def test_an_export_does_not_replace_what_is_no_artifact(command, toy_folder, tmp_path):
    target = tmp_path / "toy-onnx-int8"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    done = command("export", toy_folder, "--format", "onnx", "--out", tmp_path)
    assert "left alone" in one_line(done, 7)
    assert (target / "notes.txt").read_text() == "mine"


def test_a_surrogate_in_an_id(command, folder):
    line = b'{"id": "\\ud800", "text": "a"}\n'
    for format in ("jsonl", "csv"):
        done = command("embed", folder, "--json", "--format", format, input=line)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "golden",
    [b"", b"PK\x03\x04" + bytes(40), b"\x93NUMPY\x01\x00\x10\x00((((((((((((((((", b"\x93NUMPY"],
)
def test_golden_vectors_that_are_none(command, folder, tmp_path, golden):
    from asterisk.artifact import MANIFEST, sha256

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "golden.npy").write_bytes(golden)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"]["golden.npy"] = sha256(copy / "golden.npy")
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert "golden" in one_line(command("verify", copy), 5)


def test_a_format_that_is_no_artifacts(command, folder, tmp_path):
    from asterisk.artifact import MANIFEST

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(manifest | {"format": "torch"}))
    assert "no format of artifacts" in one_line(command("verify", copy), 5)


def test_a_name_that_the_locale_cannot_say_is_shown_with_escapes(ascii_command, tmp_path):
    out = tmp_path / "Größe" / "x.parquet"
    done = ascii_command("embed", "artifact", "--out", out)
    assert done.returncode == 2
    assert b"/Gr\\xf6\\xdfe/x.parquet: its name must end in" in done.stderr
