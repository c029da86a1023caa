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

# Characters of which a reader takes a digit, a letter, a separator, or nothing at all.
_FOREIGN = frozenset(
    chr(code)
    for first, last in (
        *((0xA0, 0xA0), (0xAD, 0xAD), (0x1680, 0x1680), (0x180E, 0x180E), (0x2000, 0x2015), (0x2022, 0x2022)),
        *((0x2024, 0x2024), (0x2027, 0x2027), (0x202A, 0x202F), (0x2043, 0x2044), (0x205F, 0x2064), (0x2066, 0x206F)),
        *((0x2212, 0x2212), (0x2215, 0x2215), (0x2219, 0x2219), (0x22C5, 0x22C5), (0x3000, 0x3000), (0x30FB, 0x30FB)),
        *((0xFE58, 0xFE58), (0xFE63, 0xFE63), (0xFEFF, 0xFEFF), (0xFF01, 0xFF5E), (0xFF61, 0xFF61), (0xFF65, 0xFF65)),
        (0x1D400, 0x1D7FF),
    )
    for code in range(first, last + 1)
) | {chr(code) for code in range(0x660, 0x1FC00) if chr(code).isdecimal()}
_ESCAPED = (
    r"(?<!\\)\\++(?:u(?P<pair>[dD][89abAB][0-9a-fA-F]{2}\\++u[dD][c-fC-F][0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|x(?P<x>[0-9a-fA-F]{2})|(?P<letter>[nrtbf\"'/]))"
    r"|%(?:25)*(?P<percent>[0-9a-fA-F]{2})|&(?:amp;)*(?P<entity>#x[0-9a-fA-F]{1,6};|#[0-9]{1,7};|[a-z]{2,6};)"
)
_ESCAPE = re.compile(_ESCAPED)
_ESCAPE_OR_FOREIGN = re.compile(f"{_ESCAPED}|(?P<foreign>[^\\x00-\\x7f])")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
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
    foreign = not text.isascii() and not _FOREIGN.isdisjoint(_NOT_ASCII.findall(text))
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
    if kind == "pair":  # halves of a character beyond the 65,536th
        return chr(0x10000 + (int(written[:4], 16) - 0xD800) * 0x400 + int(written[-4:], 16) - 0xDC00)
    if kind == "letter":
        return _LETTERS.get(written, written)
    if kind == "entity":
        meant = html.unescape(f"&{written}")
        return meant if len(meant) == 1 else None
    return _ascii(written) if written in _FOREIGN else None


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
