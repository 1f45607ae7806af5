"""What a hub folder promises whatever loader opens it, and what it refuses."""

from __future__ import annotations

import filecmp
import json
import shutil

import folders
import numpy as np
import pytest
from conftest import ROOT, SHIPPED, random_checkpoint
from folders import cosines

from asterisk.artifact import sha256
from asterisk.cli.export import main
from asterisk.common import texts
from asterisk.common.errors import ArtifactError, OutputError, UsageError
from asterisk.exporters.export import open_reference
from asterisk.exporters.hub_folder import FORMATS, is_hub_folder, write_hub_folder
from asterisk.exporters.hub_onnx import FP32, BatchEngine
from asterisk.model.checkpoint import load, save
from asterisk.model.config import ModelConfig
from asterisk.runtimes.torch import reference

SMALL = ModelConfig(hidden_size=64, num_heads=4, intermediate_size=128, num_layers=1)
SOME = [text.text for text in texts.load()[:40]] + ["[CLS], [SEP], <s> and </s> are text"]
PROMPTS = {"query": "query: ", "document": "passage: "}


def exported(source, out, formats=("onnx",)):
    checkpoint = load(source)
    with open_reference(checkpoint) as truth:
        return write_hub_folder(checkpoint, formats, out, reference=truth)


@pytest.fixture
def small(tmp_path):
    """A small checkpoint with GPT-2's tokenizer, saved."""
    save(random_checkpoint(SMALL, "small"), tmp_path / "small")
    return tmp_path / "small"


def in_shards(folder):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="2MB")
    assert (folder / "model.safetensors.index.json").is_file()


def as_a_pickle(folder):
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def in_16_bits(folder):
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    half = {name: value.to(torch.bfloat16) for name, value in load_file(path).items()}
    save_file(half, path, metadata={"format": "pt"})
    folders.edit(folder / "config.json", dtype="bfloat16")


def in_a_module_of_its_own(folder):
    (folder / "0_Transformer").mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        if path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(folder / "0_Transformer" / path.name)
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(listed))


def pooled(make):
    return lambda path: folders.sentence_transformer(make(path / "plain"), path / "source")


SOURCES = {
    "plain": lambda path: folders.bert(path / "source"),
    "RoBERTa": pooled(folders.roberta),
    "DistilBERT": pooled(folders.distilbert),
    "XLM-R": pooled(lambda path: folders.multilingual(path, "xlm-roberta")),
}
FORMS = {
    "shards": in_shards,
    "pickle": as_a_pickle,
    "bfloat16": in_16_bits,
    "folder of a module": in_a_module_of_its_own,
}


def source_of(what, path):
    if what in SOURCES:
        return SOURCES[what](path)
    source = pooled(folders.bert)(path)
    FORMS[what](source)
    return source


@pytest.mark.slow
@pytest.mark.parametrize("what", [*SOURCES, *FORMS])
def test_every_form_of_a_checkpoint_gives_its_fp32_vectors(what, tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    source = source_of(what, tmp_path)
    written = exported(source, tmp_path / "hub")
    assert FP32 in written.figures  # random weights may be too near to each other for int8
    checkpoint = load(source)
    with reference(checkpoint) as truth:
        vectors = truth.encode(SOME)
        ids = [truth.tokenize(text) for text in SOME]
    hub = load(written.folder)
    assert hub.fingerprint == checkpoint.fingerprint
    assert hub.config == checkpoint.config
    assert dict(hub.prompts) == dict(checkpoint.prompts)
    theirs = SentenceTransformer(str(written.folder), device="cpu")
    assert cosines(theirs.encode(SOME, batch_size=8), vectors).min() > 0.99999
    engine = BatchEngine(written.folder / FP32, checkpoint.tokenizer.special["pad"])
    assert cosines(engine.batch(ids), vectors).min() > 0.99999
    # And as transformers' own pages have it: what the tokenizer gives is what the model takes.
    tokenizer = AutoTokenizer.from_pretrained(written.folder)
    batch = tokenizer(SOME[:4], padding=True, truncation=True, return_tensors="pt")
    assert AutoModel.from_pretrained(written.folder)(**batch).last_hidden_state.shape[0] == 4
    assert batch["input_ids"][0][batch["attention_mask"][0] == 1].tolist() == ids[0]


def test_two_exports_are_the_same_bytes_and_the_manifest_has_them(tmp_path):
    source = ROOT / "checkpoints" / "asterisk-256-wp"
    one, two = (exported(source, tmp_path / out, FORMATS).folder for out in ("one", "two"))
    names = [path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file()]
    _, different, wrong = filecmp.cmpfiles(one, two, names, shallow=False)
    assert (different, wrong) == ([], [])
    manifest = json.loads((one / "asterisk.json").read_text())
    assert manifest["files"] == {n: sha256(one / n) for n in names if n != "asterisk.json"}
    assert set(manifest["fidelity"]) == {
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "asterisk-256-wp-Q8_0.gguf",
        "asterisk-256-wp-int8.tflite",
    }
    assert manifest["fidelity"][FP32]["cosine_min_in_batch"] >= 0.99999
    assert (one / "LICENSE").read_bytes() == (source / "LICENSE").read_bytes()
    assert (one / "curve.png").read_bytes() == (source / "curve.png").read_bytes()
    assert (one / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert load(one).fingerprint == load(source).fingerprint


def test_the_owners_card_is_kept_and_a_second_export_says_nothing_twice(small, tmp_path):
    card = (
        "---\nlicense: apache-2.0\ntags: [mine]\nbase_model: some/one\n---\n# Mine\n\nMy words.\n"
    )
    (small / "README.md").write_text(card)
    first = exported(small, tmp_path / "small-hub").folder / "README.md"
    text = first.read_text()
    head, _, body = text.removeprefix("---\n").partition("---\n")
    assert "license: apache-2.0" in head
    assert "base_model: some/one" in head
    assert "- mine" in head
    assert "- transformers.js" in head
    assert "pipeline_tag: sentence-similarity" in head
    assert body.startswith("# Mine\n\nMy words.\n")
    again = exported(first.parent, tmp_path / "again").folder / "README.md"
    assert again.read_text().count("## Files for other engines") == 1
    assert "My words." in again.read_text()


def test_a_card_that_is_no_yaml_is_refused(small, tmp_path):
    (small / "README.md").write_text("---\ntags: [mine\n---\n# Mine\n")
    with pytest.raises(ArtifactError, match=r"README\.md does not begin with valid YAML"):
        exported(small, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_format_that_cannot_hold_the_model_is_named_and_the_others_are_written(
    tmp_path, capsys, monkeypatch
):
    some = texts.load()[::8]
    monkeypatch.setattr(texts, "load", lambda: some)
    source = folders.bert(tmp_path / "relu", hidden_act="relu")
    out = ["--out", str(tmp_path)]
    assert main([str(source), "--layout", "hub", *out]) in (2, 6)
    hub = tmp_path / "relu-hub"
    assert "relu-Q8_0.gguf: gguf cannot hold ReLU" in capsys.readouterr().err.splitlines()[-1]
    assert "- relu-Q8_0.gguf: gguf cannot hold ReLU" in (hub / "README.md").read_text()
    assert "gguf" not in (hub / "README.md").read_text().split("---")[1]
    assert (hub / FP32).is_file()
    assert not list(hub.glob("*.gguf"))
    # Alone there is nothing to write.
    shutil.rmtree(hub)
    assert main([str(source), "--layout", "hub", "--format", "gguf", *out]) == 2
    assert not hub.exists()


def test_pooling_that_llama_cpp_has_not_is_named(tmp_path):
    source = folders.sentence_transformer(
        folders.bert(tmp_path / "plain"), tmp_path / "max", pooling="max"
    )
    with pytest.raises(UsageError, match="no pooling by max"):
        exported(source, tmp_path / "hub", ("gguf",))
    assert not (tmp_path / "hub").exists()


def test_only_a_hub_folder_with_nothing_else_in_it_is_replaced(small, tmp_path):
    out = tmp_path / "small-hub"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        exported(small, out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    (out / "notes.txt").unlink()
    exported(small, out)
    assert is_hub_folder(out)
    (out / "README.md").write_text("edited")
    exported(small, out)
    assert "## Files for other engines" in (out / "README.md").read_text()
    (out / ".git").mkdir()
    (out / ".git" / "HEAD").write_text("ref: refs/heads/main")
    assert not is_hub_folder(out)
    with pytest.raises(OutputError, match="holds something else"):
        exported(small, out)
    assert not is_hub_folder(small)


def refusal(capsys, *arguments):
    status = main([*map(str, arguments), "--layout", "hub"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return status, lines[0]


def test_what_cannot_be_meant_is_one_line(tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    status, line = refusal(capsys, SHIPPED, "--recipe", "int8", *out)
    assert (status, "--recipe does not go with --layout hub" in line) == (2, True)
    status, line = refusal(capsys, SHIPPED, "--format", "npz", *out)
    assert (status, "has no format 'npz'; there are: onnx, gguf, tflite" in line) == (2, True)
    original = ModelConfig(
        hidden_size=64, num_heads=4, num_layers=1, norm_first=True, embedding_norm=False
    )
    save(random_checkpoint(original, "original"), tmp_path / "original")
    status, line = refusal(capsys, tmp_path / "original", *out)
    assert (status, "original is not of BERT's shape" in line) == (2, True)
    assert not (tmp_path / "out").exists()


def test_prompts_and_similarity_are_passed_on(tmp_path):
    source = folders.sentence_transformer(folders.bert(tmp_path / "a"), tmp_path / "b")
    settings = source / "config_sentence_transformers.json"
    folders.edit(settings, prompts=PROMPTS, default_prompt_name="query", similarity_fn_name="dot")
    hub = load(exported(source, tmp_path / "hub").folder)
    assert (dict(hub.prompts), hub.default_prompt_name, hub.similarity) == (PROMPTS, "query", "dot")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "`query: ` unless told otherwise" in card
    assert np.isfinite(hub.tensors["embeddings.word_embeddings.weight"]).all()
