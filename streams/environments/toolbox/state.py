"""A state folder as a value: read from the disk, compared, and written back. Snapshots are such values."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from streams.environments.toolbox import databases
from streams.errors import SandboxError


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, a symbolic link (its content is where it leads) or a folder (it has no content)."""

    kind: int
    mode: int
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class FolderState:
    """Everything in a folder, by relative path, folders before what lies in them. Sockets and the like are left out."""

    entries: Mapping[str, Entry]

    @classmethod
    def read(cls, folder: Path, known: "FolderState | None" = None) -> "FolderState":
        """Return what is in `folder`; nothing, if it does not exist. What is as in `known` shares its memory.

        Raises `SandboxError` for what cannot be read.
        """
        before = known.entries if known is not None else {}
        entries = {}
        try:
            for path in _below(folder) if folder.exists() else ():
                name = str(path.relative_to(folder))
                entry = _entry(path)
                if entry is not None:
                    entries[name] = before[name] if before.get(name) == entry else entry
        except OSError as error:
            raise SandboxError(
                f"the state {folder} cannot be read: {error}. Where Ratchet runs as root, sandboxes are another user: "
                "let everybody read the toolbox."
            ) from error
        return cls(entries)

    def write(self, folder: Path) -> None:
        """Make `folder`, which exists, hold this and nothing else. What is so already is not touched."""
        for path in [*_below(folder)][::-1]:
            there, wanted = _entry(path), self.entries.get(str(path.relative_to(folder)))
            if wanted is None or there is None or (wanted != there and not wanted.kind == there.kind == stat.S_IFDIR):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        self._add(folder)

    def over(self, folder: Path) -> None:
        """Copy this over what `folder` holds."""
        for name, entry in self.entries.items():
            path = folder / name
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif path.is_dir() and entry.kind != stat.S_IFDIR:
                shutil.rmtree(path)
        self._add(folder)

    def _add(self, folder: Path) -> None:
        for name, entry in self.entries.items():
            path = folder / name
            if path.is_symlink() or path.exists():
                continue
            if stat.S_ISDIR(entry.kind):
                path.mkdir(mode=entry.mode | stat.S_IRWXU)
            elif stat.S_ISLNK(entry.kind):
                path.symlink_to(os.fsdecode(entry.content))
            else:
                # Some sandboxes cannot change a file's mode, only make it with one.
                made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, entry.mode | stat.S_IWUSR)
                with os.fdopen(made, "wb") as file:
                    file.write(entry.content)

    def digest(self) -> str:
        """A hash of names and contents. Of an SQLite database, what it says counts, not how its pages lie."""
        digest = blake2b(digest_size=16)
        for name, entry in sorted(self.entries.items()):
            if databases.belongs_to_another(name, self._content):
                continue
            content = entry.content
            if databases.is_database(content):
                content = databases.digest(content, {end: self._content(name + end) for end in databases.BESIDE})
            for part in (name.encode(errors="surrogateescape"), str(entry.kind).encode(), content):
                digest.update(len(part).to_bytes(8) + part)
        return digest.hexdigest()

    def _content(self, name: str) -> bytes:
        entry = self.entries.get(name)
        return entry.content if entry is not None else b""


def _below(folder: Path) -> Iterator[Path]:
    """Everything below `folder`, in one order everywhere, folders before what lies in them."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))


def _entry(path: Path) -> Entry | None:
    try:
        found = path.lstat()
        kind, mode = stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode)
        if stat.S_ISREG(kind):
            return Entry(kind, mode, path.read_bytes())
        if stat.S_ISLNK(kind):
            return Entry(kind, 0, os.fsencode(os.readlink(path)))
        return Entry(kind, mode) if stat.S_ISDIR(kind) else None
    except FileNotFoundError:
        return None  # a program that still runs has removed it since
