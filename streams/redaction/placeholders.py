"""The placeholder of a value: `<EMAIL_3f9a1c>`, the same for one value all through an episode.

The digits are a keyed hash of the episode and the value. Nothing is remembered, so batches, restarts and processes
agree. Without the key one cannot test a guess, or tell that placeholders of two episodes stand for one person.
"""

import hmac
import re
from collections.abc import Iterable

_DIGITS = 6


class Placeholders:
    """The placeholders of kinds, rules and entities, under one key."""

    def __init__(self, key: bytes, names: Iterable[str]) -> None:
        self._key = key
        # Only names that exist: a value dressed up as a placeholder must not pass for one.
        self._pattern = re.compile(f"<(?:{'|'.join(name.upper() for name in names)})_[0-9a-f]{{{_DIGITS}}}>")

    def make(self, episode_id: str, name: str, value: str) -> str:
        parts = [part.encode(errors="surrogatepass") for part in (episode_id, name, value)]
        message = b"".join(len(part).to_bytes(8) + part for part in parts)
        return f"<{name.upper()}_{hmac.digest(self._key, message, 'sha256').hex()[:_DIGITS]}>"

    def within(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of the placeholders that the text holds already."""
        return [match.span() for match in self._pattern.finditer(text)] if "<" in text else []
