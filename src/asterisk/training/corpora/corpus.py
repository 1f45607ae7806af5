"""A corpus to train on: raw rows cleaned, deduplicated, drawn and shuffled into one mapped file."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from asterisk.common.corpus import Cleaner
from asterisk.common.errors import ArtifactError, InputError
from asterisk.common.files import replacing_folder
from asterisk.tokenizer import gpt2
from asterisk.training.corpora.clean import Evaluated, RowCounts, Spool
from asterisk.training.corpora.sources import Source, file_source

SCHEMA = 1
PARTS = ("train", "held-out")
SHORT = 120  # bytes of a text, up to which others are generated from it
LONG_ENOUGH = 80  # mean bytes of a source's texts, from which on they are joined
MOST_SOURCES = 0xFFFD
SYNTHETIC = ("joined", "generated")  # sources of texts made here, from those of all others
MOST_WORDS = 30  # of a generated text
Indices = npt.NDArray[np.int64]
Random: TypeAlias = "np.random.Generator"  # as text: `numpy.random` is loaded where it is needed


@dataclass(frozen=True)
class Corpus(Sequence[str]):
    """n texts in shuffled order, read from a mapped file as they are asked for."""

    names: Sequence[str]  # of all sources
    ends: Indices  # [n], where each text's UTF-8 ends
    sources: npt.NDArray[np.uint16]  # [n], an index into the names
    pairs: Indices  # [m, 2], texts that mean the same thing
    blob: mmap.mmap | bytes

    @classmethod
    def open(cls, folder: Path, part: str = "train") -> Corpus:
        """Map one part of a corpus that `prepare` wrote; ArtifactError if it is not one."""
        names, folder = read_description(folder)["sources"], folder / part
        try:
            paths = [folder / f"{field}.npy" for field in ("ends", "sources", "pairs")]
            arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
            with (folder / "texts.bin").open("rb") as file:
                size = file.seek(0, 2)
                blob = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except (OSError, ValueError) as failure:
            raise ArtifactError(f"{folder} is not a corpus: {failure}") from None
        ends, sources, pairs = arrays
        if len(ends) != len(sources) or (int(ends[-1]) if len(ends) else 0) != size:
            raise ArtifactError(f"{folder} is damaged: its index and its texts disagree")
        return cls(list(names), ends, sources, pairs, blob)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = int(self.ends[index - 1]) if index else 0
        return str(self.blob[start : int(self.ends[index])], "utf-8")


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of ``corpus.json``; ArtifactError if ``folder`` holds no corpus."""
    try:
        description = json.loads((folder / "corpus.json").read_text("utf-8"))
    except (OSError, ValueError):
        raise ArtifactError(f"{folder} is no corpus: run asterisk-data first") from None
    if not isinstance(description, dict) or description.get("schema") != SCHEMA:
        raise ArtifactError(f"{folder} is a corpus of another version")
    return description


def is_corpus(folder: Path) -> bool:
    """Tell whether ``folder`` looks like a corpus."""
    return (folder / "corpus.json").is_file()


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """How raw rows become a corpus."""

    texts: int = 800_000  # to draw, about
    joined: int = 20_000  # more of neighbouring texts, so that every position is trained
    generated: int = 0  # more of a Markov chain
    held_out: int = 4_000
    balance: float = 0.75  # r rows give a share of r ** balance: large files drown no small ones
    longest: int = 512  # tokens of a joined text
    fewest_words: int = 1  # in every text of a row
    seed: int = 0


def prepare(
    sources: Sequence[Source | Path],
    recipe: DataRecipe,
    out: Path,
    *,
    evaluated: Evaluated,
    on_progress: Callable[[str], None] = lambda line: None,
) -> dict[str, RowCounts]:
    """Write a corpus; return what became of each source's rows. InputError if nothing is left."""
    if len(sources) > MOST_SOURCES:
        raise InputError(f"{len(sources):,} sources are too many: {MOST_SOURCES:,} at most")
    clean, counts = Cleaner(), dict[str, RowCounts]()
    with replacing_folder(out, is_corpus) as staging:
        with Spool(staging / "spool") as spool:
            for source in sources:
                one = source if isinstance(source, Source) else file_source(source)
                name, number = one.name, 2
                while name in counts or name in SYNTHETIC:
                    name, number = f"{one.name}-{number}", number + 1
                cleaned = (tuple(filter(None, map(clean, row))) for row in one.read())
                counts[name] = spool.fill(cleaned, recipe.fewest_words, evaluated)
                on_progress(f"{name}: {counts[name].kept:,} rows kept")
            spool.seal()
            for part in PARTS:
                size = _write_part(staging / part, spool, recipe, evaluated)
                on_progress(f"{part}: {size:,} texts")
                if not size and part == "train":
                    raise InputError("nothing is left to train on")
        rows = {name: asdict(count) for name, count in counts.items()}
        description = {"schema": SCHEMA, "sources": [*counts, *SYNTHETIC]}
        description |= {"recipe": asdict(recipe), "rows": rows}
        (staging / "corpus.json").write_text(json.dumps(description, indent=1) + "\n", "utf-8")
    return counts


def _write_part(folder: Path, spool: Spool, recipe: DataRecipe, evaluated: Evaluated) -> int:
    """Write one part, shuffled; return its number of texts."""
    random, held_out = np.random.default_rng(recipe.seed), folder.name != "train"
    requested = recipe.held_out if held_out else recipe.texts
    by_source = [spool.rows(source, held_out=held_out) for source in range(spool.sources)]
    weights = np.array([len(rows) ** recipe.balance if len(rows) else 0.0 for rows in by_source])
    texts = np.array([spool.texts_a_row(source) for source in range(spool.sources)])
    shares = np.ceil(requested * weights / max((weights * texts).sum(), 1e-9)).astype(int)
    parts = [
        random.choice(rows, size=min(share, len(rows)), replace=False)
        for rows, share in zip(by_source, shares, strict=True)
    ]
    drawn = np.concatenate([np.empty(0, "i8"), *parts])
    chosen = spool.texts_of(drawn)
    # A corpus smaller than was asked for gets fewer synthetic texts, too.
    scale = requested / recipe.texts * min(1.0, len(chosen) / max(requested, 1))
    joined = _join(spool, by_source, round(recipe.joined * scale), recipe, random)
    synthetic = [(text, spool.sources) for text in joined]
    if not held_out and (count := round(recipe.generated * scale)):
        made = _generate(spool, chosen, count, recipe, random)
        synthetic += [(text.encode(), spool.sources + 1) for text in made if text not in evaluated]
    order = random.permutation(len(chosen) + len(synthetic))
    ends, sources = np.empty(len(order), "i8"), np.empty(len(order), "u2")
    folder.mkdir()
    with (folder / "texts.bin").open("wb") as file:
        for row, index in enumerate(order):
            if index < len(chosen):
                text, sources[row] = spool.bytes_of(chosen[index]), spool.text_source[chosen[index]]
            else:
                text, sources[row] = synthetic[index - len(chosen)]
            file.write(text)
            ends[row] = file.tell()
    np.save(folder / "ends.npy", ends)
    np.save(folder / "sources.npy", sources)
    pairs = np.searchsorted(chosen, spool.pairs_of(drawn))
    np.save(folder / "pairs.npy", np.argsort(order)[pairs])
    return len(order)


def _join(
    spool: Spool, by_source: list[Indices], count: int, recipe: DataRecipe, random: Random
) -> Iterator[bytes]:
    """Yield about ``count`` texts made of the last texts of neighbouring rows."""
    long = [rows for rows in by_source if len(rows) and spool.mean_bytes(rows) >= LONG_ENOUGH]
    weights = np.array([len(rows) ** recipe.balance for rows in long])
    tokenizer = gpt2()
    for rows, weight in zip(long, weights, strict=True):
        last = spool.last_of(rows)
        for start in random.integers(len(rows), size=round(count * weight / weights.sum())):
            left = int(random.integers(recipe.longest // 4, recipe.longest))
            parts: list[bytes] = []
            for text in map(spool.bytes_of, last[start:]):
                left -= len(tokenizer.encode(text.decode("utf-8"))) + 1
                if left < 0:
                    break
                parts.append(text)
            if len(parts) > 1:
                yield b" ".join(parts)


def _generate(
    spool: Spool, chosen: Indices, count: int, recipe: DataRecipe, random: Random
) -> Iterator[str]:
    """Yield about ``count`` new texts of a chain over short ones of ``chosen``."""
    short: list[list[str]] = [[] for _ in range(spool.sources)]
    for index in chosen:
        if len(text := spool.bytes_of(index)) <= SHORT:
            short[spool.text_source[index]].append(text.decode("utf-8"))
    chain, made = MarkovChain(short, recipe.balance), set()
    for _ in range(count):
        generated = chain.text(random)
        if len(generated) > 1 and generated not in made and generated not in spool:
            made.add(generated)
            yield generated


class MarkovChain:
    """Synthetic texts: each word is drawn as some text has it after the two words before it.

    A shallow student errs most on questions and remarks made of small words, of which no corpus has
    enough. A text begins as one of a group of n does with a chance proportional to n**``balance``.
    """

    def __init__(self, groups: Iterable[Iterable[str]], balance: float) -> None:
        vocabulary: dict[str, int] = {"": 0}  # word 0 ends a text; two of them stand between texts
        words = [0, 0]
        self._begins: list[Indices] = []
        for texts in groups:
            begins = []
            for found in filter(None, map(str.split, texts)):
                begins.append(len(words))
                words += [vocabulary.setdefault(word, len(vocabulary)) for word in found]
                words += [0, 0]
            if begins:
                self._begins.append(np.array(begins))
        self._vocabulary = list(vocabulary)
        chances = np.array([len(begins) ** balance for begins in self._begins])
        self._until = chances.cumsum() / chances.sum()
        self._words = np.array(words)
        # Positions after the same two words follow each other in `_order`, from `_first`.
        states = self._words[:-2] * len(vocabulary) + self._words[1:-1]
        self._order = np.argsort(states, kind="stable") + 2
        _, group, counts = np.unique(states, return_inverse=True, return_counts=True)
        self._first = np.concatenate([[0, 0], (np.cumsum(counts) - counts)[group]])
        self._count = np.concatenate([[0, 0], counts[group]])

    def text(self, random: Random) -> str:
        """Return a text of at most `MOST_WORDS`."""
        if not self._begins:
            return ""
        begins = self._begins[np.searchsorted(self._until, random.random(), "right")]
        position = int(begins[random.integers(len(begins))])
        made: list[str] = []
        chances = random.random(MOST_WORDS)
        while len(made) < MOST_WORDS and (word := self._words[position]) != 0:
            after = position + 1
            chosen = int(chances[len(made)] * self._count[after])
            position = int(self._order[self._first[after] + chosen])
            made.append(self._vocabulary[word])
        return " ".join(made)
