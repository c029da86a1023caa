"""The assignment of episodes to the sides of a canary: drawn once by a keyed hash, written down, and never changed.

While a canary runs, the gateway consults the assignment for every call. The file is written before the call is passed
on, so that a process that was killed at any point finds each episode where it began.
"""

import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import structlog

log = structlog.get_logger()

_CANDIDATE, _CHAMPION = "+", "-"
_KEY = 16


def place(salt: str, key: str) -> float:
    """Return where in [0, 1[ the hash puts the episode with the key `key`; below the share it is the candidate's.

    >>> 0 <= place("salt", "5c1a7d20e4b89f63") < 1
    True
    """
    digest = hmac.digest(salt.encode(), key.encode(), hashlib.sha256)
    return int.from_bytes(digest[:8], "big") / 2**64


class RecentKeys:
    """The newest `most` keys of episodes that the gateway has seen. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: OrderedDict[str, None] = OrderedDict()

    def add(self, key: str) -> None:
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._most:
            self._keys.popitem(last=False)

    def all(self) -> tuple[str, ...]:
        return tuple(self._keys)


class Assignment:
    """The episodes of one canary, in the file at `path`. Belongs to one event loop; call `close` at the end.

    Only those in the candidate's share are written: all others are the champion's by their hash.
    """

    def __init__(self, path: Path, share: float, salt: str) -> None:
        self._path = path
        self._share = share
        self._salt = salt
        self._sides = _read(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # Ends a line that a crash left unfinished.
        os.write(self._file, b"\n")

    def leave_to_champion(self, keys: Iterable[str]) -> None:
        """Keep episodes that began before the canary where they are. Raises `OSError`."""
        new = [key for key in keys if key not in self._sides and self._in_share(key)]
        self._sides |= dict.fromkeys(new, _CHAMPION)
        os.write(self._file, "".join(f"{_CHAMPION}{key}\n" for key in new).encode())
        os.fsync(self._file)

    def is_candidate(self, key: str, *, begins: bool) -> bool:
        """Return whether the candidate answers this call: of an episode that began with it, or begins now in its share.

        An episode that cannot be written down is the champion's.
        """
        known = self._sides.get(key)
        if known is not None:
            return known == _CANDIDATE
        if not self._in_share(key):
            return False
        side = _CANDIDATE if begins else _CHAMPION
        self._sides[key] = side if self._write(side, key) else _CHAMPION
        return self._sides[key] == _CANDIDATE

    def follow(self, key: str) -> None:
        """Have the candidate answer calls with `key` too: later calls of an episode of its will come with it."""
        if key not in self._sides and self._write(_CANDIDATE, key):
            self._sides[key] = _CANDIDATE

    def close(self) -> None:
        os.close(self._file)

    def _in_share(self, key: str) -> bool:
        return place(self._salt, key) < self._share

    def _write(self, side: str, key: str) -> bool:
        try:
            os.write(self._file, f"{side}{key}\n".encode())
        except OSError as error:
            log.warning("an episode of the canary could not be written down", path=str(self._path), error=str(error))
            return False
        return True


def _read(path: Path) -> dict[str, str]:
    """The sides by key. A line that a crash left unfinished was of a call that was never passed on."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    whole = (line for line in lines if len(line) == _KEY + 1 and line[0] in (_CANDIDATE, _CHAMPION))
    sides: dict[str, str] = {}
    for line in whole:
        sides.setdefault(line[1:], line[0])
    return sides
