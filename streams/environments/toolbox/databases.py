"""SQLite databases as content: two files that hold the same tables are the same, however their pages lie."""

import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

_HEADER = b"SQLite format 3\x00"
_PRAGMAS = ("user_version", "application_id")
_MOST_KNOWN = 4096

BESIDE = ("-wal", "-journal")
"""The ends of the names of files that belong to a database and hold what is not in it yet."""
_INDEX = "-shm"

_known: dict[bytes, bytes] = {}


def is_database(content: bytes) -> bool:
    return content.startswith(_HEADER)


def belongs_to_another(name: str, content: Callable[[str], bytes]) -> bool:
    """Return whether the file `name` is part of the database beside it; `content` gives that of a file by name."""
    return any(name.endswith(end) and is_database(content(name.removesuffix(end))) for end in (*BESIDE, _INDEX))


def digest(content: bytes, beside: Mapping[str, bytes]) -> bytes:
    """A hash of what a database holds, its journals taken in; of its bytes, where SQLite cannot tell what it holds."""
    raw = blake2b(digest_size=16)
    for part in (content, *beside.values()):
        raw.update(len(part).to_bytes(8) + part)
    if raw.digest() not in _known:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[raw.digest()] = _of_tables(content, beside) or raw.digest()
    return _known[raw.digest()]


def _of_tables(content: bytes, beside: Mapping[str, bytes]) -> bytes | None:
    said = blake2b(digest_size=16)
    with tempfile.TemporaryDirectory() as folder:
        for end, part in {"": content, **beside}.items():
            if part:
                Path(folder, f"copy{end}").write_bytes(part)
        try:
            with closing(sqlite3.connect(Path(folder, "copy"))) as database:
                for pragma in _PRAGMAS:
                    said.update(repr(database.execute(f"PRAGMA {pragma}").fetchone()).encode())
                for line in database.iterdump():
                    said.update(line.encode(errors="surrogatepass") + b"\n")
        except (sqlite3.Error, UnicodeError):
            return None  # it is damaged, or needs what only its own program has
    return said.digest()
