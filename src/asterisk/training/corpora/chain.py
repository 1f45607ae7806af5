"""Synthetic texts: a Markov chain over the words of the short ones.

A teacher can be asked about any text. A shallow student errs most on questions and remarks made of
small words, of which no corpus has enough; a chain makes as many more as are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

MOST_WORDS = 30
END = 0
AROUND = (END, END)  # as many as a word depends on


class Chain:
    """Of order 2: each word is drawn as some text has it after the two words before it.

    A text begins as one of a group of n does with a chance proportional to n**``balance``. Without
    texts, none are made.
    """

    def __init__(self, groups: Iterable[Iterable[str]], balance: float) -> None:
        known: dict[str, int] = {"": END}
        flow = [*AROUND]
        self._begins: list[npt.NDArray[np.int64]] = []
        for texts in groups:
            begins = []
            for text in texts:
                if found := text.split():
                    begins.append(len(flow))
                    flow += [known.setdefault(word, len(known)) for word in found]
                    flow += AROUND
            if begins:
                self._begins.append(np.array(begins))
        self._words: Sequence[str] = list(known)
        chances = np.array([len(begins) ** balance for begins in self._begins])
        self._until = chances.cumsum() / chances.sum()
        self._flow = np.array(flow)
        # Places whose two words before are the same follow each other in `_order`, from `_first`.
        states = self._flow[:-2] * len(known) + self._flow[1:-1]
        self._order = np.argsort(states, kind="stable") + len(AROUND)
        _, group, counts = np.unique(states, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        self._first = np.concatenate([AROUND, (ends - counts)[group]])
        self._count = np.concatenate([AROUND, counts[group]])

    def text(self, random: np.random.Generator) -> str:
        """Return a text of at most 30 words."""
        if not self._begins:
            return ""
        begins = self._begins[np.searchsorted(self._until, random.random(), "right")]
        place = int(begins[random.integers(len(begins))])
        made: list[str] = []
        chances = random.random(MOST_WORDS)
        while len(made) < MOST_WORDS and (word := self._flow[place]) != END:
            made.append(self._words[word])
            after = place + 1
            chosen = int(chances[len(made) - 1] * self._count[after])
            place = int(self._order[self._first[after] + chosen])
        return " ".join(made)
