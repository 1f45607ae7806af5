"""Rows of a Hugging Face dataset, streamed: nothing is downloaded whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from asterisk.common.errors import InputError, one_line
from asterisk.common.plugins import require
from asterisk.training.corpora.sources import Pick, Row, Source, picked


def dataset_source(name: str, split: str, pick: Pick, configuration: str | None = None) -> Source:
    """Return the split of a dataset as a source; ``name`` may also be a folder of data files.

    MissingExtra without the package `datasets`; InputError, on reading, for whatever keeps the
    dataset from being found or read.
    """
    datasets: Any = require("datasets", "datasets")
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # our one line says it
    short = f"{name.rstrip('/').split('/')[-1]}-{split}".replace(".", "_")

    def read() -> Iterator[Row]:
        # Whatever the library and those below it raise for a name, a file or a network.
        try:
            found = iter(datasets.load_dataset(name, configuration, split=split, streaming=True))
        except Exception as failure:
            raise InputError(f"cannot open the dataset {name}: {one_line(failure)}") from None
        return picked(_records(found, name), pick, name)

    return Source(short, read)


def _records(found: Iterator[dict[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    while True:
        try:
            record = next(found)
        except StopIteration:
            return
        except Exception as failure:
            raise InputError(f"cannot read the dataset {name}: {one_line(failure)}") from None
        yield record
