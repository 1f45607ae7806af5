"""`asterisk-classify` as a user types it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import asterisk
from asterisk.apps.classify.head import TEMPERATURE, Head, Layer, zero_shot
from asterisk.cli import classify
from asterisk.common.errors import InputError, UsageError

SUBJECTS = {"cat": "a cat and another cat", "tax": "the tax office wants more tax"}


@pytest.fixture(scope="module")
def folder(prompted):
    return prompted


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "labelled.tsv"
    rows = [f"{label}\t{text}, number {n}\n" for n in range(40) for label, text in SUBJECTS.items()]
    path.write_text("".join(rows))
    return path


@pytest.fixture
def places(folder, head, labelled, tmp_path):
    """What the names in a list of arguments stand for."""
    return {"FOLDER": folder, "HEAD": head, "LABELLED": labelled, "OUT": tmp_path / "out"}


@pytest.fixture(scope="module")
def head(folder, labelled, tmp_path_factory):
    """Trained by the command."""
    out = tmp_path_factory.mktemp("heads") / "head.safetensors"
    call = ["train", labelled, "--model", folder, "--out", out, "--hidden", "16", "--epochs", "1"]
    assert classify.main([str(part) for part in call]) == 0
    return out


def one_line(done, status):
    assert done.returncode == status, done.stderr.decode()
    output = done.stderr.decode()
    assert output.count("\n") == 1, output
    assert "Traceback" not in output
    return output


def call(capfdbinary, *arguments):
    status = classify.main([str(argument) for argument in arguments])
    output = capfdbinary.readouterr()
    return status, output.out.decode(), output.err.decode()


def test_train_evaluate_predict(capfdbinary, folder, labelled, head):
    assert Head.open(head).labels == ("cat", "tax")
    status, output, _ = call(capfdbinary, "evaluate", head, labelled, "--model", folder, "--json")
    assert status == 0
    assert json.loads(output) == {"texts": 80, "accuracy": 1.0, "macro_f1": 1.0, "unknown": 0}
    texts = ["the tax office, at last", "yet another cat"]
    status, output, _ = call(capfdbinary, "predict", head, *texts, "--model", folder)
    assert status == 0
    with asterisk.load(folder) as runtime:
        shares = Head.open(head).probabilities(runtime.encode(texts)).max(axis=1)
    rows = zip(("tax", "cat"), shares, texts, strict=True)
    expected = [f"{label}\t{share:.4f}\t{text}" for label, share, text in rows]
    assert output.splitlines() == expected


def test_fewer_dimensions(capfdbinary, folder, labelled, tmp_path):
    out = tmp_path / "head"
    status, output, _ = call(
        capfdbinary, "train", labelled, "--model", folder, "--out", out, "--dim", "32",
        "--hidden", "0", "--epochs", "1", "--dev", labelled,
    )  # fmt: skip
    assert status == 0
    assert re.fullmatch(r"wrote .*: 2 labels from 80 texts; accuracy \d.\d{4} on 80 .*\n", output)
    assert Head.open(out).dim == 32
    assert call(capfdbinary, "predict", out, "a cat", "--model", folder)[0] == 0


def test_streams(command, folder, head):
    source = b'{"id": "x", "text": "a\\ttabbed\\ncat"}\n""\n"tax"\n'
    common = ("predict", head, "--model", folder, "--json", "--on-empty", "null")
    done = command("classify", *common, input=source)
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [len(row) for row in rows] == [3, 3, 3]
    assert rows[0][2] == "a tabbed cat"
    assert rows[1] == ["", "", ""]
    done = command("classify", *common, "--format", "jsonl", "--top", "5", input=source)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["index"] for row in found] == [0, 1, 2]
    assert found[0]["id"] == "x"
    assert found[0]["text"] == "a\ttabbed\ncat"
    assert found[1]["label"] is None
    assert len(found[2]["top"]) == 2
    assert sum(each["probability"] for each in found[2]["top"]) == pytest.approx(1, abs=1e-5)


def test_files_in_and_out(capfdbinary, folder, head, tmp_path):
    source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("cat\n" * 100)
    common = ("predict", head, "--model", folder, "--file", source, "--out", out)
    assert call(capfdbinary, *common)[0] == 0
    before = out.read_bytes()
    assert len(before.splitlines()) == 100
    source.write_bytes(b"cat\n" * 100 + b"\xff\n")
    status, _, output = call(capfdbinary, *common)
    assert status == 4
    assert "line 101: not UTF-8" in output
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", "out.jsonl"}


def test_zero_shot_is_the_softmax_of_cosines(capfdbinary, folder):
    names, texts = ["a_cat", "tax"], ["one cat", "some tax"]
    status, output, _ = call(
        capfdbinary, "zero-shot", "--labels", "a_cat, tax", "--model", folder, *texts,
        "--template", "About {}.", "--temperature", "0.1", "--format", "jsonl", "--top", "2",
    )  # fmt: skip
    assert status == 0
    with asterisk.load(folder) as runtime:
        cosines = runtime.encode(texts) @ runtime.encode(["About a cat.", "About tax."]).T
    expected = np.exp(cosines / 0.1) / np.exp(cosines / 0.1).sum(axis=1, keepdims=True)
    for line, shares in zip(output.splitlines(), expected, strict=True):
        found = {each["label"]: each["probability"] for each in json.loads(line)["top"]}
        assert [found[name] for name in names] == pytest.approx(shares, abs=1e-5)


def test_prompts(capfdbinary, prompted, labelled, tmp_path):
    out, named = tmp_path / "head", ("--model", prompted, "--prompt-name", "query")
    train = ("train", labelled, "--out", out, "--hidden", "0", "--epochs", "1")
    assert call(capfdbinary, *train, *named)[0] == 0
    texts = ["the tax office, at last", "yet another cat"]
    status, output, _ = call(capfdbinary, "predict", out, *texts, *named)
    assert status == 0
    with asterisk.load(prompted) as runtime:
        shares = Head.open(out).probabilities(runtime.encode_query(texts)).max(axis=1)
        found = zero_shot(runtime, ["cat", "tax"], prompt_name="query")
        rows = runtime.encode_query(["cat", "tax"]) / np.float32(TEMPERATURE)
    assert [float(line.split("\t")[1]) for line in output.splitlines()] == pytest.approx(
        shares, abs=1e-4
    )
    np.testing.assert_array_equal(found.layers[0].weight, rows)
    zero = ("zero-shot", "--labels", "cat,tax", *texts)
    assert call(capfdbinary, *zero, *named)[0] == 0
    for arguments in (("predict", out, *texts), ("evaluate", out, labelled), zero):
        wrong = ("--model", prompted, "--prompt-name", "none")
        status, _, output = call(capfdbinary, *arguments, *wrong)
        assert (status, output.count("\n")) == (2, 1)
        assert "no prompt 'none'" in output


@pytest.mark.parametrize(
    "choices",
    [
        {"labels": ["one"]},
        {"labels": ["one", "one "]},
        {"labels": ["one", ""]},
        {"template": "no place"},
        {"temperature": 0},
        {"temperature": float("nan")},
    ],
)
def test_zero_shot_of_nothing(folder, choices):
    with asterisk.load(folder) as runtime, pytest.raises((UsageError, InputError)):
        zero_shot(runtime, **{"labels": ["one", "two"], **choices})


def test_a_head_of_another_space(capfdbinary, folder, head, labelled, tmp_path):
    ours = Head.open(head)
    Head(ours.labels, ours.layers, "b" * 64).save(tmp_path / "other")
    for arguments in (("predict", tmp_path / "other", "text"),
                      ("evaluate", tmp_path / "other", labelled)):  # fmt: skip
        status, out, output = call(capfdbinary, *arguments, "--model", folder)
        assert (status, out) == (5, "")
        assert "the head is of embedding space bbbbbbbbbbbb" in output
        assert output.count("\n") == 1
    wide = Layer(np.ones((2, 257), "f4"), np.ones(2, "f4"))
    Head(ours.labels, (wide,), ours.fingerprint).save(tmp_path / "wide")
    status, _, output = call(capfdbinary, "predict", tmp_path / "wide", "a", "--model", folder)
    assert status == 5
    assert "257 dimensions" in output


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 2),
        (["what"], 2),
        (["predict"], 2),
        (["predict", "HEAD", "text"], 2),
        (["predict", "none", "--model", "FOLDER", "text"], 5),
        (["predict", "LABELLED", "--model", "FOLDER", "text"], 5),
        (["predict", "HEAD", "--model", "none", "text"], 5),
        (["predict", "HEAD", "--model", "FOLDER", "text", "--file", "LABELLED"], 2),
        (["predict", "HEAD", "--model", "FOLDER", " "], 4),
        (["predict", "HEAD", "--model", "FOLDER", "w " * 600, "--on-long", "error"], 4),
        (["predict", "HEAD", "--model", "FOLDER", "text", "--out", "none/out"], 7),
        (["predict", "HEAD", "--model", "FOLDER", "text", "--out", "out.csv"], 2),
        (["train", "LABELLED", "--model", "FOLDER", "--out", "none/head"], 7),
        (["train", "none", "--model", "FOLDER", "--out", "OUT"], 4),
        (["train", "LABELLED", "--model", "FOLDER", "--out", "OUT", "--dropout", "2"], 2),
        (["train", "LABELLED", "--model", "FOLDER", "--out", "OUT", "--dim", "257"], 2),
        (["evaluate", "HEAD", "HEAD", "--model", "FOLDER"], 4),
        (["zero-shot", "--labels", "one", "--model", "FOLDER", "text"], 2),
        (["zero-shot", "--labels", ",", "--model", "FOLDER", "text"], 4),
    ],
)
def test_what_cannot_be_done(capfdbinary, places, tmp_path, arguments, status):
    try:
        got, out, output = call(capfdbinary, *(places.get(part, part) for part in arguments))
    except SystemExit as left:
        got, (out, output) = left.code, (x.decode() for x in capfdbinary.readouterr())
    assert got == status, output
    assert out == ""
    assert output.count("\n") == 1
    assert not list(tmp_path.iterdir())


@given(data=st.binary(max_size=200))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_to_label(folder, head, tmp_path_factory, capfdbinary, data):
    source = tmp_path_factory.getbasetemp() / "any.txt"
    source.write_bytes(data)
    status, out, output = call(
        capfdbinary, "predict", head, "--model", folder, "--file", source, "--on-empty", "null"
    )
    assert (status, output.count("\n")) in {(0, 0), (4, 1)}
    assert status or all(line.count("\t") == 2 for line in out.splitlines())


@pytest.mark.parametrize("name", ["", *classify.SUBS])
def test_help(capsys, name):
    with pytest.raises(SystemExit, match="0"):
        classify.main([*filter(None, [name]), "--help"])
    assert capsys.readouterr().out.startswith(f"usage: asterisk-classify {name}".strip())


def test_predicting_imports_no_pytorch(folder, head, python):
    done = python(
        """
import sys
for name in ("torch", "sklearn", "safetensors", "scipy", "transformers"):
    sys.modules[name] = None
from asterisk.cli.classify import main
sys.exit(main(["predict", sys.argv[1], "a cat", "--model", sys.argv[2]]))
""",
        head,
        folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cat\t")


def test_training_without_pytorch(folder, labelled, python, tmp_path):
    done = python(
        """
import sys
sys.modules["torch"] = None
from asterisk.cli.classify import main
sys.exit(main(["train", sys.argv[1], "--model", sys.argv[2], "--out", sys.argv[3]]))
""",
        labelled,
        folder,
        tmp_path / "out",
    )
    assert done.returncode == 3
    assert "asterisk-edge[train]" in done.stderr
    assert done.stderr.count("\n") == 1
