"""Toy models and toy sets of every kind, so small that their answers can be checked."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from asterisk.evaluation.models import Model

SUBJECTS = {
    "animals": ["cat", "dog", "horse", "mouse", "bird", "fish", "sheep", "goat"],
    "money": ["bank", "card", "loan", "cash", "account", "fee", "transfer", "credit"],
    "weather": ["rain", "snow", "wind", "storm", "sun", "cloud", "frost", "heat"],
}
FILLERS = ["the", "a", "of", "with", "near", "under", "some", "many", "old", "new"]


def toy(name: str = "toy", *, size: int = 24, noise: float = 0.0, seed: int = 0) -> Model:
    """A bag of words: each word has a fixed random direction, each text some noise of its own."""
    calls: list[str] = []

    def direction(word: str, salt: int) -> np.ndarray:
        return np.random.default_rng([zlib.crc32(word.encode()), salt]).normal(size=size)

    def encode(texts):
        calls.extend(texts)
        return np.array(
            [
                sum(direction(word, 0) for word in text.lower().split())
                + noise * direction(text, 1 + seed)
                for text in texts
            ],
            "f4",
        )

    model = Model(name, "toy", size, 512, encode)
    model.calls = calls
    return model


def sentence(random: np.random.Generator, subject: str, words: int = 6) -> str:
    own = random.choice(SUBJECTS[subject], max(1, words // 2))
    return " ".join(random.permutation([*own, *random.choice(FILLERS, words - len(own))]))


def write(path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), "utf-8")


def write_retrieval(folder, random, documents: int = 40, words: int = 8) -> None:
    corpus = [sentence(random, list(SUBJECTS)[i % 3], words) + f" d{i}" for i in range(documents)]
    write(folder / "corpus.tsv", [(f"d{i}", text) for i, text in enumerate(corpus)])
    asked = [" ".join(random.permutation(text.split())[:4]) for text in corpus]
    write(folder / "queries.tsv", [(f"q{i}", text) for i, text in enumerate(asked)])
    write(folder / "qrels.tsv", [(f"q{i}", f"d{i}", 1) for i in range(documents)])


@pytest.fixture
def data(tmp_path):
    """A folder of sets: similarity, paraphrases, classification, clusters, retrieval."""
    random = np.random.default_rng(0)
    root = tmp_path / "eval"
    kinds = list(SUBJECTS)

    def pair(index):
        one, other = kinds[index % 3], kinds[(index // 2) % 3]
        return int(one == other), sentence(random, one), sentence(random, other)

    for part, count in (("train", 60), ("dev", 40), ("test", 50)):
        graded = [pair(i) for i in range(count)]
        write(root / "sts" / f"{part}.tsv", [(s * 4 + i % 2, a, b) for i, (s, a, b) in
                                             enumerate(graded)])  # fmt: skip
    for part, count in (("train", 300), ("test", 50)):
        write(root / "para" / f"{part}.tsv", [pair(i) for i in range(count)])
        labelled = [(kinds[i % 3], f"{sentence(random, kinds[i % 3])} {i}") for i in range(count)]
        write(root / "topics" / f"{part}.tsv", labelled)
    write(root / "groups" / "test.tsv", [(k, sentence(random, k)) for k in kinds for _ in range(9)])
    write_retrieval(root / "ret_toy", random)
    return root
