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
from asterisk.sources.document import Report, Skipped
from asterisk.sources.options import Database, Options

READERS = 2  # counts up when readers give other text for the same bytes
UNSETTLED = 2_000_000_000  # nanoseconds; FAT's clock ticks every two seconds, no other is coarser


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A candidate, unread: an index that knows its ``stamp`` need not read it again.

    ``source`` is what its documents will carry. ``stamp`` tells size, times, inode and the options
    that matter for reading; it is "" for a file that changed so shortly ago that another change
    might leave no trace in its times. Store it once the file's documents are stored: it was taken
    before they were read, so that a change in between shows at the next scan.
    """

    path: Path
    source: str
    stamp: str
    database: Database | None = None

    def unchanged(self, stored: str) -> bool:
        """Tell whether ``stored``, the stamp of an earlier scan, proves that nothing changed."""
        return bool(stored) and stored == self.stamp


def scan(
    paths: Sequence[Path], options: Options | None = None, report: Report | None = None
) -> Iterator[SourceFile]:
    """Yield the files of ``paths`` and the options' databases, each once, folders in order.

    A path that is named is taken whatever its name; globs and the rule for hidden names are for
    what stands in folders. InputError for a named path that does not exist or cannot be looked at,
    before anything is yielded; everything else that is no plain file is reported.
    """
    options, report = options or Options(), report or Report()
    named = [(path, _look(path)) for path in paths]
    databases = [(database, _look(database.path)) for database in options.databases]
    walk = _Walk(options, report)
    walk.files.update(_identity(facts) for _, facts in databases)
    for path, facts in named:
        yield from walk.named(path, facts)
    for database, facts in databases:
        if stat.S_ISREG(facts.st_mode):
            yield _database(database, facts, options)
        else:
            report(Skipped(shown(database.path), _what(facts.st_mode)))


def shown(path: Path | str) -> str:
    """Return ``path`` in printable characters, differently for different paths.

    Bytes that are not UTF-8 and characters that do not print become escapes, and a backslash two.
    """
    text = os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return escaped(text)


def source_name(path: Path | str) -> str:
    """Return the name a file's documents carry: its absolute path, as `shown`."""
    # By name alone: what `Path.resolve` gives would change when a link is moved.
    return shown(os.path.abspath(path))  # noqa: PTH100


class _Walk:
    """Remembers what was given, so that nothing is given twice."""

    def __init__(self, options: Options, report: Report) -> None:
        self.options, self.report = options, report
        self.files: set[tuple[int, int]] = set()
        self.folders: set[tuple[int, int]] = set()

    def named(self, path: Path, facts: os.stat_result) -> Iterator[SourceFile]:
        if stat.S_ISDIR(facts.st_mode):
            yield from self.folder(path, _identity(facts))
        else:
            yield from self.file(path, facts)

    def file(self, path: Path, facts: os.stat_result) -> Iterator[SourceFile]:
        if not stat.S_ISREG(facts.st_mode):
            self.report(Skipped(shown(path), _what(facts.st_mode)))
        elif _identity(facts) not in self.files:
            self.files.add(_identity(facts))
            yield _file(path, facts, self.options)

    def folder(self, top: Path, identity: tuple[int, int]) -> Iterator[SourceFile]:
        """Walk with a stack of its own: a deep tree must not meet Python's recursion limit."""
        if identity in self.folders:
            return
        self.folders.add(identity)
        above = [(identity, iter(self.listed(top)))]
        while above:
            entry = next(above[-1][1], None)
            if entry is None:
                above.pop()
            elif self.wanted(entry, top):
                yield from self.entry(entry, above)

    def entry(
        self,
        entry: os.DirEntry[str],
        above: list[tuple[tuple[int, int], Iterator[os.DirEntry[str]]]],
    ) -> Iterator[SourceFile]:
        path = Path(entry.path)
        try:
            facts = path.stat()
        except OSError as failure:
            broken = isinstance(failure, FileNotFoundError) and entry.is_symlink()
            reason = "a link that leads nowhere" if broken else failure.strerror or str(failure)
            source = source_name(path)
            self.report(Skipped(shown(path), reason, source, whole=True, passing=not broken))
            return
        if not stat.S_ISDIR(facts.st_mode):
            yield from self.file(path, facts)
            return
        identity = _identity(facts)
        if entry.is_symlink() and not self.options.follow:
            self.report(Skipped(shown(path), "a link to a folder, not followed (see --follow)"))
        elif any(identity == other for other, _ in above):
            self.report(Skipped(shown(path), "leads back to a folder it is in"))
        elif identity not in self.folders:
            self.folders.add(identity)
            above.append((identity, iter(self.listed(path))))

    def listed(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as failure:
            reason = f"cannot list it: {failure.strerror or failure}"
            source = source_name(folder)
            self.report(Skipped(shown(folder), reason, source, whole=True, passing=True))
            return []

    def wanted(self, entry: os.DirEntry[str], top: Path) -> bool:
        """Apply hidden names and globs; a folder is left out by ``exclude`` only."""
        if entry.name.startswith(".") and not self.options.hidden:
            return False
        if not self.options.include and not self.options.exclude:
            return True
        names = (entry.name, os.path.relpath(entry.path, top))
        if _matches(names, self.options.exclude):
            return False
        return (
            not self.options.include or _matches(names, self.options.include) or _is_folder(entry)
        )


def _look(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else None
        raise InputError(f"cannot read {shown(path)}: {reason or failure}") from None


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _matches(names: tuple[str, str], globs: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs for name in names)


def _what(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return f"{kinds.get(stat.S_IFMT(mode), 'something else')}, not a file"


def _file(path: Path, facts: os.stat_result, options: Options) -> SourceFile:
    stamp = _stamp([facts], f"{READERS} {_that_matter(options)}")
    return SourceFile(path, source_name(path), stamp)


def _database(database: Database, facts: os.stat_result, options: Options) -> SourceFile:
    states = [facts]
    log = database.path.with_name(database.path.name + "-wal")
    if log.exists():  # what was committed there has not touched the database itself
        states.append(log.stat())
    file = _file(database.path, facts, options)
    stamp = _stamp(states, f"{READERS} {_that_matter(options)} {database.query}")
    return replace(file, stamp=stamp, database=database)


def _that_matter(options: Options) -> Options:
    """Return the options without those that only choose files."""
    return replace(options, include=(), exclude=(), follow=False, hidden=False, databases=())


def _stamp(states: list[os.stat_result], how: str) -> str:
    now = time.time_ns()
    latest = max(max(it.st_mtime_ns, it.st_ctime_ns) for it in states)
    if now - latest < UNSETTLED:
        return ""
    told = ":".join(f"{it.st_size}:{it.st_mtime_ns}:{it.st_ctime_ns}:{it.st_ino}" for it in states)
    return f"{told}:{zlib.crc32(how.encode('utf-8', 'replace')):08x}"
