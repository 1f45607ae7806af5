"""A corpus and targets of a made-up teacher, small enough to train on in a second.

Each token has a vector; a text is its tokens' mean with the first token counted again, so that a
bag cannot know it all. Texts come from topics, and case is not seen.
"""

from __future__ import annotations

import json

import numpy as np

from asterisk.tokenizer import gpt2
from asterisk.training.batches import Material
from asterisk.training.corpora import corpus
from asterisk.training.teachers.targets import TargetsInfo

SIZE, WIDE = 32, 48
TOPICS = """
the river bank holds water under old bridge while children play near stone market where farmers
sell bread cheese apples honey during autumn when rain falls over quiet green hills and birds
fly south past tower clock bell church garden wall road train station letter paper ink
"""
WORDS = TOPICS.split()


def texts(count, seed):
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        topic = random.integers(6)
        words = random.choice(WORDS[topic * 8 : topic * 8 + 16], size=random.integers(2, 14))
        spelt = [word.capitalize() if random.random() < 0.3 else word for word in words]
        made.append(" ".join(spelt))
    return made


def write_corpus(folder, train, held_out, pairs=()):
    folder.mkdir(parents=True)
    for part, some in (("train", train), ("held-out", held_out)):
        (folder / part).mkdir()
        blobs = [text.encode() for text in some]
        (folder / part / "texts.bin").write_bytes(b"".join(blobs))
        np.save(folder / part / "ends.npy", np.cumsum([len(blob) for blob in blobs]))
        np.save(folder / part / "sources.npy", np.zeros(len(some), "u2"))
        own = pairs if part == "train" else ()
        np.save(folder / part / "pairs.npy", np.array(own, "i8").reshape(-1, 2))
    description = {"schema": corpus.SCHEMA, "sources": ["wiki_sentences", "mine"]}
    (folder / "corpus.json").write_text(json.dumps(description | {"recipe": {}, "rows": {}}))


def material(train, held_out, recipe, pairs=()):
    """What a run learns from, all of its held-out texts evaluated."""
    return Material(
        train=train,
        validation=held_out,
        evaluated=range(len(held_out)),
        held_out=held_out,
        pairs=np.array(pairs, "i8").reshape(-1, 2),
        projection=None,
        sources=(),
        info=TargetsInfo("toy", 512, uncased=True),
        recipe=recipe,
    )


def write_targets(folder, train, held_out, *, tokens=True, shard=8_192, **facts):
    """As `asterisk-teacher` would; ``shard`` texts go into each."""
    folder.mkdir(parents=True)
    axes = np.linalg.qr(np.random.default_rng(7).normal(size=(WIDE, WIDE)))[0]
    projection = axes[:SIZE].astype("f4")
    np.save(folder / "projection.npy", projection)
    facts = {"teacher": "toy", "limit": 512, "size": SIZE, "uncased": True} | facts
    (folder / "targets.json").write_text(json.dumps(facts))
    for part, some in (("train", train), ("held-out", held_out)):
        for number, start in enumerate(range(0, len(some), shard)):
            write_shard(
                folder / part / f"shard-{number:05d}",
                some[start : start + shard],
                projection,
                tokens,
            )


def write_shard(folder, some, projection, tokens=True):
    folder.mkdir(parents=True)
    tokenizer = gpt2()
    meaning = np.random.default_rng(3).normal(size=(50_259, SIZE)).astype("f4")
    ids = [tokenizer.encode(text) for text in some]
    read = [tokenizer.encode(text.lower()) for text in some]
    own = [meaning[these[: len(those)]] for those, these in zip(ids, read, strict=True)]
    own = [np.resize(rows, (len(those), SIZE)) for rows, those in zip(own, ids, strict=True)]
    states = [rows + 0.5 * rows.mean(0) + 0.5 * rows[0] for rows in own]
    sentences = np.stack([rows.mean(0) / np.linalg.norm(rows.mean(0)) for rows in states])
    np.save(folder / "ids.npy", np.concatenate([np.array(these, "u2") for these in ids]))
    np.save(folder / "ends.npy", np.cumsum([len(these) for these in ids]))
    np.save(folder / "sentences.npy", (sentences @ projection).astype("f2"))
    if tokens:
        rows = np.concatenate(states)
        scales = (np.abs(rows).max(1) / 127).astype("f4")
        np.save(folder / "scales.npy", scales)
        np.save(folder / "tokens.npy", np.rint(rows / scales[:, None]).astype("i1"))


def rows():
    """What a token means on average, for a table to start from."""
    return np.random.default_rng(3).normal(size=(50_259, SIZE)).astype("f4")
