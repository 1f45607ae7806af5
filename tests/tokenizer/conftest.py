"""Our tokenizer and Hugging Face's, side by side."""

from __future__ import annotations

import pytest
import tokenizers

from asterisk.tokenizer import Tokenizer, gpt2, huggingface

from .originals import original_encoder, original_merges


@pytest.fixture(scope="session")
def ours() -> Tokenizer:
    return gpt2()


@pytest.fixture(scope="session")
def exported(ours):
    """Hugging Face's engine on the file that we write."""
    theirs = tokenizers.Tokenizer.from_str(huggingface.to_json(ours))
    theirs.encode_special_tokens = True
    return theirs


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
