"""An upgrade that is killed at any of its steps ends the same when it is begun again."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from daemon.backups.restoring import restore_backup
from daemon.registry.registry import Registry
from daemon.upgrades.formats import formats_of
from daemon.upgrades.upgrading import begun_in, upgrade
from ratchet_client.crash_points import VARIABLE
from streams.errors import BackupError
from tests.builders.old_homes import files_of, home_of, source_of
from tests.builders.old_stores import content
from tests.crash.victims import ROOT

UPGRADE = """
import asyncio, sys
from pathlib import Path
from daemon.upgrades.upgrading import upgrade
from tests.builders.old_homes import source_of
asyncio.run(upgrade(source_of(Path(sys.argv[1])), None, lambda text: None))
"""
# Of the home of 2026-11-21: the file that says that it begins and the renamed assembler's, each step of the backup,
# those of the store, and those between them.
LAST_OF_BACKUP = 23
POINTS = {
    "file.rename:before": 2,
    "file.rename:after": 2,
    "backup.step:before": LAST_OF_BACKUP,
    "upgrade.step:before": 3,
    "store.migration:before": 1,
    "store.migration:after": 1,
    "store.checkpoint:before": 1,
    "store.checkpoint:after": 1,
}
ALL = [f"{point}@{time}" for point, times in POINTS.items() for time in range(1, times + 1)]
FOR_EACH_CHANGE = ("upgrade.step:before@2", "store.migration:after@1")
CRASHES = [
    pytest.param(each, marks=pytest.mark.slow if each in FOR_EACH_CHANGE else pytest.mark.nightly) for each in ALL
]


def run(home: Path, crash_at: str = "") -> int:
    done = subprocess.run(
        [sys.executable, "-c", UPGRADE, str(home)],
        cwd=ROOT,
        env={**os.environ, VARIABLE: crash_at},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def state(home: Path) -> tuple[object, ...]:
    """All of a home: its databases by their rows, the other files by their bytes."""
    databases = ("store.duckdb", "assembly.sqlite")
    others = {name: digest for name, digest in files_of(home).items() if name not in databases}
    with closing(sqlite3.connect(home / "assembly.sqlite")) as assembly:
        rows = [*assembly.iterdump(), *assembly.execute("PRAGMA user_version")]
    return content(home / "store.duckdb"), rows, others


@pytest.mark.parametrize("crash_at", CRASHES)
def test_killed_and_begun_again_it_ends_the_same(crash_at: str, tmp_path: Path) -> None:
    undisturbed = home_of("2026-11-21", tmp_path / "undisturbed")
    before = files_of(undisturbed)
    assert asyncio.run(upgrade(source_of(undisturbed), None, lambda text: None)).done
    home = home_of("2026-11-21", tmp_path / "killed")
    assert run(home, crash_at) == -signal.SIGKILL
    assert run(home) == 0
    assert state(home) == state(undisturbed)
    assert begun_in(home) is None
    assert [each.name for each in formats_of(source_of(home)) if each.changes] == []
    (backup,) = home.parent.glob("home.before-upgrade-*")
    assert files_of(restore_backup(backup, tmp_path / "restored", lambda text: None).home) == before


@pytest.mark.nightly
def test_no_step_comes_after_those_at_which_it_is_killed(tmp_path: Path) -> None:
    for point, times in POINTS.items():
        home = home_of("2026-11-21", tmp_path / point)
        assert run(home, f"{point}@{times + 1}") == 0, point


@pytest.mark.slow
def test_a_backup_that_an_older_version_went_on_after_is_taken_again(tmp_path: Path) -> None:
    home = home_of("2026-11-21", tmp_path)
    assert run(home, "upgrade.step:before@1") == -signal.SIGKILL
    begun = begun_in(home)
    assert begun is not None
    assert begun.backup.exists()
    Registry(home).name("base", "anna", "the older version runs, and writes into its log")
    with pytest.raises(BackupError, match="exists already: name a new folder"):
        asyncio.run(upgrade(source_of(home), begun.backup, lambda text: None))
    before = files_of(home)
    other = tmp_path / "another backup"
    report = asyncio.run(upgrade(source_of(home), other, lambda text: None))
    assert (report.done, report.backup) == (True, other)
    restored = restore_backup(other, tmp_path / "restored", lambda text: None).home
    told = {name: digest for name, digest in before.items() if not name.startswith(".")}
    assert files_of(restored) == told
