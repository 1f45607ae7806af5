"""The same tokenizer in Hugging Face's files, for a checkpoint folder."""

from __future__ import annotations

import json

from asterisk.tokenizer.alphabet import spell
from asterisk.tokenizer.bpe import ByteLevelBPE

SPECIALS = ("<|endoftext|>", "[PAD]", "[MASK]")
"""The last tokens of the built-in vocabulary, in this order."""

_END, _PAD, _MASK = SPECIALS
_BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": False,
    "use_regex": True,
}


def to_json(tokenizer: ByteLevelBPE) -> str:
    """Return the text of ``tokenizer.json``: a byte-level BPE with three special tokens.

    It cannot say that special tokens in a text are plain text; ``config`` does, or
    ``encode_special_tokens = True`` on a ``tokenizers.Tokenizer``.
    """
    first_special = tokenizer.vocab_size - len(SPECIALS)
    spelt = [spell(tokenizer.token_bytes(token)) for token in range(first_special)]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": first_special + i,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, name in enumerate((_END, _PAD, _MASK))
        ],
        "normalizer": None,
        "pre_tokenizer": _BYTE_LEVEL,
        "post_processor": _BYTE_LEVEL,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: token for token, name in enumerate([*spelt, _END, _PAD, _MASK])},
            "merges": [[spelt[left], spelt[right]] for left, right in tokenizer.merges()],
        },
    }
    return json.dumps(content, ensure_ascii=False)


def config(max_length: int = 512) -> dict[str, object]:
    """Return the content of ``tokenizer_config.json``; ``max_length`` is in tokens."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "split_special_tokens": True,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
        "truncation_side": "right",
        "pad_token": _PAD,
        "mask_token": _MASK,
    }
