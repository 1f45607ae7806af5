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
from dataclasses import dataclass
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
Query = tuple[str, list[int], str]  # its documents, and "early" or "late" where it is either


@dataclass(frozen=True, slots=True)
class Joined:
    """A long text: its parts, and the leading ones that end within the first 256 tokens."""

    text: str
    head: str
    parts: list[int]  # indices of the texts
    ends: list[int]  # after how many tokens each part ends


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
    documents: list[Joined] = []
    queries: list[Query] = []
    labelled: list[Labelled] = []
    for each in [each for path in sets.folders(data) for each in sets.load(path, split).sets]:
        if isinstance(each, Retrieval) and ":" not in each.name:
            on_progress(each.name)
            queries += _add_digests(each, documents, join)
        elif isinstance(each, Labelled) and each.train and is_topical(each):
            labelled.append(each)
    if not queries and not labelled:
        raise InputError(f"no {split} set has texts to join")
    if corpus is not None and queries:
        for path in files(corpus):
            on_progress(path.name)
            passages = [row[-1] for row in _cleaned(path) if held_out(row)]
            documents += join.all([text for text in passages if len(text) >= PASSAGE])
    sizes: dict[str, int] = {}
    with replacing_folder(out, lambda folder: (folder / LONG_FACTS).is_file()) as staging:
        if queries:
            sizes |= _write_digests(staging, documents, queries, "_dev" if split == "dev" else "")
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
    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        tokenizer = gpt2()
        self.length = cache(lambda text: len(tokenizer.encode(text, LONG + 1)))

    def __call__(self, candidates: Iterable[int], texts: Sequence[str]) -> Joined | None:
        """Join texts in the order of ``candidates``, shuffled then, to 257 to 512 tokens.

        None if they are too few, or none of them can lead. The aim is random: every length occurs.
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
        leading = [" ".join(texts[i] for i in parts[: n + 1]) for n in range(len(parts))]
        ends = [self.length(text) for text in leading]
        if not ends or not SHORT < ends[-1] <= LONG or ends[0] > SHORT:
            return None
        return Joined(leading[-1], leading[sum(end <= SHORT for end in ends) - 1], parts, ends)

    def all(self, texts: Sequence[str]) -> Iterator[Joined]:
        """Join neighbours; what is left at the end of them is dropped."""
        left = list(range(len(texts)))
        while left:
            joined = self(left[:CANDIDATES], texts)
            if joined is None:  # one text that fits nowhere must not end it all
                left = left[1:]
            else:
                parts = set(joined.parts)
                left = [index for index in left if index not in parts]
                yield joined


def _add_digests(each: Retrieval, documents: list[Joined], join: _Joiner) -> Iterator[Query]:
    """Join the documents of a set, and ask each of its queries of what its documents became."""
    (vectors,) = tfidf(each.documents, each.documents)
    free = np.ones(len(each.documents), bool)
    digests: dict[int, int] = {}  # each part's
    spans: dict[int, list[int]] = {}  # after how many tokens it begins and ends there
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
            digests[part] = len(documents)
            spans[part] = [0, *joined.ends][position : position + 2]
        documents.append(joined)
    for query, gains in zip(each.queries, each.relevant, strict=True):
        if all(part in digests for part in gains):
            kind = ""
            if all(spans[part][1] <= SHORT for part in gains):
                kind = "early"
            elif all(spans[part][0] >= SHORT for part in gains):
                kind = "late"
            yield query, sorted({digests[part] for part in gains}), kind


def _write_digests(
    folder: Path, documents: Sequence[Joined], queries: Sequence[Query], tail: str
) -> dict[str, int]:
    long, head = f"ret_long{tail}", f"ret_long_head{tail}"
    _write(folder / long / "corpus.tsv", ((f"d{i}", it.text) for i, it in enumerate(documents)))
    _write(folder / head / "corpus.tsv", ((f"d{i}", it.head) for i, it in enumerate(documents)))
    for set_name, kind in ((long, ""), (long, "early"), (long, "late"), (head, "early")):
        chosen = [(f"q{i}", *it) for i, it in enumerate(queries) if kind in ("", it[2])]
        suffix = f"_{kind}.tsv" if kind else ".tsv"
        if chosen:
            relevant = [(number, f"d{n}", "1") for number, _, found, _ in chosen for n in found]
            _write(folder / set_name / f"queries{suffix}", (it[:2] for it in chosen))
            _write(folder / set_name / f"qrels{suffix}", relevant)
    return {long: len(documents), f"{long} queries": len(queries)}


def _write_labelled(folder: Path, each: Labelled, split: Split, join: _Joiner) -> dict[str, int]:
    """Join texts of one label; a long text then has one label still."""
    sizes = {}
    parts = {"train": (each.train, each.train_labels), split: (each.texts, each.labels)}
    for part, (texts, labels) in parts.items():
        long: list[tuple[str, Joined]] = []
        for label in sorted(set(labels)):
            own = [text for text, its in zip(texts, labels, strict=True) if its == label]
            long += [(label, joined) for joined in join.all(own)]
        if long:
            set_name = f"long_{each.name}"
            _write(folder / set_name / f"{part}.tsv", ((label, it.text) for label, it in long))
            heads = ((label, it.head) for label, it in long)
            _write(folder / f"{set_name}_head" / f"{part}.tsv", heads)
            sizes[f"{set_name} {part}"] = len(long)
    return sizes


def make_dev(
    out: Path, corpus: Path, *, on_progress: Progress = lambda line: None
) -> dict[str, int]:
    """Write retrieval dev sets, one for each training file with enough held-out pairs; their sizes.

    A pair's first text asks for its second. A pair is left out if a row that is trained on has one
    of its texts.
    """
    pairs: dict[str, list[Row]] = {}
    for path in files(corpus):
        if ".tsv" in path.suffixes:
            on_progress(f"{name(path)}: held-out pairs")
            for row in _cleaned(path):
                if len(row) > 1 and row[0] != row[-1] and held_out(row):
                    pairs.setdefault(f"ret_{name(path)}_dev", []).append((row[0], row[-1]))
    digests = {digest(text) for some in pairs.values() for pair in some for text in pair}
    trained: set[int] = set()
    for path in files(corpus):
        on_progress(f"{name(path)}: what is trained on")
        for row in _cleaned(path):
            if not held_out(row):
                trained.update(digests.intersection(map(digest, row)))
    for key, some in pairs.items():
        pairs[key] = [row for row in some if not trained.intersection(map(digest, row))]
    sizes = {key: len(some) for key, some in pairs.items() if len(some) >= FEWEST}
    if not sizes:
        raise InputError(f"{corpus} has no file with {FEWEST} held-out pairs")
    with replacing_folder(out, lambda folder: (folder / DEV_FACTS).is_file()) as staging:
        for key in sizes:
            # Each distinct text once; equal queries share their documents.
            asking, answers = (dict.fromkeys(column) for column in zip(*pairs[key], strict=True))
            queries = {text: f"q{i}" for i, text in enumerate(asking)}
            documents = {text: f"d{i}" for i, text in enumerate(answers)}
            relevant = dict.fromkeys((queries[a], documents[b], "1") for a, b in pairs[key])
            _write(staging / key / "corpus.tsv", ((n, text) for text, n in documents.items()))
            _write(staging / key / "queries.tsv", ((n, text) for text, n in queries.items()))
            _write(staging / key / "qrels.tsv", relevant)
        (staging / DEV_FACTS).write_text(json.dumps({"pairs": sizes}, indent=1) + "\n", "utf-8")
    return sizes


def _cleaned(path: Path) -> Iterator[Row]:
    clean = Cleaner()
    for raw in rows(path):
        if row := tuple(text for column in raw if (text := clean(column))):
            yield row


def _write(path: Path, lines: Iterable[tuple[str, ...]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join("\t".join(line) + "\n" for line in lines), "utf-8")
