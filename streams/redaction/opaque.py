"""Long runs of base64 or hex: an image, a file, a ciphertext, or anybody's data that no pattern can see."""

import re
import string
from collections.abc import Iterator

_ALPHABET = frozenset(string.ascii_letters + string.digits + "+/=_-\r\n")
_HEXADECIMAL = frozenset(string.hexdigits)


class OpaqueRuns:
    """Finds encoded runs of at least `shortest` characters.

    Such a run covers a whole aligned chunk of half its length, so the text is looked at in steps of a chunk; prose
    fails there at its first space.
    """

    def __init__(self, shortest: int) -> None:
        self._shortest, self._chunk = shortest, shortest // 2
        self._full = re.compile(f"[A-Za-z0-9+/=_\\r\\n-]{{{self._chunk},}}")

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        at = 0
        while at + self._chunk <= len(text):
            match = self._full.match(text, at)
            if match is None:
                at += self._chunk
                continue
            start, end = at, match.end()
            while start and text[start - 1] in _ALPHABET:
                start -= 1
            if end - start >= self._shortest and _is_encoded(text[start:end]):
                yield start, end
            at = end


def _is_encoded(run: str) -> bool:
    """Return whether the run is base64 or hex rather than a ruler, a list of words, one to a line, or a long name."""
    letters = set(run) - {"\r", "\n"}
    if letters <= _HEXADECIMAL:
        return len(letters) >= 12
    return len(letters) >= 40 and any(map(str.isdigit, letters))
