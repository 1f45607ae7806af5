"""One adapter an engine, all behind one `Runtime`."""

from __future__ import annotations
