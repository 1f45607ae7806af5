"""Documents from files: text, Markdown, HTML, PDF, JSON lines, tables, feeds, SQLite queries.

Nothing here opens a network connection; a reader's library is imported when a file needs it.
"""

from __future__ import annotations

from asterisk.sources.document import Database, Document, Options, Report, Skipped, digest
from asterisk.sources.reading import documents, read
from asterisk.sources.scan import SourceFile, scan

__all__ = [
    "Database",
    "Document",
    "Options",
    "Report",
    "Skipped",
    "SourceFile",
    "digest",
    "documents",
    "read",
    "scan",
]
