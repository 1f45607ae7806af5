"""One table over every runtime: latency, memory, size and fidelity, measured in one run.

``prepare`` exports what is missing and says what there is to measure, in a process of its own;
``run`` starts one ``worker`` a cell of the ``plan``; ``results`` is what comes out and ``render``
what people read. Only the worker imports an engine, and only the one of its cell.
"""

from __future__ import annotations
