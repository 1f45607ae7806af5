"""Documents by one model and queries by another; prompts on either side; short models."""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import replace

import folders
import numpy as np
import pytest
from conftest import PROMPTS, random_checkpoint

import asterisk
from apps.search.fake_runtime import FakeRuntime, create_index
from asterisk.apps.search import Index
from asterisk.cli.export import main as export_main
from asterisk.cli.search import main
from asterisk.common import texts
from asterisk.common.errors import InputError, UsageError
from asterisk.model.checkpoint import load, save
from asterisk.model.config import ModelConfig
from asterisk.sources.document import make_document

TEXTS = [
    "Photosynthesis turns carbon dioxide and water into sugar.",
    "The committee raised interest rates to slow inflation.",
    "The goalkeeper saved a penalty in the last minute.",
]


def _load(monkeypatch, runtime: FakeRuntime) -> None:
    """Let `asterisk.load` give this runtime."""
    monkeypatch.setattr(
        asterisk, "load", lambda *_, **__: contextlib.nullcontext(runtime), raising=False
    )


def made_of(some) -> list:
    return [make_document("/texts", str(number), "", text) for number, text in enumerate(some)]


def stored(index: Index) -> np.ndarray:
    rows = {
        row: vector
        for ids, block in index.vectors()
        for row, vector in zip(ids, block, strict=True)
    }
    return np.array([rows[row] for row in sorted(rows)])


@pytest.fixture(scope="module")
def teacher():
    """A checkpoint with narrow vectors, which is opened and saved quickly."""
    return random_checkpoint(ModelConfig(hidden_size=32, intermediate_size=64), "teacher")


@pytest.fixture(scope="module")
def teacher_folder(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaf") / "teacher"
    save(teacher, folder)
    return folder


def moved(checkpoint, **changes):
    """Return a checkpoint a little away from another one."""
    random = np.random.default_rng(5)
    tensors = {
        name: (value + random.normal(0, 0.002, value.shape)).astype("f4")
        for name, value in checkpoint.tensors.items()
    }
    return replace(checkpoint, tensors=tensors, **changes)


def test_documents_by_the_teacher_and_queries_by_the_student(toy, toy_folder, tmp_path, capsys):
    """LEAF's row, as a user types it: a checkpoint indexes, another one asks."""
    student_folder, notes = tmp_path / "student", tmp_path / "notes"
    save(moved(toy, name="student", compatible_with=(toy.fingerprint,)), student_folder)
    notes.mkdir()
    every = [text.text for text in texts.load() if len(text.text) > 40][:12]
    for number, text in enumerate(every):
        (notes / f"{number}.txt").write_text(text, "utf-8")
    path = tmp_path / "index.db"
    assert main(["index", str(notes), "--db", str(path), "--artifact", str(toy_folder)]) == 0
    ask = ["query", every[7][:200], "--db", str(path), "--mode", "vectors", "--json", "-k", "1"]
    capsys.readouterr()
    assert main([*ask, "--artifact", str(student_folder)]) == 0
    hit = json.loads(capsys.readouterr().out)
    assert hit["source"].endswith("/7.txt")
    assert 0.9 < hit["similarity"] < 0.9999
    # The other way round, too: what the student indexed, the teacher finds.
    with (
        asterisk.load(student_folder) as student,
        Index.create(tmp_path / "other.db", student_folder, runtime=student) as index,
        asterisk.load(toy_folder) as teacher,
    ):
        index.update(made_of(every), student)
        assert index.search(every[3], 1, teacher, "vectors")[0].key == "3"


def test_a_student_with_a_dense_to_its_teachers_width(tmp_path, capsys):
    """A student of LEAF's published form, narrower than its teacher; sentence-transformers says."""
    teacher = folders.sentence_transformer(
        folders.bert(tmp_path / "a", hidden_size=96), tmp_path / "teacher"
    )
    student = folders.sentence_transformer(
        folders.bert(tmp_path / "b"), tmp_path / "student", dense=((96, "identity"),)
    )
    out = tmp_path / "artifacts"
    options = ["--format", "tflite", "--recipe", "fp32", "--out", str(out)]
    assert export_main([str(student), *options, "--compatible-with", str(teacher)]) == 0
    (artifact,) = out.iterdir()
    (tmp_path / "a.txt").write_text(TEXTS[0])
    db = ["--db", str(tmp_path / "index.db")]
    assert main(["index", str(tmp_path / "a.txt"), *db, "--artifact", str(teacher)]) == 0
    capsys.readouterr()
    ask = ["query", "sugar", *db, "--mode", "vectors", "--json"]
    assert main([*ask, "--artifact", str(artifact)]) == 0
    hit = json.loads(capsys.readouterr().out)
    (document,) = folders.truth(teacher).encode(TEXTS[:1])
    (query,) = folders.truth(student).encode(["sugar"])
    cosine = document @ query / np.linalg.norm(document) / np.linalg.norm(query)
    assert hit["similarity"] == pytest.approx(float(cosine), abs=0.02)


def test_a_stranger_is_refused_until_the_index_declares_its_space(
    teacher, teacher_folder, tmp_path, capsys, monkeypatch
):
    @functools.cache
    def space_of(folder):
        return load(folder).fingerprint

    def fake(folder, **_):
        space = space_of(folder)
        return contextlib.nullcontext(FakeRuntime(teacher.config.embedding_size, space))

    monkeypatch.setattr(asterisk, "load", fake, raising=False)
    stranger = tmp_path / "stranger"
    save(moved(teacher, name="stranger"), stranger)
    path = tmp_path / "index.db"
    with (
        asterisk.load(teacher_folder) as runtime,
        Index.create(path, teacher_folder, runtime=runtime) as index,
    ):
        index.update(made_of(TEXTS), runtime)
    ask = ["query", "sugar", "--db", str(path), "--artifact", str(stranger)]
    assert main(ask) == 4
    assert "holds vectors of another model (teacher)" in capsys.readouterr().err
    assert main(["space", "--db", str(path), str(stranger)]) == 0
    space = space_of(stranger)
    assert capsys.readouterr().err == f"asterisk-search: {path} goes with space {space}\n"
    assert main(ask) == 0
    assert main(["query", "sugar", "--db", str(path)]) == 0  # its own model still does
    capsys.readouterr()
    assert main(["info", "--db", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fingerprint"] == teacher.fingerprint
    assert facts["compatible_with"] == [space]
    assert main(["space", "--db", str(path), "f" * 64]) == 0
    capsys.readouterr()
    for model, status, reason in (
        ("none", 5, "no artifact, no checkpoint and no fingerprint"),
        ("F" * 64, 5, "no fingerprint"),
    ):
        assert main(["space", "--db", str(path), model]) == status
        line = capsys.readouterr().err
        assert reason in line
        assert line.count("\n") == 1
    assert main(["space", "--db", str(tmp_path / "none.db"), "f" * 64]) == 4
    assert not (tmp_path / "none.db").exists()


def test_a_space_of_another_dimension_is_refused(tmp_path):
    path = tmp_path / "index.db"
    with create_index(path, FakeRuntime()) as index:
        with pytest.raises(InputError, match="vectors of 32 dimensions, the model gives 64"):
            index.declare(["a" * 64], 64)
        index.declare(["a" * 64], 32)
        with pytest.raises(UsageError, match="an index has 200 at most"):
            index.declare([f"{number:064x}" for number in range(200)])
    with Index.open(path) as index:
        assert index.settings.compatible_with == ("a" * 64,)
        assert index.search("text", 3, FakeRuntime(fingerprint="a" * 64)) == []


def test_each_side_has_its_prompt(prompted, tmp_path):
    with asterisk.load(prompted) as runtime:
        plain, passages = runtime.encode(TEXTS), runtime.encode(TEXTS, prompt_name="passage")
        assert not np.array_equal(plain, passages)
        for name, expected in ((None, plain), ("passage", passages)):
            path = tmp_path / f"{name}.db"
            options = {"precision": "float32", "prompt_name": name}
            with Index.create(path, prompted, **options) as index:
                index.update(made_of(TEXTS), runtime)
                np.testing.assert_allclose(stored(index), expected, atol=1e-6)
            with Index.create(path) as index:  # the prompt is remembered
                assert index.settings.prompt_name == name
            with Index.open(path) as index:
                for asked, query in ((None, "query: sugar"), ("passage", "passage: sugar")):
                    hits = index.search("sugar", 3, runtime, "vectors", asked)
                    cosines = sorted(expected @ runtime.encode(query), reverse=True)
                    assert [hit.similarity for hit in hits] == pytest.approx(cosines, abs=1e-5)
                with pytest.raises(UsageError, match="no prompt 'none'"):
                    index.search("sugar", 3, runtime, "vectors", "none")
        with pytest.raises(UsageError, match="made without a prompt's name, not with 'passage'"):
            Index.create(tmp_path / "None.db", prompted, prompt_name="passage")
        with pytest.raises(UsageError, match="made with the prompt 'passage', not with 'query'"):
            Index.create(tmp_path / "passage.db", prompted, prompt_name="query")


def test_prompts_on_the_command_line(prompted, tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXTS[0])
    path, text = str(tmp_path / "index.db"), str(tmp_path / "a.txt")
    index = ["index", text, "--db", path, "--artifact", str(prompted)]
    assert main([*index, "--prompt-name", "none"]) == 2
    assert "the model has no prompt 'none'; there are: 'document'" in capsys.readouterr().err
    assert not (tmp_path / "index.db").exists()
    assert main([*index, "--prompt-name", "passage"]) == 0
    assert main([*index[:4]]) == 0
    ask = ["query", "sugar", "--db", path]
    assert main([*ask, "--prompt-name", "query"]) == 0
    capsys.readouterr()
    for options, reason in (
        (["--prompt-name", "none"], "no prompt 'none'"),
        (["--prompt-name", "query", "--mode", "words"], "--mode words does not use"),
    ):
        assert main([*ask, *options]) == 2
        line = capsys.readouterr().err
        assert reason in line
        assert line.count("\n") == 1


@pytest.mark.parametrize("longest", [16, 64])
def test_a_model_that_reads_little_gets_short_passages(teacher, tmp_path, longest):
    folder = tmp_path / "short"
    config = replace(teacher.config, max_seq_length=longest)
    save(replace(teacher, config=config, prompts=PROMPTS), folder)
    text = " ".join(f"Sentence {number} says a little about nothing." for number in range(20))
    with (
        asterisk.load(folder) as runtime,
        Index.create(tmp_path / "index.db", folder, runtime=runtime) as index,
    ):
        title = "A title that has more than a few words in it"
        index.update([make_document("/a", "", title, text)], runtime)
        assert runtime.truncated == 0
        assert index.passages > 150 / longest
        assert index.settings.longest < longest
        assert index.search(text[:60], 1, runtime)
        prompted, truncated = tmp_path / "prompted.db", runtime.truncated
        with Index.create(prompted, folder, runtime=runtime, prompt_name="passage") as other:
            other.update([make_document("/a", "", "", text)], runtime)
            assert runtime.truncated == truncated


def test_a_model_that_reads_too_little_is_refused(tmp_path, capsys, monkeypatch):
    _load(monkeypatch, FakeRuntime(longest=10))
    (tmp_path / "a.txt").write_text(TEXTS[0])
    arguments = ["--db", str(tmp_path / "index.db"), "--artifact", str(tmp_path / "model")]
    assert main(["index", str(tmp_path / "a.txt"), *arguments]) == 2
    line = capsys.readouterr().err
    assert "the model reads 10 tokens of a text beside" in line
    assert line.count("\n") == 1


def test_another_similarity_is_reported_once(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text(TEXTS[0])
    for similarity, normalize, reported in (
        ("dot", False, True),
        ("dot", True, False),
        ("euclidean", False, True),
        ("manhattan", True, True),
        ("cosine", False, False),
    ):
        runtime = FakeRuntime()
        runtime.similarity, runtime.config.normalize = similarity, normalize
        _load(monkeypatch, runtime)
        path = tmp_path / f"{similarity}-{normalize}.db"
        arguments = ["--db", str(path), "--artifact", str(tmp_path / "model")]
        assert main(["index", str(tmp_path / "a.txt"), *arguments]) == 0
        line = f"the model asks for {similarity} as its similarity; search ranks by cosine\n"
        assert capsys.readouterr().err.count(line) == reported
