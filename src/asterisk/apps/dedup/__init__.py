"""Near-duplicates among texts: exact ones by their digests, near ones by their vectors."""

from __future__ import annotations

from asterisk.apps.dedup.calibration import THRESHOLD
from asterisk.apps.dedup.deduplication import Found, deduplicate
from asterisk.apps.dedup.texts import Cluster

__all__ = ["THRESHOLD", "Cluster", "Found", "deduplicate"]
