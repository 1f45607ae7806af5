"""Sets of long texts, 257 to 512 GPT-2 tokens, joined from short evaluation texts.

Nothing here was trained on: retrieval documents and labelled texts come from evaluation sets, and
the only texts of a training folder are of its held-out slice and relevant to no query.

A retrieval document is a digest: texts of one set that are alike in their words (TF-IDF, so that no
embedding model chooses), in random order, each asked for by its own queries. ``ret_long_head``
holds the leading texts of the very same digests that end within 256 tokens: same queries as
``ret_long:early``, as many documents, only shorter. ``ret_long:late`` asks for what begins after
token 256.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asterisk.common.errors import InputError
from asterisk.common.files import replacing_folder
from asterisk.evaluation import sets
from asterisk.evaluation.clustering import worthwhile
from asterisk.evaluation.sets import Labelled, Retrieval, Split
from asterisk.evaluation.spaces import tfidf
from asterisk.tokenizer import gpt2

SHORT, LONG = 256, 512  # tokens: a short text ends by the one, a long one between the two
CANDIDATES = 60
PASSAGE = 100  # characters: what is shorter, is no passage
FACTS = "long.json"


@dataclass(frozen=True, slots=True)
class Joined:
    """A long text: the indices of its ``parts``, and after how many tokens each ends."""

    text: str
    head: str
    parts: list[int]
    ends: list[int]

    def early(self, place: int) -> bool:
        """Tell whether a part ends within the first 256 tokens."""
        return self.ends[place] <= SHORT

    def late(self, place: int) -> bool:
        """Tell whether a part begins after the first 256 tokens."""
        return place > 0 and self.ends[place - 1] >= SHORT


@dataclass(slots=True)
class _Digests:
    """Documents, and queries with their document and which of ``all``, early or late they are."""

    documents: list[Joined] = field(default_factory=list)
    queries: list[tuple[str, list[int], str]] = field(default_factory=list)


def make_long(
    out: Path,
    data: Sequence[Path],
    *,
    split: Split = "test",
    corpus: Path | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, int]:
    """Write the long sets of ``data``'s ``split`` to the folder ``out``; return their sizes.

    Held-out passages of the training folder ``corpus`` are added as documents nobody asks for.
    """
    length = _Lengths()
    random = np.random.default_rng(seed)
    found = [each for path in sets.folders(data) for each in sets.load(path, split).sets]
    digests = _Digests()
    labelled: list[Labelled] = []
    for each in found:
        if isinstance(each, Retrieval) and ":" not in each.name:
            tell(each.name)
            _digest(each, digests, length, random)
        elif isinstance(each, Labelled) and each.train and worthwhile(each):
            labelled.append(each)
    if not digests.queries and not labelled:
        raise InputError(f"no {split} set there has texts to join")
    if corpus is not None and digests.queries:
        digests.documents += _distractors(corpus, length, random, tell)
    sizes: dict[str, int] = {}
    with replacing_folder(out, lambda folder: (folder / FACTS).is_file()) as staging:
        tail = "_dev" if split == "dev" else ""
        if digests.queries:
            sizes |= _write_retrieval(staging, digests, tail)
        for each in labelled:
            tell(each.name)
            sizes |= _write_labelled(staging, each, split, length, random)
        facts = {
            "data": [path.name for path in data],
            "corpus": None if corpus is None else corpus.name,
            "split": split,
            "seed": seed,
            "tokens": [SHORT + 1, LONG],
            "sets": sizes,
        }
        (staging / FACTS).write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return sizes


class _Lengths:
    """Token counts, each text counted once."""

    def __init__(self) -> None:
        self.tokenizer = gpt2()
        self.known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        if text not in self.known:
            self.known[text] = len(self.tokenizer.encode(text, LONG + 1))
        return self.known[text]


def join(
    candidates: Iterable[int],
    texts: Sequence[str],
    length: Callable[[str], int],
    random: np.random.Generator,
) -> Joined | None:
    """Join texts in the order of ``candidates``, shuffled then, to 257 to 512 tokens.

    None if they are too few, or none of them can lead. The aim within those bounds is random, so
    that every length occurs.
    """
    aim = int(random.integers(SHORT + 64, LONG + 1))
    parts: list[int] = []
    total = 0
    for index in candidates:
        size = length(f" {texts[index]}")
        if total + size <= aim:
            parts.append(index)
            total += size
        if aim - total < 32:
            break
    parts = [parts[i] for i in random.permutation(len(parts))]
    pieces = [texts[index] for index in parts]
    ends = [length(" ".join(pieces[: place + 1])) for place in range(len(pieces))]
    if not ends or not SHORT < ends[-1] <= LONG or ends[0] > SHORT:
        return None
    leading = sum(end <= SHORT for end in ends)
    return Joined(" ".join(pieces), " ".join(pieces[:leading]), parts, ends)


def _digest(
    each: Retrieval, digests: _Digests, length: _Lengths, random: np.random.Generator
) -> None:
    (rows,) = tfidf(each.documents, each.documents)
    free = np.ones(len(each.documents), bool)
    where: dict[int, tuple[int, int]] = {}
    for start in random.permutation(len(each.documents)).tolist():
        if not free[start]:
            continue
        alike = np.where(free, (rows @ rows[start].T).toarray().ravel(), -1.0)
        alike[start] = 2.0
        order = np.argsort(-alike, kind="stable")[:CANDIDATES]
        joined = join((i for i in order.tolist() if free[i]), each.documents, length, random)
        if joined is None:
            continue
        for place, part in enumerate(joined.parts):
            free[part] = False
            where[part] = len(digests.documents), place
        digests.documents.append(joined)
    for query, gains in zip(each.queries, each.relevant, strict=True):
        if any(part not in where for part in gains):
            continue
        places = [where[part] for part in gains]
        kind = ""
        if all(digests.documents[document].early(place) for document, place in places):
            kind = "early"
        elif all(digests.documents[document].late(place) for document, place in places):
            kind = "late"
        digests.queries.append((query, sorted({document for document, _ in places}), kind))


def _distractors(
    corpus: Path, length: _Lengths, random: np.random.Generator, tell: Callable[[str], None]
) -> Iterator[Joined]:
    from asterisk.evaluation.heldout import passages
    from asterisk.training.corpora.sources import files

    for path in files(corpus):
        tell(path.name)
        some = [text for text in passages(path) if len(text) >= PASSAGE]
        yield from _in_order(some, length, random)


def _in_order(
    texts: Sequence[str], length: _Lengths, random: np.random.Generator
) -> Iterator[Joined]:
    """Join neighbours; what is left at the end of them is dropped."""
    left = list(range(len(texts)))
    while left:
        joined = join(left[:CANDIDATES], texts, length, random)
        if joined is None:  # one text that fits nowhere must not end it all
            left = left[1:]
            continue
        taken = set(joined.parts)
        left = [index for index in left if index not in taken]
        yield joined


def _write_retrieval(folder: Path, digests: _Digests, tail: str) -> dict[str, int]:
    documents = digests.documents
    kinds: dict[str, Callable[[str], bool]] = {
        "": lambda kind: True,
        "_early": lambda kind: kind == "early",
        "_late": lambda kind: kind == "late",
    }
    for name, text_of, suffixes in (
        (f"ret_long{tail}", _whole, ("", "_early", "_late")),
        (f"ret_long_head{tail}", _head, ("_early",)),
    ):
        there = folder / name
        there.mkdir()
        _write(there / "corpus.tsv", ((f"d{i}", text_of(it)) for i, it in enumerate(documents)))
        for suffix in suffixes:
            kept = [(i, it) for i, it in enumerate(digests.queries) if kinds[suffix](it[2])]
            if not kept:
                continue
            _write(there / f"queries{suffix}.tsv", ((f"q{i}", it[0]) for i, it in kept))
            _write(
                there / f"qrels{suffix}.tsv",
                ((f"q{i}", f"d{document}", "1") for i, it in kept for document in it[1]),
            )
    return {f"ret_long{tail}": len(documents), f"ret_long{tail} queries": len(digests.queries)}


def _write_labelled(
    folder: Path, each: Labelled, split: Split, length: _Lengths, random: np.random.Generator
) -> dict[str, int]:
    """Join texts of one label; a long text then has one label still."""
    sizes = {}
    parts = {"train": (each.train, each.train_labels), split: (each.texts, each.labels)}
    for part, (texts, labels) in parts.items():
        rows: list[tuple[str, Joined]] = []
        for label in sorted(set(labels)):
            own = [text for text, its in zip(texts, labels, strict=True) if its == label]
            rows += [(label, joined) for joined in _in_order(own, length, random)]
        if not rows:
            continue
        for name, text_of in (
            (f"long_{each.name}", _whole),
            (f"long_{each.name}_head", _head),
        ):
            (folder / name).mkdir(exist_ok=True)
            _write(folder / name / f"{part}.tsv", ((label, text_of(it)) for label, it in rows))
        sizes[f"long_{each.name} {part}"] = len(rows)
    return sizes


def _whole(it: Joined) -> str:
    return it.text


def _head(it: Joined) -> str:
    return it.head


def _write(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")
