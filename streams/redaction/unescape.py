r"""A text as a reader of it would see it: `john\u0040example.com` inside a JSON string is an e-mail address.

Escapes of JSON, URLs and HTML are undone, however often they were applied; zero-width characters are dropped, and
digits, dashes and spaces of other scripts become those of ASCII.
"""

import html
import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache

_FOREIGN = (
    "(?:[\u00a0\u00ad\u1680\u180e\u2000-\u2015\u2022\u2024\u2027\u202a-\u202f\u2043\u2044\u205f-\u2064\u2066-\u206f"
    "\u2212\u2215\u2219\u22c5\u3000\u30fb\ufe58\ufe63\ufeff\uff01-\uff5e\uff61\uff65\U0001d400-\U0001d7ff]|[^\\D0-9])"
)
_ESCAPED = (
    r"(?<!\\)\\++(?:u(?P<u>[0-9a-fA-F]{4})|x(?P<x>[0-9a-fA-F]{2})|(?P<letter>[nrtbf\"'/]))"
    r"|%(?:25)*(?P<percent>[0-9a-fA-F]{2})|&(?:amp;)*(?P<entity>#x[0-9a-fA-F]{1,6};|#[0-9]{1,7};|[a-z]{2,6};)"
)
_ESCAPE = re.compile(_ESCAPED)
_ESCAPE_OR_FOREIGN = re.compile(f"{_ESCAPED}|(?P<foreign>{_FOREIGN})")
_FOREIGN_CHARACTER = re.compile(_FOREIGN)
# What looks like a separator, where Unicode's own forms do not lead to it.
_LIKE = dict.fromkeys("\u2044\u2215", "/") | dict.fromkeys("\u2022\u2027\u2219\u22c5\u30fb\uff65", "\u00b7")
_LIKE |= {"\u2212": "-", "\u2043": "-", "\uff61": ".", "\u2024": "."}
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


@dataclass(frozen=True, slots=True)
class Unescaped:
    """The text without escapes, and how its places map back.

    Segment *i* begins at `starts[i]` of `text` and at `origins[i]` of the original. Segments of odd number are escapes.
    """

    text: str
    starts: list[int]
    origins: list[int]

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in the original of `text[start:end]`, which is not empty."""
        first = bisect_right(self.starts, start) - 1
        last = bisect_right(self.starts, end - 1) - 1
        begin = self.origins[first] + (0 if first % 2 else start - self.starts[first])
        if last % 2:
            return begin, self.origins[last + 1]
        return begin, self.origins[last] + end - self.starts[last]

    def snap(self, start: int, end: int) -> tuple[int, int]:
        """The bounds of a stretch of the original, moved inwards where they would cut through an escape."""
        first = bisect_right(self.origins, start) - 1
        last = bisect_right(self.origins, end) - 1
        if first % 2 and start > self.origins[first]:
            start = self.origins[first + 1]
        return start, self.origins[last] if last % 2 else end


def unescape(text: str) -> Unescaped | None:
    """The text without escapes, or None when it has none."""
    escapes = "\\" in text or "%" in text or "&" in text
    foreign = not text.isascii() and _FOREIGN_CHARACTER.search(text) is not None
    if not escapes and not foreign:
        return None
    pieces: list[str] = []
    starts, origins = [0], [0]
    length = copied = 0
    for match in (_ESCAPE_OR_FOREIGN if foreign else _ESCAPE).finditer(text):
        meant = _meaning(match)
        if meant is None:
            continue
        pieces += (text[copied : match.start()], meant)
        length += match.start() - copied
        starts += (length, length + len(meant))
        origins += (match.start(), match.end())
        length += len(meant)
        copied = match.end()
    if not pieces:
        return None
    return Unescaped("".join((*pieces, text[copied:])), starts, origins)


def _meaning(match: re.Match[str]) -> str | None:
    kind, written = match.lastgroup, match[match.lastgroup or 0]
    if kind in ("u", "x", "percent"):
        return chr(int(written, 16))
    if kind == "letter":
        return _LETTERS.get(written, written)
    if kind == "entity":
        meant = html.unescape(f"&{written}")
        return meant if len(meant) == 1 else None
    return _ascii(written)


@cache
def _ascii(character: str) -> str:
    if like := _LIKE.get(character):
        return like
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.digit(character))
    if category == "Cf":
        return ""
    if category == "Zs":
        return " "
    if category == "Pd":
        return "-"
    return unicodedata.normalize("NFKC", character)[:1]
