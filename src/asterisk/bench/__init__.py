"""One table over every runtime: latency, memory, size and fidelity, measured in one run.

``prepare`` exports what is missing; ``runner`` starts one ``worker`` a cell of the ``plan``;
``results`` is what comes out and ``report`` what people read.
"""

from __future__ import annotations
