"""Where in the text each token comes from, for training; encoding alone does not pay for it."""

from __future__ import annotations

from itertools import accumulate, pairwise

from asterisk.tokenizer.tokenizer import Tokenizer
from asterisk.tokenizer.words import utf8


def encode_with_offsets(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the ids of ``text`` and for each the ``[start, end)`` it covers, in characters.

    A token of part of a character covers all of it, so neighbours may overlap; a leading space
    belongs to its token. These are Hugging Face's offsets with ``trim_offsets=False``.
    """
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    start = 0
    for word, tokens in tokenizer.words(text):
        # The character that each byte of the word belongs to.
        owners = [i for i, character in enumerate(word, start) for _ in utf8(character)]
        ends = accumulate((len(tokenizer.token_bytes(token)) for token in tokens), initial=0)
        ids += tokens
        spans += [(owners[first], owners[end - 1] + 1) for first, end in pairwise(ends)]
        start += len(word)
    return ids, spans
