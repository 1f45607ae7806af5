"""Bytes to text as browsers do it: the mark, what the file declares, UTF-8, a guess.

Labels mean what they mean in the WHATWG's Encoding Standard: files that say "iso-8859-1" are
written in windows-1252. A byte that the encoding does not have costs that byte and nothing else.
"""

from __future__ import annotations

import codecs
import re

from asterisk.common.errors import MissingExtra
from asterisk.common.plugins import require
from asterisk.common.streams.lines import MARKS
from asterisk.sources.document import Unreadable
from asterisk.sources.opening import Opened

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
_MEANT = {
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
_KANA = re.compile("[\u3041-\u30fe]")


def known(label: str) -> str | None:
    """Return Python's codec for what browsers take a label to mean, None if there is none."""
    name = re.sub("^(?:x-)+", "", label.strip().lower())
    name = re.sub(r"^(?:cs)?iso-?8859-?(\d+)(?:-?[ei])?$", r"iso8859-\1", name)
    name = re.sub(r"^(?:windows|dos|cp)-?(\d{3,4})$", r"cp\1", name)
    try:
        found = codecs.lookup(_LABELS.get(name, name))
        b"a".decode(found.name, "replace")
    except (LookupError, ValueError, TypeError):
        return known(name.removeprefix("cs")) if name.startswith("cs") else None
    if found.name.replace("-", "_") in _REFUSED or found.incrementaldecoder is None:
        return None
    return _MEANT.get(found.name, found.name)


def unicode_of(head: bytes, given: str | None = None) -> tuple[str, int] | None:
    """Return the Unicode encoding that a file's first bytes show, and its mark's length.

    Without a mark it is UTF-16 where most second bytes are NUL and no other, as in Latin letters
    and in markup. ``given`` is the user's codec, for what has NULs. None for what shows nothing.
    """
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if b"\0" not in head:
        return None
    if given and given.startswith(("utf-16", "utf-32")):
        return given, 0
    even, odd = head[::2], head[1::2]
    for nul, other, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        is_markup = nul[:2] == b"\0\0" and other[:1] == b"<"
        binary = len(_BINARY.findall(other))
        if is_markup or (2 * nul.count(0) > len(nul) and 10 * binary < len(other)):
            return name, 0
    return None


def encoding_of(
    file: Opened, declaration: re.Pattern[bytes] | None = None, raw: bytes = b""
) -> tuple[str, int]:
    """Return the codec to read a file by, with `ERRORS`, and the length of its byte order mark.

    ``declaration`` finds the label in the file's beginning. ``raw`` may be all of it. What is
    guessed is told in a line. Unreadable for what is binary.
    """
    head, given, label = file.head, known(file.options.encoding or ""), None
    if found := unicode_of(head, given):
        if not found[1] and not given:
            file.note(f"read as {found[0]}, which it does not say")
        return found
    # In markup a NUL is only one more character that it must not have.
    if b"\0" in (raw or head) and not (declaration and head.lstrip().startswith(b"<")):
        raise Unreadable(f"binary (a NUL at byte {(raw or head).index(0) + 1:,})")
    if declaration and (match := declaration.search(head[:2048])):
        said = match.group(1).decode("ascii", "replace")
        label = known(said)
        if label is None:
            file.note(f"says it is in {said[:40]!r}, which is unknown")
        elif label.startswith(("utf-16", "utf-32")):  # that could be read as ASCII up to there
            label = "utf-8"
        elif label not in {"utf-8", "cp1252"}:
            return label, 0
    bad, is_utf8, sample = _as_utf8(file)
    if not bad:  # in what says it is ASCII or windows-1252, too: that is no accident
        return "utf-8", 0
    if label == "cp1252" or (given and label is None):
        return label or given or "utf-8", 0
    if is_utf8:
        file.note(f"{bad:,} {'byte' if bad == 1 else 'bytes'} of it not UTF-8")
        return "utf-8", 0
    encoding, how = _guessed(sample)
    name = re.sub(r"^cp(125\d|874)$", r"windows-\1", encoding)
    file.note(f"read as {name}, which it does not say{how}")
    return encoding, 0


def text_of(
    file: Opened, declaration: re.Pattern[bytes] | None = None, *, partial: bool = False
) -> str:
    """Return a file's text, whose lines end in line feeds only.

    Unreadable for what is binary, too large or cut short; ``partial`` takes what there is.
    """
    raw = file.whole(partial=partial)
    encoding, start = encoding_of(file, declaration, raw)
    return raw[start:].decode(encoding, ERRORS).replace("\r\n", "\n").replace("\r", "\n")


def _as_utf8(file: Opened) -> tuple[int, bool, bytes]:
    """Count the bytes that are no UTF-8; say whether it is UTF-8 for the rest; give lines of it.

    In another encoding few words or none are UTF-8, and they hold more wrong bytes than characters.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    good = bad = clean = broken = 0
    sample = b""
    with file.stream() as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            if chunk.isascii() and not decoder.getstate()[0]:
                continue
            for word in _NOT_ASCII.findall(decoder.decode(chunk)):
                wrong = sum("\udc80" <= letter <= "\udcff" for letter in word)
                good, bad = good + len(word) - wrong, bad + wrong
                clean, broken = clean + (not wrong), broken + (wrong > 0)
            if len(sample) < SAMPLE:
                lines = (line for line in chunk.splitlines() if not line.isascii())
                sample = b"\n".join((sample, *lines))[:SAMPLE]
    cut = len(decoder.getstate()[0])  # within the last character
    is_utf8 = good >= bad + cut or 4 * clean >= broken > 0 or (good > 0 and not bad)
    return bad + cut, is_utf8, sample


def _guessed(sample: bytes) -> tuple[str, str]:
    """Return a codec and, where the guess is none, what would make one."""
    for encoding in ("euc_jp", "cp932"):  # kana are telling where there are few words
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
    score = (best.chaos, best.coherence)
    ties = [
        name
        for it in found
        if (it.chaos, it.coherence) == score
        for name in it.could_be_from_charset
    ]
    return known(next((name for name in _LIKELY if name in ties), best.encoding)) or "cp1252", ""


def _replaced(failure: UnicodeError) -> tuple[str, int]:
    """Give what stands for bytes that are wrong: in UTF-8, a single one may be windows-1252."""
    if not isinstance(failure, UnicodeDecodeError):
        raise failure
    raw, start, end = failure.object, failure.start, failure.end
    if failure.encoding == "charmap":  # what has no character here is a control to browsers
        return (chr(raw[start]) if raw[start] < 0xA0 else "\ufffd"), start + 1
    around = raw[max(start - 1, 0) : start] + raw[end : end + 1]
    if failure.encoding == "utf-8" and end - start == 1 and around.isascii():
        return bytes(raw[start:end]).decode("cp1252", "replace"), end
    return "\ufffd", end


codecs.register_error(ERRORS, _replaced)
