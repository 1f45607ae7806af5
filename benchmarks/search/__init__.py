"""Search, measured end to end: queries, indexing, memory, size and start, in one run.

``python -m benchmarks.search`` chooses a ``corpus``, has one ``worker`` a process build the
indexes and one a cell query them, and writes what ``report`` makes of it. Only the worker imports
an engine or numpy, so that no page of its is shared with the process that waits for it.
"""

from __future__ import annotations
