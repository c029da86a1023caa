"""Homes as earlier versions wrote them; `tests/homes` says by which commit and how each was made."""

import json
import tarfile
from hashlib import sha256
from pathlib import Path

from daemon.backups.creating import Source
from streams.store.settings import StoreSettings

ARCHIVES = Path(__file__).parents[1] / "homes"
DAYS = tuple(sorted(path.name.removesuffix(".tar.xz") for path in ARCHIVES.glob("*.tar.xz")))


def home_of(day: str, folder: Path) -> Path:
    """The home that was written that day, in the new folder `folder`/home."""
    with tarfile.open(ARCHIVES / f"{day}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "home"


def records_of(day: str, folder: Path) -> list[tuple[str, bytes]]:
    """The topics and values of the records that were published that day; `folder` is where the home was unpacked."""
    home_of(day, folder)
    lines = map(json.loads, (folder / "records.jsonl").read_text().splitlines())
    return [(line["topic"], line["value"].encode()) for line in lines]


def source_of(home: Path) -> Source:
    """The home as `ratchet upgrade` is given it, by default settings."""
    store = StoreSettings(path=home / "store.duckdb")
    return Source(home, store, home / "assembly.sqlite", "http://127.0.0.1:9", "{}\n", as_files=True)


def files_of(folder: Path) -> dict[str, str]:
    """The digest of each file below a folder, hidden ones included, by its path."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in paths}
