"""Evaluation sets made of other texts: sets of long texts, and dev sets of a training folder.

Nothing here was trained on: retrieval documents and labelled texts come from evaluation sets, and
the texts of a training folder are of its fixed held-out slice.

A long text has 257 to 512 GPT-2 tokens. A long retrieval document is a digest: texts of one set
that are alike in their words (TF-IDF, so that no embedding model chooses), in random order, each
asked for by its own queries. ``ret_long_head`` holds the leading texts of the very same digests
that end within 256 tokens: same queries as ``ret_long:early``, as many documents, only shorter.
``ret_long:late`` asks for what begins after token 256.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from asterisk.common.corpus import Cleaner, Row, digest, files, held_out, name, rows
from asterisk.common.errors import InputError
from asterisk.common.files import replacing_folder
from asterisk.evaluation import sets
from asterisk.evaluation.models import tfidf
from asterisk.evaluation.sets import Labelled, Retrieval, Split
from asterisk.evaluation.tasks import is_topical
from asterisk.tokenizer import gpt2

SHORT, LONG = 256, 512  # tokens: a short text ends by the one, a long one between the two
CANDIDATES = 60
PASSAGE = 100  # characters: what is shorter, is no passage
FEWEST = 100  # pairs that make a set
LONG_FACTS, DEV_FACTS = "long.json", "held-out.json"
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Joined:
    """A long text: the indices of its ``parts``, and after how many tokens each ends.

    ``head`` is the text of the parts that end within the first 256 tokens.
    """

    text: str
    head: str
    parts: list[int]
    ends: list[int]


@dataclass(slots=True)
class _Digests:
    """Documents, and queries with their documents and whether they are "early", "late" or ""."""

    documents: list[Joined] = field(default_factory=list)
    queries: list[tuple[str, list[int], str]] = field(default_factory=list)


def make_long(
    out: Path,
    data: Sequence[Path],
    *,
    split: Split = "test",
    corpus: Path | None = None,
    seed: int = 0,
    on_progress: Progress = lambda line: None,
) -> dict[str, int]:
    """Write the long sets of ``data``'s ``split`` to the folder ``out``; return their sizes.

    Held-out passages of the training folder ``corpus`` are added as documents nobody asks for.
    """
    join = _Joiner(np.random.default_rng(seed))
    found = [each for path in sets.folders(data) for each in sets.load(path, split).sets]
    digests = _Digests()
    labelled: list[Labelled] = []
    for each in found:
        if isinstance(each, Retrieval) and ":" not in each.name:
            on_progress(each.name)
            _add_digests(each, digests, join)
        elif isinstance(each, Labelled) and each.train and is_topical(each):
            labelled.append(each)
    if not digests.queries and not labelled:
        raise InputError(f"no {split} set has texts to join")
    if corpus is not None and digests.queries:
        for path in files(corpus):
            on_progress(path.name)
            passages = [row[-1] for row in _cleaned(path) if held_out(row)]
            digests.documents += join.all([text for text in passages if len(text) >= PASSAGE])
    sizes: dict[str, int] = {}
    with replacing_folder(out, lambda folder: (folder / LONG_FACTS).is_file()) as staging:
        if digests.queries:
            sizes |= _write_digests(staging, digests, "_dev" if split == "dev" else "")
        for each in labelled:
            on_progress(each.name)
            sizes |= _write_labelled(staging, each, split, join)
        facts = {
            "data": [path.name for path in data],
            "corpus": None if corpus is None else corpus.name,
            "split": split,
            "seed": seed,
            "tokens": [SHORT + 1, LONG],
            "sets": sizes,
        }
        (staging / LONG_FACTS).write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return sizes


class _Joiner:
    """Joins short texts to long ones."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        tokenizer = gpt2()
        self.length = cache(lambda text: len(tokenizer.encode(text, LONG + 1)))

    def __call__(self, candidates: Iterable[int], texts: Sequence[str]) -> Joined | None:
        """Join texts in the order of ``candidates``, shuffled then, to 257 to 512 tokens.

        None if they are too few, or none of them can lead. The aim within those bounds is random,
        so that every length occurs.
        """
        aim = int(self.random.integers(SHORT + 64, LONG + 1))
        parts: list[int] = []
        total = 0
        for index in candidates:
            size = self.length(f" {texts[index]}")
            if total + size <= aim:
                parts.append(index)
                total += size
            if aim - total < 32:
                break
        parts = [parts[i] for i in self.random.permutation(len(parts))]
        pieces = [texts[index] for index in parts]
        ends = [self.length(" ".join(pieces[: place + 1])) for place in range(len(pieces))]
        if not ends or not SHORT < ends[-1] <= LONG or ends[0] > SHORT:
            return None
        leading = sum(end <= SHORT for end in ends)
        return Joined(" ".join(pieces), " ".join(pieces[:leading]), parts, ends)

    def all(self, texts: Sequence[str]) -> Iterator[Joined]:
        """Join neighbours; what is left at the end of them is dropped."""
        left = list(range(len(texts)))
        while left:
            joined = self(left[:CANDIDATES], texts)
            if joined is None:  # one text that fits nowhere must not end it all
                left = left[1:]
                continue
            taken = set(joined.parts)
            left = [index for index in left if index not in taken]
            yield joined


def _add_digests(each: Retrieval, digests: _Digests, join: _Joiner) -> None:
    """Join the documents of a set, and ask each of its queries of what its documents became."""
    (vectors,) = tfidf(each.documents, each.documents)
    free = np.ones(len(each.documents), bool)
    where: dict[int, tuple[int, int]] = {}
    for start in join.random.permutation(len(each.documents)).tolist():
        if not free[start]:
            continue
        alike = np.where(free, (vectors @ vectors[start].T).toarray().ravel(), -1.0)
        alike[start] = 2.0
        order = np.argsort(-alike, kind="stable")[:CANDIDATES]
        joined = join((i for i in order.tolist() if free[i]), each.documents)
        if joined is None:
            continue
        for position, part in enumerate(joined.parts):
            free[part] = False
            where[part] = len(digests.documents), position
        digests.documents.append(joined)
    for query, gains in zip(each.queries, each.relevant, strict=True):
        if any(part not in where for part in gains):
            continue
        kind = ""
        # After how many tokens each of the parts begins and ends.
        parts = [where[part] for part in gains]
        spans = [[0, *digests.documents[i].ends][n : n + 2] for i, n in parts]
        if all(end <= SHORT for _, end in spans):
            kind = "early"
        elif all(begin >= SHORT for begin, _ in spans):
            kind = "late"
        digests.queries.append((query, sorted({document for document, _ in parts}), kind))


def _write_digests(folder: Path, digests: _Digests, tail: str) -> dict[str, int]:
    long, head = f"ret_long{tail}", f"ret_long_head{tail}"
    for set_name, kinds in ((long, ("", "early", "late")), (head, ("early",))):
        (folder / set_name).mkdir()
        texts = (it.text if set_name == long else it.head for it in digests.documents)
        _write(folder / set_name / "corpus.tsv", ((f"d{i}", text) for i, text in enumerate(texts)))
        for kind in kinds:
            asked = [(i, it) for i, it in enumerate(digests.queries) if kind in ("", it[2])]
            suffix = f"_{kind}" if kind else ""
            if asked:
                queries = ((f"q{i}", query) for i, (query, _, _) in asked)
                _write(folder / set_name / f"queries{suffix}.tsv", queries)
                relevant = ((f"q{i}", f"d{n}", "1") for i, (_, found, _) in asked for n in found)
                _write(folder / set_name / f"qrels{suffix}.tsv", relevant)
    return {long: len(digests.documents), f"{long} queries": len(digests.queries)}


def _write_labelled(folder: Path, each: Labelled, split: Split, join: _Joiner) -> dict[str, int]:
    """Join texts of one label; a long text then has one label still."""
    sizes = {}
    parts = {"train": (each.train, each.train_labels), split: (each.texts, each.labels)}
    for part, (texts, labels) in parts.items():
        long: list[tuple[str, Joined]] = []
        for label in sorted(set(labels)):
            own = [text for text, its in zip(texts, labels, strict=True) if its == label]
            long += [(label, joined) for joined in join.all(own)]
        if not long:
            continue
        whole, head = folder / f"long_{each.name}", folder / f"long_{each.name}_head"
        for path in (whole, head):
            path.mkdir(exist_ok=True)
        _write(whole / f"{part}.tsv", ((label, it.text) for label, it in long))
        _write(head / f"{part}.tsv", ((label, it.head) for label, it in long))
        sizes[f"long_{each.name} {part}"] = len(long)
    return sizes


def make_dev(
    out: Path, corpus: Path, *, on_progress: Progress = lambda line: None
) -> dict[str, int]:
    """Write retrieval dev sets to ``out``, one for each training file with enough held-out pairs.

    A pair's first text asks for its second. A pair is left out if a row that is trained on has one
    of its texts. Returns the number of pairs by set.
    """
    pairs: dict[str, list[Row]] = {}
    for path in files(corpus):
        if ".tsv" in path.suffixes:
            on_progress(f"{name(path)}: held-out pairs")
            for row in _cleaned(path):
                if len(row) > 1 and row[0] != row[-1] and held_out(row):
                    pairs.setdefault(name(path), []).append((row[0], row[-1]))
    asked = {digest(text) for some in pairs.values() for pair in some for text in pair}
    trained: set[int] = set()
    for path in files(corpus):
        on_progress(f"{name(path)}: what is trained on")
        for row in _cleaned(path):
            if not held_out(row):
                trained.update(asked.intersection(map(digest, row)))
    remaining = {
        f"ret_{source}_dev": [row for row in some if not trained.intersection(map(digest, row))]
        for source, some in pairs.items()
    }
    remaining = {key: some for key, some in remaining.items() if len(some) >= FEWEST}
    sizes = {key: len(some) for key, some in remaining.items()}
    if not sizes:
        raise InputError(f"{corpus} has no file with {FEWEST} held-out pairs")
    with replacing_folder(out, lambda folder: (folder / DEV_FACTS).is_file()) as staging:
        for key, some in remaining.items():
            folder = staging / key
            folder.mkdir()
            # Each distinct text once; equal queries share their documents.
            documents = {t: f"d{i}" for i, t in enumerate(dict.fromkeys(row[1] for row in some))}
            queries = {t: f"q{i}" for i, t in enumerate(dict.fromkeys(row[0] for row in some))}
            relevant = dict.fromkeys((queries[row[0]], documents[row[1]], "1") for row in some)
            _write(folder / "corpus.tsv", ((number, text) for text, number in documents.items()))
            _write(folder / "queries.tsv", ((number, text) for text, number in queries.items()))
            _write(folder / "qrels.tsv", relevant)
        (staging / DEV_FACTS).write_text(json.dumps({"pairs": sizes}, indent=1) + "\n", "utf-8")
    return sizes


def _cleaned(path: Path) -> Iterator[Row]:
    clean = Cleaner()
    for raw in rows(path):
        if row := tuple(text for column in raw if (text := clean(column))):
            yield row


def _write(path: Path, lines: Iterable[tuple[str, ...]]) -> None:
    path.write_text("".join("\t".join(line) + "\n" for line in lines), "utf-8")
