"""What the project is for, shown in one command on the texts that ship.

``artifact`` finds or exports one, ``show`` indexes, asks, finds near-duplicates and sorts texts by
topic, ``prompt`` goes on with the reader's own questions.
"""

from __future__ import annotations
