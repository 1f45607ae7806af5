"""A folder with our files is a Hugging Face tokenizer that gives our ids."""

from __future__ import annotations

import json

import pytest

from asterisk.tokenizer import huggingface

from .texts import AWKWARD


@pytest.fixture(scope="module")
def auto(ours, tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "tokenizer.json").write_text(huggingface.to_json(ours), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(huggingface.config()))
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", AWKWARD)
def test_ids(ours, auto, text):
    assert auto(text)["input_ids"] == ours.encode(text)


def test_special_tokens(ours, auto):
    assert (auto.pad_token_id, auto.mask_token_id) == (ours.pad_id, ours.mask_id)
    assert (auto.model_max_length, len(auto)) == (512, ours.vocab_size)
    assert (auto.bos_token, auto.eos_token, auto.unk_token) == (None, None, None)


def test_padding_and_truncation(ours, auto):
    long = "A sentence, and more. " * 200
    batch = auto([long, "[PAD] short"], padding=True, truncation=True)
    short = ours.encode("[PAD] short")
    assert batch["input_ids"][0] == ours.encode(long, 512)
    assert batch["input_ids"][1] == short + [ours.pad_id] * (512 - len(short))
    assert sum(batch["attention_mask"][1]) == len(short)


def test_it_survives_being_saved_again(ours, auto, tmp_path):
    from transformers import AutoTokenizer

    auto.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in AWKWARD:
        assert again(text)["input_ids"] == ours.encode(text)


def test_decoding(ours, auto):
    for text in AWKWARD:
        assert auto.decode(ours.encode(text)) == text
