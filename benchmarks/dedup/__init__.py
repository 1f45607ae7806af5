"""Deduplication measured against planted near-duplicates, beside SimHash and exact digests.

``python -m benchmarks.dedup --texts FILE… --artifact FOLDER``
"""

from __future__ import annotations
