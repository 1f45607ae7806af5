"""OpenAI's two files, recovered from our table."""

from __future__ import annotations

import json

from asterisk.tokenizer import ByteLevelBPE
from asterisk.tokenizer.huggingface import spell


def original_encoder(ours: ByteLevelBPE) -> bytes:
    """OpenAI's ``encoder.json``."""
    return json.dumps(
        {spell(ours.token_bytes(token)): token for token in range(ours.pad_id)}
    ).encode()


def original_merges(ours: ByteLevelBPE) -> bytes:
    """OpenAI's ``vocab.bpe``."""
    spelt = [spell(ours.token_bytes(token)) for token in range(ours.pad_id)]
    lines = (f"{spelt[left]} {spelt[right]}\n" for left, right in ours.merges())
    return ("#version: 0.2\n" + "".join(lines)).encode()
