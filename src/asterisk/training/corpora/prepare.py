"""From raw files to a corpus: clean, deduplicate, keep evaluation text out, draw, join, shuffle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import InputError
from asterisk.common.files import replacing_folder
from asterisk.tokenizer import gpt2
from asterisk.training.corpora import corpus
from asterisk.training.corpora.chain import Chain
from asterisk.training.corpora.clean import Cleaner, Evaluated
from asterisk.training.corpora.sources import Row, Source, file_source
from asterisk.training.corpora.spool import Removed, Spool

SHORT = 120  # bytes of a text, up to which others are generated from it
LONG_ENOUGH = 80  # mean bytes of a source's texts, from which on they are joined
MOST_SOURCES = 0xFFFD
MADE = ("joined", "generated")  # here, of the texts of all sources
NONE = np.empty(0, "i8")
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """What becomes of raw rows.

    About ``texts`` texts are drawn; a source of r rows gives a share proportional to
    r**``balance``, so that large files do not drown small ones. ``joined`` more are neighbouring
    texts put together up to ``longest`` tokens, so that every position is trained, and
    ``generated`` more come of a Markov chain (`corpora.chain`). Rows are kept whose every
    text has at least ``fewest_words`` words.
    """

    texts: int = 800_000
    joined: int = 20_000
    generated: int = 0
    held_out: int = 4_000
    balance: float = 0.75
    longest: int = 512
    fewest_words: int = 1
    seed: int = 0


def prepare(
    sources: Sequence[Source | Path],
    recipe: DataRecipe,
    out: Path,
    *,
    evaluated: Evaluated,
    progress: Progress = lambda told: None,
) -> dict[str, Removed]:
    """Write the corpus ``out`` from sources; return what became of each one's rows.

    Texts of the held-out slice (`spool.held_out`) are never trained on. InputError if nothing is
    left to train on.
    """
    told: dict[str, Removed] = {}
    with replacing_folder(out, is_corpus) as staging:
        with Spool(staging / "spool") as spool:
            for source in _named(sources):
                removed = spool.fill(_cleaned(source.read()), recipe.fewest_words, evaluated)
                told[source.name] = removed
                progress(f"{source.name}: {removed.kept:,} rows kept")
            spool.seal()
            for part in corpus.PARTS:
                random = np.random.default_rng(recipe.seed)
                size = _part(
                    staging / part, spool, recipe, random, evaluated, apart=part != "train"
                )
                progress(f"{part}: {size:,} texts")
                if not size and part == "train":
                    raise InputError("nothing is left to train on")
        description = {
            "schema": corpus.SCHEMA,
            "sources": [*told, *MADE],
            "recipe": asdict(recipe),
            "rows": {name: asdict(removed) for name, removed in told.items()},
        }
        (staging / "corpus.json").write_text(json.dumps(description, indent=1) + "\n", "utf-8")
    return told


def is_corpus(folder: Path) -> bool:
    """Tell whether ``folder`` may be replaced by a corpus."""
    return (folder / "corpus.json").is_file()


def _named(sources: Sequence[Source | Path]) -> Iterator[Source]:
    """Yield sources whose names differ, from each other and from what is joined."""
    if len(sources) > MOST_SOURCES:
        raise InputError(f"{len(sources):,} sources are too many: {MOST_SOURCES:,} at most")
    taken = set(MADE)
    for source in sources:
        one = source if isinstance(source, Source) else file_source(source)
        numbered = (f"{one.name}-{number}" for number in count(2))
        name = next(name for name in chain([one.name], numbered) if name not in taken)
        taken.add(name)
        yield Source(name, one.read)


def _cleaned(raw: Iterable[Row]) -> Iterator[Row]:
    clean = Cleaner()
    for row in raw:
        yield tuple(text for column in row if (text := clean(column)))


def _part(
    folder: Path,
    spool: Spool,
    recipe: DataRecipe,
    random: np.random.Generator,
    evaluated: Evaluated,
    *,
    apart: bool,
) -> int:
    """Write one part, shuffled, and return how many texts it holds."""
    wanted = recipe.held_out if apart else recipe.texts
    kept = [spool.rows(source, apart=apart) for source in range(spool.sources)]
    drawn = np.concatenate([*_draw(spool, kept, wanted, recipe.balance, random), NONE])
    chosen = spool.texts_of(drawn)
    # A corpus smaller than was asked for gets no more of what is made.
    share = wanted / recipe.texts * min(1.0, len(chosen) / max(wanted, 1))
    count = round(recipe.generated * share)
    made = [
        [*_join(spool, kept, round(recipe.joined * share), recipe, random)],
        [
            text.encode()
            for text in _generate(spool, chosen, 0 if apart else count, recipe, random)
            if text not in evaluated
        ],
    ]
    more = [(text, kind) for kind, texts in enumerate(made) for text in texts]
    order = random.permutation(len(chosen) + len(more))
    place = np.empty(len(order), "i8")
    place[order] = np.arange(len(order))
    pairs = place[np.searchsorted(chosen, spool.pairs_of(drawn))]
    ends = np.empty(len(order), "i8")
    sources = np.empty(len(order), "u2")
    folder.mkdir()
    with (folder / "texts.bin").open("wb") as file:
        for row, index in enumerate(order):
            if index < len(chosen):
                file.write(spool.bytes_of(chosen[index]))
                sources[row] = spool.source_of(chosen[index])
            else:
                text, kind = more[index - len(chosen)]
                file.write(text)
                sources[row] = spool.sources + kind
            ends[row] = file.tell()
    np.save(folder / "ends.npy", ends)
    np.save(folder / "sources.npy", sources)
    np.save(folder / "pairs.npy", pairs)
    return len(order)


def _draw(
    spool: Spool,
    kept: list[npt.NDArray[np.int64]],
    count: int,
    balance: float,
    random: np.random.Generator,
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the rows drawn from each source, about ``count`` texts in all."""
    weights = np.array([len(some) ** balance if len(some) else 0.0 for some in kept])
    texts = np.array([spool.texts_a_row(source) for source in range(spool.sources)])
    shares = np.ceil(count * weights / max((weights * texts).sum(), 1e-9)).astype(int)
    for some, share in zip(kept, shares, strict=True):
        yield random.choice(some, size=min(share, len(some)), replace=False)


def _generate(
    spool: Spool,
    chosen: npt.NDArray[np.int64],
    count: int,
    recipe: DataRecipe,
    random: np.random.Generator,
) -> Iterator[str]:
    """Yield about ``count`` texts of a chain over short ones of ``chosen``, all of them new."""
    if not count:
        return
    short: list[list[str]] = [[] for _ in range(spool.sources)]
    for index in chosen:
        if len(found := spool.bytes_of(index)) <= SHORT:
            short[spool.source_of(index)].append(found.decode("utf-8"))
    chain, made = Chain(short, recipe.balance), set()
    for _ in range(count):
        text = chain.text(random)
        if len(text) > 1 and text not in made and text not in spool:
            made.add(text)
            yield text


def _join(
    spool: Spool,
    kept: list[npt.NDArray[np.int64]],
    count: int,
    recipe: DataRecipe,
    random: np.random.Generator,
) -> Iterator[bytes]:
    """Yield about ``count`` texts made of the last texts of neighbouring rows."""
    long = [some for some in kept if len(some) and spool.mean_bytes(some) >= LONG_ENOUGH]
    weights = np.array([len(some) ** recipe.balance for some in long])
    tokenizer = gpt2()
    for some, weight in zip(long, weights, strict=True):
        for start in random.integers(len(some), size=round(count * weight / weights.sum())):
            room = int(random.integers(recipe.longest // 4, recipe.longest))
            parts: list[bytes] = []
            for row in some[start:]:
                text = spool.bytes_of(spool.last_of(row))
                room -= len(tokenizer.encode(text.decode("utf-8"))) + 1
                if room < 0:
                    break
                parts.append(text)
            if len(parts) > 1:
                yield b" ".join(parts)
