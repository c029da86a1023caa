"""State folders of toolboxes as values: what counts as the same, and how they are written back."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from streams.environments.toolbox.state import FolderState


def test_databases_are_compared_by_what_they_hold(tmp_path: Path) -> None:
    def made(name: str, *statements: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        with closing(sqlite3.connect(folder / "d.sqlite", isolation_level=None)) as database:
            for statement in ("CREATE TABLE t (a)", *statements):
                database.execute(statement)
            return FolderState.read(folder).digest()

    plain = made("plain", "INSERT INTO t VALUES (1)")
    assert made("other", "INSERT INTO t VALUES (2)") != plain
    assert made("detour", "INSERT INTO t VALUES (1), (2)", "DELETE FROM t WHERE a = 2", "VACUUM") == plain
    # What is in the write-ahead log alone counts, and the log itself does not.
    wal = made("wal", "PRAGMA journal_mode = WAL", "INSERT INTO t VALUES (1)")
    assert (tmp_path / "wal" / "d.sqlite").exists()
    assert wal == plain
    assert made("version", "INSERT INTO t VALUES (1)", "PRAGMA user_version = 3") != plain
    (tmp_path / "plain" / "d.sqlite").write_bytes(b"SQLite format 3\x00 and then nothing of the kind")
    assert FolderState.read(tmp_path / "plain").digest() == FolderState.read(tmp_path / "plain").digest() != plain


def test_a_folder_is_written_back_exactly_and_shares_what_did_not_change(tmp_path: Path) -> None:
    (tmp_path / "deep" / "empty").mkdir(parents=True)
    (tmp_path / "deep" / "file").write_bytes(b"1")
    (tmp_path / "run").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "link").symlink_to("deep/file")
    state = FolderState.read(tmp_path)
    (tmp_path / "deep" / "empty").rmdir()
    (tmp_path / "deep" / "empty").write_text("a file now")
    (tmp_path / "deep" / "file").unlink()
    (tmp_path / "deep" / "file").mkdir()
    (tmp_path / "deep" / "file" / "inner").write_text("x")
    (tmp_path / "run").chmod(0o644)
    (tmp_path / "link").unlink()
    (tmp_path / "link").write_text("no link")
    os.mkfifo(tmp_path / "pipe")
    changed = FolderState.read(tmp_path, state)
    assert changed.digest() != state.digest()
    state.write(tmp_path)
    again = FolderState.read(tmp_path, state)
    assert again == state
    assert again.digest() == state.digest()
    assert again.entries["deep/file"] is state.entries["deep/file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "link", "run"]
