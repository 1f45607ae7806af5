"""Systems of others that stand in the same table, measured in the same run.

A module a peer. Each has ``ROW``, what is known of it beforehand; ``prepare(folder)``, which
writes its files once; and ``open(folder, threads)``, which a worker calls.
"""

from __future__ import annotations

NAMES = ("original", "minilm")
