"""Make an evaluation set of rated reviews from what a package carries.

pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
python benchmarks/reviews.py vaderSentiment-3.3.2.tar.gz DATA/amazon_reviews

The package has 3,708 sentences of Amazon reviews of five products (Hu and Liu, 2004), each with the
mean of twenty people's ratings from -4 to 4 (Hutto and Gilbert, ICWSM 2014). Labels are 1 to 5, a
fifth of that scale each, as stars would be. Whole reviews go to the test split or the train split,
so that no review is in both. The folder is for ``asterisk-eval --data DATA``.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from hashlib import blake2b, sha256
from pathlib import Path

SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
NAME = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
BOUNDS = (-2.4, -0.8, 0.8, 2.4)
TESTED = 3  # one review in so many


def member(data: bytes, name: str) -> bytes:
    """Return a file of a tar.gz."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        found = archive.extractfile(name)
        assert found is not None
        return found.read()


def main() -> None:
    """Write train.tsv and test.tsv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    data = options.package.read_bytes()
    if sha256(data).hexdigest() != SHA256:
        parser.error(f"{options.package} is not the source package of vaderSentiment 3.3.2")
    splits: dict[str, list[str]] = {"train": [], "test": []}
    for line in member(member(data, INNER), NAME).decode("utf-8-sig").splitlines():
        name, rating, text = line.split("\t")
        review = blake2b(name.split("_")[0].encode()).digest()[0]
        label = 1 + sum(float(rating) > bound for bound in BOUNDS)
        if text := " ".join(text.split()):
            splits["train" if review % TESTED else "test"].append(f"{label}\t{text}\n")
    options.out.mkdir(parents=True)
    for split, rows in splits.items():
        (options.out / f"{split}.tsv").write_text("".join(rows), "utf-8")
        print(f"{split}: {len(rows):,} sentences")


if __name__ == "__main__":
    main()
