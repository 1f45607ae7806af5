"""What opening a tokenizer takes: seconds and resident memory, in a process that has numpy only.

python benchmarks/tokenizer_memory.py                 a synthetic Unigram of XLM-R's size
python benchmarks/tokenizer_memory.py ARTIFACT        the tokenizer of an artifact
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

TOKENS = 250_002
OPEN = """
import sys, time
import numpy
from asterisk.tokenizer import open_tokenizer
def resident():
    text = open("/proc/self/statm").read().split()
    return int(text[1]) * 4096
before, start = resident(), time.perf_counter()
it = open_tokenizer(sys.argv[1])
opened = time.perf_counter() - start
it.encode("the quick brown fox jumps over the lazy dog " * 20)
print(f"{opened:.3f} s to open, {(resident() - before) / 1e6:.1f} MB")
"""


def synthetic(path: Path) -> None:
    """Write a Unigram tokenizer of random words, in the form that sentence encoders have it."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyzäöüéèßабвгдежзийклмн"
    words = {"<s>", "<pad>", "</s>", "<unk>"}
    while len(words) < TOKENS:
        words.add("▁" * draw.randint(0, 1) + "".join(draw.choices(letters, k=draw.randint(1, 9))))
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    vocab = [[word, 0.0] for word in specials]
    vocab += [[word, -draw.uniform(5, 15)] for word in sorted(words - set(specials))]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "always",
            "split": True,
        },
        "post_processor": None,
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False},
    }
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def main() -> None:
    """Print one line."""
    with tempfile.TemporaryDirectory() as scratch:
        if len(sys.argv) > 1:
            (path,) = Path(sys.argv[1]).glob("tokenizer.*")
        else:
            path = Path(scratch) / "tokenizer.json"
            synthetic(path)
        subprocess.run([sys.executable, "-c", OPEN, str(path)], check=True)


if __name__ == "__main__":
    main()
