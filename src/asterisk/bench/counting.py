"""Calls whose instructions an emulator counts. Standard library only.

A call is marked by a system call that fails and that nothing else makes: the plugin of
`asterisk.bench.targets.plugin` writes its counter down at each one.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MARK = 0x2A57E515  # getsid of a process that cannot exist
WARM, COUNTED = 2, 4  # calls of one text: the first ones still allocate


def run(call: Callable[[str], Any], texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Call ``call`` with the first text of each bucket, marking each counted call on both sides.

    Returns the bucket of each pair of marks, in order.
    """
    marked = []
    gc.disable()  # a collection falls into one call or another
    for bucket, some in texts.items():
        for _ in range(WARM):
            call(some[0])
        for _ in range(COUNTED):
            mark()
            call(some[0])
            mark()
            marked.append(bucket)
    return marked


def mark() -> None:
    """Tell the emulator, if it listens, that this is the place."""
    try:
        os.getsid(MARK)
    except OSError:
        return
