"""Near-duplicates among texts: exact ones by their digests, near ones by their vectors.

>>> from asterisk.dedup import deduplicate
>>> found = deduplicate(texts, runtime)  # doctest: +SKIP
>>> [texts[row] for row in found.kept()]  # doctest: +SKIP
"""

from __future__ import annotations

from asterisk.dedup.result import THRESHOLD, Cluster, Found
from asterisk.dedup.run import deduplicate

__all__ = ["THRESHOLD", "Cluster", "Found", "deduplicate"]
