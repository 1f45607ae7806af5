"""A source's file: opened without waiting, decompressed, decoded as browsers do it.

Its encoding is that of its byte order mark, the one it declares, UTF-8, or a guess. Labels mean
what the WHATWG's Encoding Standard says: "iso-8859-1" is windows-1252.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import stat
from collections.abc import Iterator
from typing import IO, NamedTuple

from asterisk.common.errors import MissingExtra
from asterisk.common.plugins import require
from asterisk.common.text_files import BYTE_ORDER_MARKS, LINE_ENDS, decompressed, numbered_lines
from asterisk.sources.document import Options, Report, Skipped, Unreadable
from asterisk.sources.scan import SourceFile, printable_path

TRIES = 3
GZIP = b"\x1f\x8b"
LONGEST_LINE = 16 << 20  # characters
ERRORS = "asterisk.byte"  # how codecs treat a byte that is wrong
SAMPLE = 64 << 10  # bytes that an encoding is guessed from
# Codecs that are no character sets, or whose cost grows faster than the text.
_REFUSED = {
    "idna", "mbcs", "oem", "punycode", "raw_unicode_escape", "undefined", "unicode_escape", "utf_7",
}  # fmt: skip
# Labels of the standard, without "x-" and "cs", that Python has no codec for.
_LABELS = {
    "cn-big5": "big5", "eucpkdfmtjapanese": "euc-jp", "gb_2312": "gbk", "gb_2312-80": "gbk",
    "iso-10646-ucs-2": "utf-16-le", "iso-ir-149": "cp949", "isolatin9": "iso8859-15",
    "koi": "koi8-r", "koi8": "koi8-r", "koi8-ru": "koi8-u", "ks_c_5601-1989": "cp949",
    "ksc56011987": "cp949", "ksc_5601": "cp949", "logical": "iso8859-8", "mac": "mac-roman",
    "mac-ukrainian": "mac-cyrillic", "sun_eu_greek": "iso8859-7", "ucs-2": "utf-16-le",
    "unicode": "utf-16-le", "unicode-1-1-utf-8": "utf-8", "unicode11utf8": "utf-8",
    "unicode20utf8": "utf-8", "unicodefeff": "utf-16-le", "unicodefffe": "utf-16-be",
    "user-defined": "cp1252", "visual": "iso8859-8", "windows-31j": "cp932",
}  # fmt: skip
_MEANING = {
    "ascii": "cp1252", "big5": "big5hkscs", "euc_kr": "cp949", "gb2312": "gb18030",
    "gbk": "gb18030", "iso8859-1": "cp1252", "iso8859-11": "cp874", "iso8859-9": "cp1254",
    "shift_jis": "cp932", "tis-620": "cp874",
    "utf-16": "utf-16-le", "utf-32": "utf-32-le",  # a marked file is read by its mark
}  # fmt: skip
# What is guessed, the more common one first where two are as likely.
_LIKELY = (
    "cp1252", "cp1251", "gb18030", "cp949", "big5", "cp1250", "iso8859_2", "koi8_r", "cp1254",
    "cp1253", "cp1256", "cp1255", "cp1257", "cp874",
)  # fmt: skip
_BINARY = re.compile(rb"[\0-\x08\x0e-\x1f]")
_NOT_ASCII = re.compile("[^\0-\x7f]+")
_WRONG = re.compile("[\udc80-\udcff]")
_KANA = re.compile("[\u3041-\u30fe]")


class Piece(NamedTuple):
    """What a reader finds: its position in the file (for messages), and parts of a `Document`."""

    position: str
    key: str
    title: str
    text: str
    date: str = ""
    author: str = ""
    tags: tuple[str, ...] = ()


class OpenFile:
    """An open file, read up to the size that it had when it was opened.

    ``head`` is its beginning. ``flaw`` is why it ends too early, if it does.
    """

    number, line, ended = 0, "", False  # the last that `lines` gave, and whether there is no more

    def __init__(
        self, descriptor: int, file: SourceFile, options: Options, report: Report, flaw: str = ""
    ) -> None:
        self.descriptor, self.file, self.options, self.report = descriptor, file, options, report
        self.size, self.head = os.fstat(descriptor).st_size, os.pread(descriptor, 8192, 0)
        self.flaw = flaw

    def skip(self, position: str, reason: str) -> None:
        """Report a part that gives no document; Unreadable where it is all, without a position."""
        if not position:
            raise Unreadable(reason)
        where = f"{printable_path(self.file.path)}, {position}"
        self.report(Skipped(where, reason, self.file.source))

    def note(self, reason: str) -> None:
        """Report a way of reading that the file does not ask for."""
        self.report(Skipped(printable_path(self.file.path), reason, self.file.source, note=True))

    def stream(self) -> io.BufferedReader:
        """Return a reader from the beginning on; Unreadable where the file became shorter."""
        return io.BufferedReader(_Window(self.descriptor, self.size))

    def read(self, *, partial: bool = False) -> bytes:
        """Return all bytes, as they were at one time.

        Unreadable if they are too many or go on changing, or, unless ``partial``, if the file has a
        flaw: a beginning would be found as if it were the whole.
        """
        if self.flaw and not partial:
            raise Unreadable(self.flaw)
        for _ in range(TRIES):
            before = os.fstat(self.descriptor)
            self.size, limit = before.st_size, self.options.largest_file
            if self.size > limit:
                size = f"{self.size / 1e6:,.1f} MB, more than {limit / 1e6:,.1f}"
                raise Unreadable(f"{size} (see --max-file)")
            with contextlib.suppress(Unreadable), self.stream() as stream:
                data = stream.read()
                now = os.fstat(self.descriptor)
                if (before.st_size, before.st_mtime_ns) == (now.st_size, now.st_mtime_ns):
                    return data
        raise Unreadable("changes while it is read", temporary=True)

    def text(self, declaration: re.Pattern[bytes] | None = None, *, partial: bool = False) -> str:
        r"""Return all of it as text, in which lines end in ``\n``; see `read` and `encoding`."""
        raw = self.read(partial=partial)
        encoding, start = self.encoding(declaration, raw)
        return raw[start:].decode(encoding, ERRORS).replace("\r\n", "\n").replace("\r", "\n")

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield each line's number, from 1, and its text with its line end, one at a time.

        Lines that are too long are reported. The last one of a damaged file needs a line end.
        """
        encoding, start = self.encoding()
        with self.stream() as stream:
            stream.read(start)
            text = io.TextIOWrapper(stream, encoding, ERRORS, newline="")
            for number, line in numbered_lines(text, LONGEST_LINE):
                if line is None:
                    self.skip(f"line {number}", f"longer than {LONGEST_LINE >> 20} MB")
                elif line.endswith(LINE_ENDS) or not self.flaw:
                    self.number, self.line = number, line
                    yield number, line
        self.ended = True

    def encoding(
        self, declaration: re.Pattern[bytes] | None = None, raw: bytes = b""
    ) -> tuple[str, int]:
        """Return the codec to read by, with `ERRORS`, and the length of the byte order mark.

        ``declaration`` finds the label in the file's beginning; ``raw`` may be all of the file.
        """
        given, label, raw = codec_of(self.options.encoding or ""), None, raw or self.head
        if found := unicode_codec(self.head, given):
            if not found[1] and not given:
                self.note(f"read as {found[0]}, which it does not say")
            return found
        # In markup a NUL is only one more character that it must not have.
        if b"\0" in raw and not (declaration and self.head.lstrip()[:1] == b"<"):
            raise Unreadable(f"binary (a NUL at byte {raw.index(0) + 1:,})")
        if declaration and (match := declaration.search(self.head[:2048])):
            declared = match.group(1).decode("ascii", "replace")
            label = codec_of(declared)
            if label is None:
                self.note(f"says it is in {declared[:40]!r}, which is unknown")
            elif label.startswith(("utf-16", "utf-32")):  # that could be read as ASCII up to here
                label = "utf-8"
            elif label not in {"utf-8", "cp1252"}:
                return label, 0
        bad, is_utf8, sample = self._count_utf8()
        if not bad:  # in what says it is ASCII or windows-1252, too: that is no accident
            return "utf-8", 0
        if label == "cp1252" or (given and label is None):
            return label or given or "utf-8", 0
        if is_utf8:
            self.note(f"{bad:,} {'byte' if bad == 1 else 'bytes'} of it not UTF-8")
            return "utf-8", 0
        encoding, advice = _guess(sample)
        name = re.sub(r"^cp(125\d|874)$", r"windows-\1", encoding)
        self.note(f"read as {name}, which it does not say{advice}")
        return encoding, 0

    def _count_utf8(self) -> tuple[int, bool, bytes]:
        """Return how many bytes are no UTF-8, whether the rest is, and a sample of the lines."""
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        good = bad = clean = broken = 0
        sample = b""
        with self.stream() as stream:
            while chunk := stream.read(1 << 20):
                if chunk.isascii() and not decoder.getstate()[0]:
                    continue
                for word in _NOT_ASCII.findall(decoder.decode(chunk)):
                    wrong = len(_WRONG.findall(word))
                    good, bad = good + len(word) - wrong, bad + wrong
                    clean, broken = clean + (not wrong), broken + (wrong > 0)
                if len(sample) < SAMPLE:
                    lines = (line for line in chunk.splitlines() if not line.isascii())
                    sample = b"\n".join((sample, *lines))[:SAMPLE]
        cut = len(decoder.getstate()[0])  # within the last character
        # In another encoding few words or none are UTF-8, and they hold more wrong bytes than
        # characters.
        is_utf8 = good >= bad + cut or 4 * clean >= broken > 0 or (good > 0 and not bad)
        return bad + cut, is_utf8, sample


class _Window(io.RawIOBase):
    """The first bytes of a descriptor, read by position."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__()
        self.descriptor, self.size, self.at = descriptor, size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self.descriptor, min(len(buffer), self.size - self.at), self.at)
        if not data and self.at < self.size:
            raise Unreadable("became shorter while it was read", temporary=True)
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


@contextlib.contextmanager
def open_file(file: SourceFile, options: Options, report: Report) -> Iterator[OpenFile]:
    """Open a plain file, gzip or not; Unreadable where it cannot be opened, or ends too early."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY  # a FIFO would wait
    try:
        descriptor = os.open(file.path, flags)
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or str(failure)
        raise Unreadable(reason, temporary=True) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable("not a file any more")
        opened = OpenFile(descriptor, file, options, report)
        if not opened.head.startswith(GZIP):
            yield opened
            return
        import tempfile

        with tempfile.TemporaryFile() as unpacked:
            flaw = _unpack(opened, unpacked)
            yield OpenFile(unpacked.fileno(), file, options, report, flaw)
        if flaw:
            raise Unreadable(flaw)
    except OSError as failure:
        raise Unreadable(failure.strerror or str(failure), temporary=True) from None
    finally:
        os.close(descriptor)


def _unpack(packed: OpenFile, out: IO[bytes]) -> str:
    """Write what gzip has compressed; return why that ends before its end, or ""."""
    import zlib
    from gzip import BadGzipFile

    flaw, limit = "", packed.options.largest_file
    with packed.stream() as stream, decompressed(stream, ".gz") as reader:
        try:
            while chunk := reader.read1(1 << 16):
                if out.tell() + len(chunk) > limit:
                    raise Unreadable(f"more than {limit / 1e6:,.1f} MB unpacked (see --max-file)")
                out.write(chunk)
        except EOFError:
            flaw = "compressed by gzip, and cut off"
        except (BadGzipFile, zlib.error):
            flaw = "compressed by gzip, and damaged"
    if flaw and not out.tell():
        raise Unreadable(flaw)
    out.flush()
    return flaw


def codec_of(label: str) -> str | None:
    """Return Python's codec for what browsers take a label to mean, None if there is none."""
    name = re.sub("^(?:x-)+", "", label.strip().lower())
    name = re.sub(r"^(?:cs)?iso-?8859-?(\d+)(?:-?[ei])?$", r"iso8859-\1", name)
    name = re.sub(r"^(?:windows|dos|cp)-?(\d{3,4})$", r"cp\1", name)
    try:
        codec = codecs.lookup(_LABELS.get(name, name))
        b"a".decode(codec.name, "replace")
    except (LookupError, ValueError, TypeError):
        return codec_of(name.removeprefix("cs")) if name.startswith("cs") else None
    if codec.name.replace("-", "_") in _REFUSED or codec.incrementaldecoder is None:
        return None
    return _MEANING.get(codec.name, codec.name)


def unicode_codec(head: bytes, given: str | None = None) -> tuple[str, int] | None:
    """Return the Unicode codec that a file's first bytes show, and its mark's length, if any does.

    Without a mark it is UTF-16 where most second bytes are NUL and no other, or in markup.
    ``given`` is the user's codec, for a file that has NULs.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if b"\0" not in head:
        return None
    if given and given.startswith(("utf-16", "utf-32")):
        return given, 0
    even, odd = head[::2], head[1::2]
    for encoding, nul, other in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        is_markup = nul[:2] == b"\0\0" and other[:1] == b"<"
        binary = len(_BINARY.findall(other))
        if is_markup or (2 * nul.count(0) > len(nul) and 10 * binary < len(other)):
            return encoding, 0
    return None


def _guess(sample: bytes) -> tuple[str, str]:
    """Return a codec, and advice where nothing could be guessed."""
    for encoding in ("euc_jp", "cp932"):  # kana say more than a guess where there are few words
        text = sample.decode(encoding, "replace")
        kana = len(_KANA.findall(text))
        if 10 * kana > len(text) > 20 * text.count("\ufffd"):
            return encoding, ""
    try:
        library = require("charset_normalizer", "encodings")
    except MissingExtra as failure:
        return "cp1252", f" ({failure})"
    found = library.from_bytes(sample, cp_isolation=[*_LIKELY, "euc_jp", "cp932"])
    if (best := found.best()) is None:
        return "cp1252", ""
    ties = {
        name
        for match in found
        if (match.chaos, match.coherence) == (best.chaos, best.coherence)
        for name in match.could_be_from_charset
    }
    return codec_of(next((it for it in _LIKELY if it in ties), best.encoding)) or "cp1252", ""


def _replace_byte(failure: UnicodeError) -> tuple[str, int]:
    """Give what stands for bytes that are wrong: in UTF-8, a single one may be windows-1252."""
    if not isinstance(failure, UnicodeDecodeError):
        raise failure
    raw, start, end = failure.object, failure.start, failure.end
    if failure.encoding == "charmap":  # what has no character here is a control to browsers
        return (chr(raw[start]) if raw[start] < 0xA0 else "\ufffd"), start + 1
    neighbours = raw[max(start - 1, 0) : start] + raw[end : end + 1]
    if failure.encoding == "utf-8" and end - start == 1 and neighbours.isascii():
        return bytes(raw[start:end]).decode("cp1252", "replace"), end
    return "\ufffd", end


codecs.register_error(ERRORS, _replace_byte)
