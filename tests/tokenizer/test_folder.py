"""A model folder's tokenizer is what transformers, and so sentence-transformers, makes of it."""

from __future__ import annotations

import json
import shutil

import pytest

from asterisk.common.errors import ArtifactError
from asterisk.tokenizer import BUILTIN, open_tokenizer
from asterisk.tokenizer.folder import MOST_BYTES, read_tokenizer

from .texts import AWKWARD

TEXTS = [
    *AWKWARD,
    "Hello WORLD Hokkaidō ÀÉ naïve İstanbul ß STRASSE 日本語",
    "[CLS] [MASK] <s> </s> <mask> <pad> <|endoftext|>",
    "a" * 150 + " b internationalization",
    "hello newtok world NEWTOK newtoken",
]


@pytest.fixture(scope="module")
def bert(minilm):
    return json.loads((minilm / "tokenizer.json").read_text("utf-8"))


@pytest.fixture
def folder(tmp_path):
    """Write a model folder."""

    def write(definition=None, config=None, model=None, **files):
        if definition is not None:
            (tmp_path / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
        if config is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **(model or {})}))
        for name, text in files.items():
            path = tmp_path / name.replace("_DOT_", ".")
            path.write_text(text if isinstance(text, str) else json.dumps(text), "utf-8")
        return tmp_path

    return write


def _transformers(folder, **options):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, split_special_tokens=True, **options)


def _agree(folder, tmp_path, model_type="bert"):
    """Check that ours gives transformers' ids, also from what either of them saves."""
    source = read_tokenizer(folder, model_type)
    theirs = _transformers(folder)
    (tmp_path / "saved").mkdir()
    theirs.save_pretrained(tmp_path / "saved")
    shutil.copy(folder / "config.json", tmp_path / "saved")
    again = read_tokenizer(tmp_path / "saved", model_type)
    assert again.identity() == source.identity()
    assert again.compile() == source.compile()
    name, data = source.compile()
    (tmp_path / name).write_bytes(data)
    for ours in (source.open(), open_tokenizer(tmp_path / name)):
        for text in TEXTS:
            assert ours.with_special_tokens(ours.encode(text)) == theirs(text)["input_ids"], text
        assert ours.pad_id == theirs.pad_token_id
        assert ours.vocab_size == source.vocab_size == len(theirs)
    assert {token: i for i, token in enumerate(source.tokens)} == theirs.get_vocab()
    for name, i in source.special.items():
        assert getattr(theirs, f"{name}_token_id") in (i, None)
    return source


BERT = {"tokenizer_class": "BertTokenizer"}
AS_IT_IS = {"tokenizer_class": "PreTrainedTokenizerFast"}
NEWTOK = {"content": "newtok", "lstrip": False, "rstrip": False, "single_word": False}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"do_basic_tokenize": False, "never_split": None},
        {"mask_token": "[NEW]"},
        {"mask_token": None, "pad_token": None},
        {
            "unk_token": {
                "content": "[UNK]",
                "__type": "AddedToken",
                **dict(list(NEWTOK.items())[1:]),
            }
        },
        {"additional_special_tokens": ["newtok"]},
        {"extra_special_tokens": {"image": "newtok"}},
        {"added_tokens_decoder": {"30522": {**NEWTOK, "special": True, "normalized": False}}},
    ],
    ids=str,
)
def test_bert_tokenizer_goes_by_its_configuration(bert, folder, tmp_path, config):
    assert _agree(folder(bert, {**BERT, **config}), tmp_path).kind == "wordpiece"


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (None, {}),
        ({}, {}),
        ({}, {"model_type": "distilbert"}),
        ({"tokenizer_class": "DistilBertTokenizerFast"}, {"model_type": "distilbert"}),
        ({"tokenizer_class": "BertTokenizerFast"}, {"model_type": "roberta"}),
        ({}, {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ({"tokenizer_class": "TokenizersBackend"}, {"model_type": "xlm-roberta"}),
    ],
    ids=str,
)
def test_the_class_is_the_configurations_or_the_models(bert, folder, tmp_path, config, model):
    model_type = model.get("model_type", "bert")
    definition = {**bert, "normalizer": {**bert["normalizer"], "lowercase": False}}
    source = _agree(folder(definition, config, model), tmp_path, model_type)
    as_it_is = "Fast" in str(model) or "TokenizersBackend" in str(config)
    assert source.definition["normalizer"]["lowercase"] is not as_it_is


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "wordpiece"),
        ({"normalizer": None}, "wordpiece"),
        ({"post_processor": None}, "wordpiece"),
        (
            {
                "post_processor": {
                    "type": "BertProcessing",
                    "sep": ["[SEP]", 102],
                    "cls": ["[CLS]", 101],
                }
            },
            "wordpiece",
        ),
        ({"normalizer": {"type": "NFC"}}, "library"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}}, "library"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "library"),
    ],
    ids=str,
)
def test_a_file_is_taken_as_it_is_where_the_class_says_so(bert, folder, tmp_path, change, kind):
    assert _agree(folder({**bert, **change}, AS_IT_IS), tmp_path).kind == kind


def test_an_added_token_that_is_not_special_is_found_in_texts(bert, folder, tmp_path):
    added = {**NEWTOK, "id": 30522, "normalized": True, "special": False}
    definition = {**bert, "added_tokens": [*bert["added_tokens"], added]}
    source = _agree(folder(definition, BERT), tmp_path)
    assert source.kind == "library"
    assert 30522 in source.open().encode("a newtok")


def test_a_vocabulary_of_old_is_read_line_by_line(minilm, folder, tmp_path):
    lines = (minilm / "vocab.txt").read_text("utf-8")
    source = _agree(folder(vocab_DOT_txt=lines), tmp_path)
    assert source.identity() == read_tokenizer(minilm, "bert").identity()


@pytest.mark.parametrize("config", [{}, {"add_prefix_space": True}, {"cls_token": "</s>"}], ids=str)
def test_roberta_tokenizer(byte_level, folder, tmp_path, config):
    config = {"tokenizer_class": "RobertaTokenizer", **config}
    path = folder(byte_level, config, {"model_type": "roberta"})
    source = _agree(path, tmp_path, "roberta")
    assert source.kind == ("library" if config.get("add_prefix_space") else "byte_level_bpe")


def test_roberta_of_old_has_two_files(byte_level, folder, tmp_path):
    model = byte_level["model"]
    merges = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in model["merges"])
    path = folder(
        model={"model_type": "roberta"}, vocab_DOT_json=model["vocab"], merges_DOT_txt=merges
    )
    assert _agree(path, tmp_path, "roberta").kind == "byte_level_bpe"


@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert"])
@pytest.mark.parametrize("config", [{}, {"add_prefix_space": False}], ids=str)
def test_xlm_roberta_tokenizer(unigram, folder, tmp_path, config, model_type):
    config = {"tokenizer_class": "XLMRobertaTokenizer", **config}
    path = folder(unigram, config, {"model_type": model_type})
    assert _agree(path, tmp_path, model_type).kind == "library"


def test_xlm_roberta_tokenizer_keeps_its_character_map(unigram, folder, tmp_path):
    from .charsmap import charsmap

    precompiled = {"type": "Precompiled", "precompiled_charsmap": charsmap({"ﬁ": "fi", "Ａ": "A"})}
    replace = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    definition = {
        **unigram,
        "normalizer": {"type": "Sequence", "normalizers": [precompiled, replace]},
    }
    path = folder(definition, {"tokenizer_class": "XLMRobertaTokenizer"})
    ours = _agree(path, tmp_path).open()
    assert ours.encode("ﬁnd Ａ") == ours.encode("find A")


def test_one_tokenizer_has_one_identity_however_it_is_written_down(byte_level, folder):
    config = {"tokenizer_class": "RobertaTokenizer"}
    source = read_tokenizer(folder(byte_level, config), "roberta")
    merges = [" ".join(pair) for pair in byte_level["model"]["merges"]]
    older = {**byte_level, "model": {**byte_level["model"], "merges": merges, "dropout": 0.0}}
    path = folder(older, config)
    (path / "tokenizer.json").write_text(json.dumps(older, indent=4), "utf-8")
    assert read_tokenizer(path, "roberta").identity() == source.identity()
    assert read_tokenizer(path, "roberta").compile() == source.compile()
    other = read_tokenizer(folder(older, {**config, "cls_token": "</s>"}), "roberta")
    assert other.identity() != source.identity()


def test_our_own_model_has_the_built_in_tokenizer(shipped_model):
    source = read_tokenizer(shipped_model, "bert")
    assert source.compile() == ("tokenizer.bin", BUILTIN.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("which", ["asterisk-256", "all-MiniLM-L6-v2"])
def test_a_folder_saved_by_sentence_transformers_has_the_same_tokenizer(which, request, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    fixture = "minilm" if which == "all-MiniLM-L6-v2" else "shipped_model"
    path = request.getfixturevalue(fixture)
    model = sentence_transformers.SentenceTransformer(str(path), device="cpu")
    model.save(str(tmp_path / "saved"))
    again, source = (read_tokenizer(p, "bert") for p in (tmp_path / "saved", path))
    assert again.identity() == source.identity()
    assert again.compile() == source.compile()


@pytest.mark.slow
@pytest.mark.parametrize("config", [BERT, {**BERT, "do_lower_case": False}, AS_IT_IS], ids=str)
def test_sentence_transformers_lower_casing(minilm, bert, folder, tmp_path, config):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    shutil.copytree(minilm, tmp_path / "model")
    path = tmp_path / "model"
    cased = {**bert, "normalizer": {**bert["normalizer"], "lowercase": False}}
    (path / "tokenizer.json").write_text(json.dumps(cased), "utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 256, "do_lower_case": true}'
    )
    model = sentence_transformers.SentenceTransformer(str(path), device="cpu")
    theirs = model.tokenizer
    theirs.backend_tokenizer.encode_special_tokens = True
    ours = read_tokenizer(path, "bert", lowercase=True).open()
    for text in TEXTS:
        ids = theirs(text, split_special_tokens=True)["input_ids"]
        assert ours.with_special_tokens(ours.encode(text)) == ids
    model.save(str(tmp_path / "saved"))
    again = read_tokenizer(tmp_path / "saved", "bert", lowercase=True)
    assert again.identity() == read_tokenizer(path, "bert", lowercase=True).identity()


@pytest.mark.parametrize(
    ("change", "config", "says"),
    [
        ({"normalizer": {"type": "NFC"}}, BERT, "'NFC' in tokenizer.json contradicts"),
        ({"normalizer": {"type": "Polish"}}, AS_IT_IS, "normalizer 'Polish' is not supported"),
        ({"normalizer": {"type": "Polish"}}, BERT, "normalizer 'Polish' is not supported"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, BERT, "'Whitespace' in tokenizer.json"),
        ({"pre_tokenizer": {"type": "Cut"}}, AS_IT_IS, "pre_tokenizer 'Cut' is not supported"),
        ({"post_processor": {"type": "Late"}}, AS_IT_IS, "post_processor 'Late' is not supported"),
        ({"model": {"type": "Rules", "vocab": {}}}, AS_IT_IS, "model 'Rules' is not supported"),
        ({"model": {"type": "Unigram", "vocab": []}}, BERT, "Unigram"),
        ({}, {"tokenizer_class": "ElectraTokenizer"}, "'ElectraTokenizer' is not supported"),
        ({}, {**BERT, "auto_map": {"AutoTokenizer": ["x.Y", None]}}, "auto_map"),
        ({}, {**BERT, "truncation_side": "left"}, "cut on the left"),
        ({}, {**BERT, "do_lower_case": "yes"}, "do_lower_case"),
        ({}, {**BERT, "cls_token": "[NONE]"}, "cls_token"),
        ({}, {**BERT, "unk_token": "[NONE]"}, r"unknown token '\[NONE\]'"),
        ({}, {**BERT, "unk_token": None}, "unknown token None"),
        ({}, {**BERT, "mask_token": 7}, "mask_token is not a token"),
        ({}, {**BERT, "added_tokens_decoder": {"7": {"content": "newtok"}}}, "has the id 7"),
        ({"added_tokens": 7}, BERT, "added tokens"),
        (
            {"truncation": {"direction": "Left", "max_length": 8, "stride": 0}},
            AS_IT_IS,
            "cut on the Left",
        ),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused_by_name(bert, folder, change, config, says):
    with pytest.raises(ArtifactError, match=says) as caught:
        read_tokenizer(folder({**bert, **change}, config), "bert")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "single",
    [
        [],
        [{"Sequence": {"id": "B", "type_id": 0}}],
        [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
        [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}],
        [{"SpecialToken": {"id": "[X]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "A",
    ],
    ids=str,
)
def test_a_template_is_special_tokens_around_one_text(bert, folder, single):
    template = {**bert["post_processor"], "single": single}
    with pytest.raises(ArtifactError, match="post-processor"):
        read_tokenizer(folder({**bert, "post_processor": template}, AS_IT_IS), "bert")


@pytest.mark.parametrize(
    "vocab",
    [
        {},
        {"[UNK]": -1},
        {"[UNK]": True},
        {"[UNK]": 0.5},
        {"[UNK]": "0"},
        {"[UNK]": 0, "a": 0},
        {"[UNK]": 0, "a": 1 << 40},
        {"[UNK]": 0, "a": 1_000_000},
        [["[UNK]", 0]],
        "vocab.txt",
        None,
    ],
    ids=str,
)
def test_ids_are_integers_from_0(bert, folder, vocab):
    definition = {**bert, "added_tokens": [], "model": {**bert["model"], "vocab": vocab}}
    with pytest.raises(ArtifactError):
        read_tokenizer(folder({**definition, "post_processor": None}, AS_IT_IS), "bert")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"version": NaN}',
        '{"model": 1, "model": 2}',
        '{"model": {"type": "WordPiece", "vocab": {"\\ud800": 0}}}',
        "[" * 100_000,
        "\ufeff{}",
    ],
)
def test_json_is_strict(folder, text):
    path = folder(None, BERT, tokenizer_DOT_json=text)
    with pytest.raises(ArtifactError) as caught:
        read_tokenizer(path, "bert")
    assert "\n" not in str(caught.value)


def test_a_vocabulary_of_gigabytes_is_refused_unread(folder):
    for name in ("tokenizer.json", "vocab.txt"):
        path = folder(None, BERT)
        with (path / name).open("wb") as file:
            file.truncate(2 << 30)  # no more than a hole on disk
        with pytest.raises(ArtifactError, match=f"at most {MOST_BYTES:,} bytes"):
            read_tokenizer(path, "bert")
        (path / name).unlink()


@pytest.mark.parametrize(("name", "model_type"), [("XLMRoberta", "xlm-roberta"), ("Bert", "bert")])
def test_a_folder_without_a_tokenizer_says_how_to_make_one(folder, name, model_type):
    path = folder(None, {"tokenizer_class": f"{name}Tokenizer"})
    (path / "sentencepiece.bpe.model").write_bytes(b"\x0a")
    with pytest.raises(ArtifactError, match="save_pretrained"):
        read_tokenizer(path, model_type)


def test_a_model_type_without_a_tokenizer_class_is_refused(bert, folder):
    with pytest.raises(ArtifactError, match="'mpnet'"):
        read_tokenizer(folder(bert, {}, {"model_type": "mpnet"}), "mpnet")
