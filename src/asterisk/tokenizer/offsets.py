"""Where in the text each token comes from, for training; encoding alone does not pay for it."""

from __future__ import annotations

import re
from itertools import accumulate, pairwise

from asterisk.tokenizer.bpe import ByteLevelBPE
from asterisk.tokenizer.tokenizer import SURROGATES, utf8

_CHARACTER = re.compile(f"{SURROGATES.pattern}|.", re.DOTALL)


def encode_with_offsets(
    tokenizer: ByteLevelBPE, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the ids of ``text`` and for each the ``[start, end)`` it covers, in characters.

    A token of part of a character covers all of it, so neighbours may overlap; a leading space
    belongs to its token. These are Hugging Face's offsets with ``trim_offsets=False``.
    """
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    start = 0
    for word, tokens in tokenizer.words(text):
        # The character that each byte of the word belongs to; a surrogate pair is one.
        owners = [
            (start + match.start(), start + match.end())
            for match in _CHARACTER.finditer(word)
            for _ in utf8(match[0])
        ]
        ends = accumulate((len(tokenizer.token_bytes(token)) for token in tokens), initial=0)
        ids += tokens
        spans += [(owners[first][0], owners[end - 1][1]) for first, end in pairwise(ends)]
        start += len(word)
    return ids, spans
