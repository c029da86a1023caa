"""Finds the id of a response of the Responses API in its parts as they pass."""

import re
from dataclasses import dataclass

# The first id in such a reply is its own, as a whole and in its first event.
_ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,512})"')
_WITHIN = 4096


@dataclass(slots=True)
class ResponseId:
    """Looks for the id until it was found, or the reply is longer than it could begin."""

    _head: bytes = b""
    _ended: bool = False

    def find(self, part: bytes) -> str | None:
        """Return the id if it is there now that `part` has come; each is returned once."""
        if self._ended:
            return None
        self._head = (self._head + part)[:_WITHIN]
        found = _ID.search(self._head)
        self._ended = found is not None or len(self._head) == _WITHIN
        return found[1].decode(errors="replace") if found else None
