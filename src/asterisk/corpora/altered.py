"""Texts that say almost the same as another: what a student confuses first.

A teacher's vector moves when one word of a text is another, and a shallow student's too little.
Nobody writes such neighbours down, and a teacher can be asked about any text, so they are made:
with one word left out, twice, exchanged with its neighbour or with a word of another text, or
mistyped; another question word in front, or a piece of another text behind.
"""

from __future__ import annotations

import numpy as np

QUESTIONS = ("who", "what", "when", "where", "why", "how", "which", "how many", "how much", "is")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
LEAST = 3  # words


def altered(text: str, other: str, random: np.random.Generator) -> str | None:
    """Return ``text`` with one change, perhaps with words of ``other``; None if it is short."""
    words, others = text.split(), other.split()
    if len(words) < LEAST or not others:
        return None
    place = int(random.integers(len(words)))
    if words[0].lower() in QUESTIONS and random.random() < 0.5:
        return " ".join([QUESTIONS[random.integers(len(QUESTIONS))], *words[1:]])
    kind = random.integers(6)
    if kind == 0:
        del words[place]
    elif kind == 1:
        words.insert(place, words[place])
    elif kind == 2:
        place = min(place, len(words) - 2)
        words[place], words[place + 1] = words[place + 1], words[place]
    elif kind == 3:
        words[place] = others[random.integers(len(others))]
    elif kind == 4:
        words[place] = _mistyped(words[place], random)
    else:
        start = int(random.integers(len(others)))
        words += others[start : start + 1 + int(random.integers(8))]
    made = " ".join(words)
    return None if made == text else made


def _mistyped(word: str, random: np.random.Generator) -> str:
    place, letter = int(random.integers(len(word))), _LETTERS[random.integers(len(_LETTERS))]
    return word[:place] + ("" if random.random() < 0.5 else letter) + word[place + 1 :]
