"""Files found in folders, in a stable order, unread."""

from __future__ import annotations

import fnmatch
import os
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asterisk.common.errors import InputError
from asterisk.common.terminal import escaped
from asterisk.sources.document import Database, Options, Report, Skipped

READERS = 2  # counts up when readers give other text for the same bytes
UNSETTLED = 2_000_000_000  # nanoseconds; FAT's clock ticks every two seconds, no other is coarser
_TYPES = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
Entry = tuple[Path, os.stat_result, bool]  # whether it is a link
Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read, and the ``source`` of its documents; store ``stamp`` once they are stored."""

    path: Path
    source: str
    # Of size, times, inode and options, before the reading; "" where the file changed so shortly
    # ago that another change might leave no trace.
    stamp: str
    database: Database | None = None

    def unchanged(self, stored: str) -> bool:
        """Return whether ``stored``, the stamp of an earlier scan, proves that nothing changed."""
        return bool(stored) and stored == self.stamp


def scan(
    paths: Sequence[Path], options: Options | None = None, report: Report | None = None
) -> Iterator[SourceFile]:
    """Yield the files of ``paths`` and the options' databases, each once, folders in order.

    Globs and the rule for hidden names are for what is in folders. InputError for a named path that
    cannot be looked at, before anything is yielded; what else is no plain file is reported.
    """
    options, report = options or Options(), report or Report()
    named = [(path, _stat(path)) for path in paths]
    databases = [(database, _stat(database.path)) for database in options.databases]
    seen = {(status.st_dev, status.st_ino) for _, status in databases}
    for path, status in named:
        yield from _walk(path, status, options, report, seen)
    for database, status in databases:
        if not stat.S_ISREG(status.st_mode):
            report(skipped(database.path, _not_a_file(status)))
            continue
        states = [status]
        log = database.path.with_name(database.path.name + "-wal")
        if log.exists():  # what was committed there has not touched the database itself
            states.append(log.stat())
        stamp = _stamp(states, options, f" {database.query}")
        yield SourceFile(database.path, source_name(database.path), stamp, database)


def printable_path(path: Path | str) -> str:
    """Return ``path`` in printable characters, differently for different paths."""
    text = os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return escaped(text)


def source_name(path: Path | str) -> str:
    """Return the `Document.source` of a file: its absolute path, printable."""
    # By name alone: what `Path.resolve` gives would change when a link is moved.
    return printable_path(os.path.abspath(path))  # noqa: PTH100


def skipped(path: Path, reason: str, *, temporary: bool = False) -> Skipped:
    """Return what to report of a file or folder that is not read, or not to its end."""
    return Skipped(printable_path(path), reason, source_name(path), temporary)


def _walk(
    top: Path, status: os.stat_result, options: Options, report: Report, seen: set[Identity]
) -> Iterator[SourceFile]:
    """Yield ``top``, or the files below it, but none that was ``seen``."""
    # A stack of its own: a deep tree must not meet Python's recursion limit.
    stack: list[tuple[Identity | None, Iterator[Entry]]] = [(None, iter([(top, status, False)]))]
    while stack:
        entry = next(stack[-1][1], None)
        if entry is None:
            stack.pop()
            continue
        path, status, is_link = entry
        identity, is_folder = (status.st_dev, status.st_ino), stat.S_ISDIR(status.st_mode)
        if is_folder and is_link and not options.follow:
            report(skipped(path, "a link to a folder, not followed (see --follow)"))
        elif any(identity == other for other, _ in stack):
            report(skipped(path, "leads back to a folder it is in"))
        elif not is_folder and not stat.S_ISREG(status.st_mode):
            report(skipped(path, _not_a_file(status)))
        elif identity not in seen:
            seen.add(identity)
            if is_folder:
                stack.append((identity, _entries(path, top, options, report)))
            else:
                yield SourceFile(path, source_name(path), _stamp([status], options))


def _entries(folder: Path, top: Path, options: Options, report: Report) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    except OSError as failure:
        reason = f"cannot list it: {failure.strerror or failure}"
        report(skipped(folder, reason, temporary=True))
        return
    for entry in entries:
        if not _is_wanted(entry, top, options):
            continue
        path, is_link = Path(entry.path), entry.is_symlink()
        try:
            status = path.stat()
        except OSError as failure:
            broken = isinstance(failure, FileNotFoundError) and is_link
            reason = "a link that leads nowhere" if broken else failure.strerror or str(failure)
            report(skipped(path, reason, temporary=not broken))
        else:
            yield path, status, is_link


def _is_wanted(entry: os.DirEntry[str], top: Path, options: Options) -> bool:
    """Apply hidden names and globs; a folder is left out by ``exclude`` only."""
    if entry.name.startswith(".") and not options.hidden:
        return False
    if not options.include and not options.exclude:
        return True
    names = (entry.name, os.path.relpath(entry.path, top))
    included, excluded = (
        any(fnmatch.fnmatchcase(name, glob) for glob in globs for name in names)
        for globs in (options.include, options.exclude)
    )
    try:
        return not excluded and (included or not options.include or entry.is_dir())
    except OSError:
        return False


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise InputError(f"cannot read {printable_path(path)}: {reason}") from None


def _not_a_file(status: os.stat_result) -> str:
    return f"{_TYPES.get(stat.S_IFMT(status.st_mode), 'something else')}, not a file"


def _stamp(states: list[os.stat_result], options: Options, query: str = "") -> str:
    latest = max(max(it.st_mtime_ns, it.st_ctime_ns) for it in states)
    if time.time_ns() - latest < UNSETTLED:
        return ""
    # Without the options that only choose files.
    options = replace(options, include=(), exclude=(), follow=False, hidden=False, databases=())
    states_text = ":".join(
        f"{it.st_size}:{it.st_mtime_ns}:{it.st_ctime_ns}:{it.st_ino}" for it in states
    )
    how = f"{READERS} {options}{query}".encode("utf-8", "replace")
    return f"{states_text}:{zlib.crc32(how):08x}"
