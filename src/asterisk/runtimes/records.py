"""The texts of files to vectors, so that an error names the file and the line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from asterisk.common.errors import InputError
from asterisk.common.text_files import Record
from asterisk.runtimes.runtime import OnLong, Runtime


def encode_records(
    runtime: Runtime,
    records: Sequence[Record],
    prompt_name: str | None,
    on_long: OnLong,
    **options: Any,
) -> npt.NDArray[Any]:
    """Return the vectors of ``records``, one a row; ``options`` are those of `Runtime.encode`.

    InputError names the position of a text that the runtime refuses.
    """
    texts = [record.text for record in records]
    try:
        return runtime.encode(texts, prompt_name=prompt_name, on_long=on_long, **options)
    except InputError as failure:
        prompt = runtime.prompt(prompt_name)
        for record in records:
            try:
                runtime.tokenize(prompt + record.text, on_long)
            except InputError:
                raise InputError(f"{record.place}: {failure}") from None
        raise
