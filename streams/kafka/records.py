"""A record as it is read from the log, and a message as it is written there. Roles and the store pass these around."""

from dataclasses import dataclass
from typing import NamedTuple


class Received(NamedTuple):
    """One record of a topic, undecoded. A tuple, for millions of them are made.

    `unreadable` is why a batch could not be read: then this stands for it, with its last offset, and its bytes as they
    lie in the log. From `follows` on, if that is not the record's own offset, there is nothing else to read before it:
    the markers of transactions and, when it is `lacking`, records that the log has not.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    unreadable: str | None = None
    follows: int | None = None
    lacking: bool = False

    @property
    def size(self) -> int:
        """Bytes of its key, its value and its headers."""
        headers = sum(len(name.encode()) + len(value) for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers

    def header(self, name: str) -> str | None:
        """The first header of that name, or None when there is none or its bytes are not text."""
        for found, value in self.headers:
            if found == name:
                try:
                    return value.decode()
                except UnicodeDecodeError:
                    return None
        return None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to publish; the key decides the partition."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def body(self) -> bytes | None:
        """The value as clients take it: they refuse a message that has neither a key nor a value."""
        return b"" if self.key is None and self.value is None else self.value
