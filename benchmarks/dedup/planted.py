"""A set of texts whose near-duplicates are known, because they were made.

Real texts, and edits that the same item shows in several feeds: boilerplate before or behind it,
other typography, a cut end, a word more, less or elsewhere. Beside them what a reader must not take
for a duplicate (hard negatives): a changed number, the same sentences with other facts in them, and
another passage of the same text.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Edit = Callable[["Material", str], str]

LENGTH = 240  # characters of a base text: a news summary's
SHORTEST = 80
BASE = "base"

_PREFIXES = (
    "BREAKING: ",
    "Update: ",
    "[Sponsored] ",
    "News – ",
    "By our correspondent: ",
    "Today's pick: ",
    "(Reuters) - ",
    "LONDON (AP) — ",
    "From the archive: ",
    "Listen: ",
    "Morning edition | ",
)
_SUFFIXES = (
    " Read more…",
    " [...]",
    " (via newsletter)",
    " Continue reading →",
    " Share this article.",
    " 5 comments",
    " The post appeared first on our blog.",
    " Subscribe for more.",
    " Filed under: News",
    " © All rights reserved.",
)
_FILLERS = ("also", "now", "reportedly", "however", "really", "just", "often", "still", "very")


@dataclass(frozen=True, slots=True)
class Planted:
    """Texts, shuffled; row by row the group of duplicates, the text it was made from, and how.

    Rows of one ``group`` are duplicates of one another, rows of different groups are not;
    ``origin`` is the number of the base text, which a hard negative shares with its group.
    """

    texts: list[str] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    origin: list[int] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)

    def add(self, text: str, group: int, origin: int, kind: str) -> None:
        """Add a row."""
        self.texts.append(" ".join(text.split()))
        self.group.append(group)
        self.origin.append(origin)
        self.kind.append(kind)


class Material:
    """What edits draw from: a seeded source of chance, and words of other texts."""

    def __init__(self, texts: Sequence[str], seed: int) -> None:
        self.draw = random.Random(seed)
        words = {word for text in texts for word in re.findall(r"[A-Za-z]{4,}", text)}
        self.names = sorted(word for word in words if word[0].isupper()) or ["Paris"]
        self.words = sorted(word for word in words if word.islower()) or ["other"]


def plant(sources: Sequence[str], rows: int, seed: int = 0) -> Planted:
    """Return ``rows`` texts made of ``sources``, about 55 % base, 35 % duplicates, 10 % negatives.

    Of ten base texts, four have duplicates (one to three of them, of different kinds) and two have
    a hard negative. A source is left out if a third of its word 5-grams stood in earlier ones, so
    that nature's own near-duplicates do not count as mistakes. ValueError if there are too few.
    """
    material = Material(sources[:5_000], seed)
    made, seen = Planted(), set[int]()
    draw, groups = material.draw, 0
    for source in sources:
        if len(made.texts) >= rows:
            break
        base, rest = cut(source)
        if len(base) < SHORTEST or _is_repeated(base, seen):
            continue
        origin = group = groups
        groups += 1
        made.add(base, group, origin, BASE)
        if draw.random() < 0.4:
            for kind in draw.sample(sorted(DUPLICATES), draw.choice((1, 1, 2, 3))):
                made.add(DUPLICATES[kind](material, base), group, origin, kind)
        if draw.random() < 0.2:
            kind, text = _negative(material, base, rest)
            made.add(text, groups, origin, kind)
            groups += 1
    if len(made.texts) < rows:
        raise ValueError(f"{len(sources):,} texts make {len(made.texts):,} rows, not {rows:,}")
    order = list(range(rows))
    draw.shuffle(order)
    return Planted(
        *(
            [column[row] for row in order]
            for column in (made.texts, made.group, made.origin, made.kind)
        )  # type: ignore[arg-type]
    )


def cut(text: str, length: int = LENGTH) -> tuple[str, str]:
    """Return the beginning of ``text``, whole words, and what follows."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text, ""
    end = text.rfind(" ", 0, length + 1)
    end = end if end > 0 else length
    return text[:end], text[end:].strip()


def _is_repeated(text: str, seen: set[int]) -> bool:
    words = text.casefold().split()
    grams = {
        zlib.crc32(" ".join(words[start : start + 5]).encode())
        for start in range(max(1, len(words) - 4))
    }
    repeated = len(grams & seen) * 3 > len(grams)
    if not repeated:
        seen |= grams
    return repeated


def _negative(material: Material, base: str, rest: str) -> tuple[str, str]:
    kinds = ["facts"]
    if re.search(r"\d", base):
        kinds.append("number")
    if len(rest) >= SHORTEST:
        kinds.append("topic")
    kind = material.draw.choice(kinds)
    if kind == "topic":
        return kind, cut(rest)[0]
    return kind, _number(material, base) if kind == "number" else _facts(material, base)


def _prefix(material: Material, text: str) -> str:
    return material.draw.choice(_PREFIXES) + text


def _suffix(material: Material, text: str) -> str:
    return text + material.draw.choice(_SUFFIXES)


def _typography(material: Material, text: str) -> str:
    draw = material.draw
    text = text.translate(str.maketrans("\"'", "“’"))
    return draw.choice(
        (
            text.upper,
            text.title,
            text.lower,
            lambda: re.sub(r"[^\w\s]", "", text),
            lambda: text.replace(", ", " – ").rstrip(".") + "!",
        )
    )()


def _copy(material: Material, text: str) -> str:
    return material.draw.choice((text, text.replace("'", "’"), text + " "))


def _truncated(material: Material, text: str) -> str:
    words = text.split()
    return " ".join(words[: max(5, int(len(words) * material.draw.uniform(0.6, 0.9)))]) + "…"


def _inserted(material: Material, text: str) -> str:
    words = text.split()
    for _ in range(material.draw.choice((1, 2))):
        words.insert(material.draw.randrange(len(words)), material.draw.choice(_FILLERS))
    return " ".join(words)


def _dropped(material: Material, text: str) -> str:
    words = text.split()
    for _ in range(material.draw.choice((1, 2))):
        del words[material.draw.randrange(len(words))]
    return " ".join(words)


def _swapped(material: Material, text: str) -> str:
    words = text.split()
    position = material.draw.randrange(len(words) - 1)
    words[position], words[position + 1] = words[position + 1], words[position]
    return " ".join(words)


def _combined(material: Material, text: str) -> str:
    return _suffix(material, _truncated(material, _prefix(material, text)))


def _other(material: Material, digits: str) -> str:
    while True:
        number = "".join(material.draw.choice("0123456789") for _ in digits)
        if number != digits:
            return number


def _number(material: Material, text: str) -> str:
    found = material.draw.choice(list(re.finditer(r"\d+", text)))
    return text[: found.start()] + _other(material, found[0]) + text[found.end() :]


def _facts(material: Material, text: str) -> str:
    """Replace numbers, names (but for the first word) and a third of the longer words."""
    draw = material.draw

    def other(found: re.Match[str]) -> str:
        word = found[0]
        if word.isdigit():
            return _other(material, word)
        if word[0].isupper():
            return draw.choice(material.names) if found.start() else word
        return draw.choice(material.words) if draw.random() < 1 / 3 else word

    changed = re.sub(r"\d+|\b[A-Z][a-z]{2,}\b|\b[a-z]{6,}\b", other, text)
    return changed if changed != text else f"{draw.choice(material.names)} {text[::-1]}"


DUPLICATES: dict[str, Edit] = {
    "copy": _copy,
    "prefix": _prefix,
    "suffix": _suffix,
    "typography": _typography,
    "truncated": _truncated,
    "inserted": _inserted,
    "dropped": _dropped,
    "swapped": _swapped,
    "combined": _combined,
}
NEGATIVES = ("number", "facts", "topic")
