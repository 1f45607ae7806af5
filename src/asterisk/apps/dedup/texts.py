"""Texts to deduplicate: their normal form, their numbers, and the exact copies among them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import OutputError

if TYPE_CHECKING:
    from asterisk.sources import Document

Rows = npt.NDArray[np.int64]
Numbers = tuple[str, ...]
Record = dict[str, str]

DIFFER = "differ"
NUMBERS = (DIFFER, "ignore")
FIELDS = ("source", "key", "title", "text")  # of a record
# Bytes of a digest: among 10^9 texts, two different ones share one with probability 1e-21.
DIGEST_SIZE = 16

_FOLDED = str.maketrans(
    dict.fromkeys("‘’‚‛′`´", "'") | dict.fromkeys("“”„‟″«»", '"') | dict.fromkeys("‐‑‒–—―−", "-")
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_PUNCTUATION = re.compile(r"[^\w\s]+")
_DIGITS = re.compile(r"\d+")


def normalize(text: str) -> str:
    """Return ``text`` as it is compared, without differences that are only typesetting.

    These are compatibility forms (NFKC), case, kinds of quotation marks and dashes, white space and
    invisible characters.
    """
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_FOLDED)
    return " ".join(text.casefold().replace("`", "'").split())


def digest(text: str) -> bytes:
    """Return 16 bytes that are the same for texts of one normal form; b"" for an empty text."""
    form = normalize(text)
    if not form:
        return b""
    return hashlib.blake2b(form.encode("utf-8", "replace"), digest_size=DIGEST_SIZE).digest()


def numbers(text: str) -> Numbers:
    """Return the runs of digits in the normal form of ``text``, sorted, without leading zeros.

    Punctuation is removed first: 1,000 is 1000 and 2.5 is 25, as in feeds without punctuation.
    """
    found = _DIGITS.findall(_PUNCTUATION.sub("", normalize(text)))
    return tuple(sorted(digits.lstrip("0") or "0" for digits in found))


def contradict(one: Numbers, other: Numbers) -> bool:
    """Return whether each side has a number that the other one has not, or not as often.

    A truncated end removes numbers and boilerplate adds some, both on one side only.
    """
    ours, theirs = Counter(one), Counter(other)
    return bool(ours - theirs) and bool(theirs - ours)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Rows that say the same, and the one that represents them."""

    representative: int
    members: tuple[int, ...]  # ascending, the representative among them
    similarities: tuple[float, ...]  # cosines with the representative, none below the threshold


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Raise OutputError where a temporary file cannot be written."""
    try:
        yield
    except OSError as failure:
        where, why = tempfile.gettempdir(), failure.strerror or failure
        raise OutputError(f"cannot write a temporary file in {where}: {why}") from failure


class Spool:
    """JSON values in a temporary file without a name: first appended, then read by number.

    ``text_of`` gives the text that is compared of a value. OutputError if the disk is full.
    """

    def __init__(self, text_of: Callable[[Any], str] = str) -> None:
        self.text_of = text_of
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._starts = array("q", [0])

    def append(self, value: Any) -> None:
        """Add one value."""
        raw = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        with disk_errors():
            self._file.write(raw)
        self._starts.append(self._starts[-1] + len(raw))

    def __getitem__(self, number: int) -> Any:
        start, end = self._starts[number], self._starts[number + 1]
        with disk_errors():  # the first read writes what is still in the buffer
            self._file.seek(start)
        return json.loads(self._file.read(end - start))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # closing writes what is left, and the disk may be full
            self._file.close()


def collect(values: Iterable[Any], spool: Spool) -> Copies:
    """Put ``values`` into ``spool``; return which of them are copies of which."""
    digests = bytearray()
    for value in values:
        spool.append(value)
        digests += digest(spool.text_of(value)) or bytes(DIGEST_SIZE)
    return Copies(digests)


class Copies:
    """``rows`` rows, of which ``distinct`` are the first of their kind, ascending, int64 [u].

    ``digests`` are those of all rows, zeros for an ``empty`` one.
    """

    def __init__(self, digests: bytearray) -> None:
        halves = np.frombuffer(digests, "<u8").reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: the first row stays first
        order = order[halves[order].any(axis=1)]
        starts = np.flatnonzero(np.diff(halves[order], axis=0, prepend=np.uint64(0)).any(axis=1))
        by_row = np.argsort(order[starts])
        self.rows, self.empty = len(halves), len(halves) - len(order)
        self.distinct: Rows = order[starts][by_row]
        self._order, self._starts = order, starts[by_row]
        self._sizes = np.diff(starts, append=len(order))[by_row]

    @property
    def copies(self) -> int:
        """Rows that repeat an earlier one."""
        return self.rows - self.empty - len(self.distinct)

    def of(self, number: int) -> list[int]:
        """Return the rows that have the text of distinct row ``number``, ascending."""
        start = self._starts[number]
        rows: list[int] = self._order[start : start + self._sizes[number]].tolist()
        return rows

    def spread(self, clusters: Sequence[Cluster]) -> tuple[Cluster, ...]:
        """Return ``clusters`` of distinct rows as clusters of all rows, the largest first.

        Those of equal size are in the order of their first rows.
        """
        repeated, spread = set(np.flatnonzero(self._sizes > 1).tolist()), []
        alone = repeated.difference(*(cluster.members for cluster in clusters))
        for cluster in [*clusters, *(Cluster(number, (number,), (1.0,)) for number in alone)]:
            pairs = zip(cluster.members, cluster.similarities, strict=True)
            members = sorted((row, cosine) for number, cosine in pairs for row in self.of(number))
            rows, cosines = zip(*members, strict=True)
            spread.append(Cluster(int(self.distinct[cluster.representative]), rows, cosines))
        return tuple(sorted(spread, key=lambda one: (-len(one.members), one.members[0])))


def to_record(document: Document) -> Record:
    """Return what is kept of a document in a spool."""
    return {name: getattr(document, name) for name in FIELDS}


def compared_text(record: Record) -> str:
    """Return what is compared of a document: its title too, unless the text begins with it."""
    title, text = record["title"], record["text"]
    return text if not title or text.startswith(title) else f"{title}\n{text}"
