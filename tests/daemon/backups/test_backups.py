"""A backup of a home: whole or not there, and what is made of it is the same home."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from daemon.backups.creating import Source, create_backup
from daemon.backups.manifest import MANIFEST, STORE_FILE, BackupManifest, check_backup
from daemon.backups.restoring import restore_backup
from daemon.registry.registry import Registry
from daemon.registry.verifying import verify
from ratchet_client.crash_points import VARIABLE
from streams.errors import BackupError
from streams.store.api import build_api
from streams.store.settings import StoreSettings
from streams.store.tables import TABLES
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS, episode
from tests.builders.stored import Log
from tests.crash.victims import ROOT
from tests.daemon.registry.test_verifying import made
from tests.served import served

NOWHERE = "http://127.0.0.1:9"
KILLED = """
import asyncio, sys
from pathlib import Path
from daemon.backups.creating import Source, create_backup
from daemon.backups.restoring import restore_backup
from streams.store.settings import StoreSettings
home, to = Path(sys.argv[2]), Path(sys.argv[3])
if sys.argv[1] == "create":
    store = StoreSettings(path=home / "store.duckdb")
    source = Source(home, store, home / "assembly.sqlite", "http://127.0.0.1:9", "{}")
    asyncio.run(create_backup(source, to, lambda text: None))
else:
    restore_backup(home, to, lambda text: None)
"""


def say(text: str) -> None:
    """Nothing: the tests look at what is written."""


def create(source: Source, to: Path, watch: Callable[[str], None]) -> BackupManifest:
    return asyncio.run(create_backup(source, to, watch))


def source_of(home: Path, url: str = NOWHERE) -> Source:
    return Source(home, StoreSettings(path=home / STORE_FILE), home / "assembly.sqlite", url, '{"seed": 3}\n')


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return {
            name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in (*TABLES, "schema_version")
        }


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a registry, adapters, snapshots and keys, and a store with branches, recoveries and an outbox."""
    home = made(tmp_path_factory.mktemp("kept") / "home")
    store = Store.open(StoreSettings(path=home / STORE_FILE), HOLDOUT, KAFKA)
    log = Log(store)
    for number, task in enumerate(TASKS[Split.TRAIN][:4]):
        log.publish(*episode(f"e{number}", task, action=f"go {number}"))
        log.branched(f"e{number}", task)
        log.recovered(f"e{number}", task, 0)
    store.published(store.pending(1)[0].sequence)
    store.close()
    (home / "logs").mkdir()
    (home / "logs" / "record.log").write_text("a line\n")
    (home / "tokens.json").write_text("{}")
    return home


@pytest.fixture
def home(kept: Path, tmp_path: Path) -> Path:
    return shutil.copytree(kept, tmp_path / "home")


def test_what_is_restored_is_what_was_backed_up(home: Path, tmp_path: Path) -> None:
    before = rows(home / STORE_FILE)
    manifest = create(source_of(home), tmp_path / "backup", say)
    assert manifest.findings == ()
    assert manifest.left_out.keys() == {"logs", "training"}
    restored = restore_backup(tmp_path / "backup", tmp_path / "new" / "home", say)
    assert restored.findings == ()
    assert rows(restored.home / STORE_FILE) == before
    assert verify(restored.home).findings == ()
    assert Registry(restored.home).refs() == Registry(home).refs()
    told = {path.relative_to(home) for path in home.rglob("*") if path.is_file() and not path.name.startswith(".")}
    assert {path.relative_to(restored.home) for path in restored.home.rglob("*") if path.is_file()} == {
        path for path in told if path.parts[0] != "logs"
    }
    assert (tmp_path / "backup" / "settings.json").read_text() == '{"seed": 3}\n'
    again = Store.open(StoreSettings(path=restored.home / STORE_FILE), HOLDOUT, KAFKA)
    assert again.query("SELECT count(*) AS n FROM events")["n"][0].as_py() == len(before["events"])
    again.close()


def test_through_the_record_role_it_is_of_one_moment_while_the_store_is_written(home: Path, tmp_path: Path) -> None:
    store = Store.open(StoreSettings(path=home / STORE_FILE), HOLDOUT, KAFKA)
    # Steps that were left out of the middle would be told as a gap, so the log goes on where it was.
    log = Log(store)
    for topic, offset in ((topic, offset) for (topic, _), offset in store.positions().items()):
        log._next[topic] = offset
    numbers = iter(range(100, 200))

    def write_more(text: str) -> None:
        log.publish(*episode(f"e{next(numbers)}", TASKS[Split.TRAIN][5]))

    with served(build_api(store), lifespan="off") as url:
        manifest = create(source_of(home, url), tmp_path / "backup", write_more)
    store.close()
    assert next(numbers) > 110  # something was written while each table was read
    restored = restore_backup(tmp_path / "backup", tmp_path / "restored", say)
    found = rows(restored.home / STORE_FILE)
    assert manifest.store is not None
    sequences = [
        row[0] for name, of in found.items() if "sequence" in TABLES.get(name, TABLES["offsets"]).names for row in of
    ]
    assert max(map(int, sequences)) == manifest.store.as_of
    ends = {topic: offset for topic, _, offset in found["offsets"]}
    columns = TABLES["events"].names
    offsets = [row[columns.index("offset")] for row in found["events"] if row[columns.index("kind")] != "retraction"]
    assert sorted(offsets) == list(range(int(ends[KAFKA.events_topic])))


def test_the_files_of_a_backup_are_for_its_owner_alone(home: Path, tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        create(source_of(home), tmp_path / "backup", say)
    finally:
        os.umask(umask)
    paths = [tmp_path / "backup", *(tmp_path / "backup").rglob("*")]
    assert {path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077} == set()


@pytest.mark.parametrize("harm", ["changed", "missing", "added", "no manifest"])
def test_a_backup_that_is_not_whole_is_named_and_never_restored(harm: str, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    create(source_of(home), folder, say)
    victim = folder / "store" / "events.parquet"
    if harm == "changed":
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif harm == "missing":
        victim.unlink()
    elif harm == "added":
        victim.with_name("other.parquet").write_bytes(b"x")
    else:
        (folder / MANIFEST).unlink()
    with pytest.raises(BackupError):
        check_backup(folder)
    with pytest.raises(BackupError):
        restore_backup(folder, tmp_path / "restored", say)
    assert not (tmp_path / "restored").exists()


def test_nothing_is_restored_over_what_is_there_and_no_backup_is_replaced(home: Path, tmp_path: Path) -> None:
    create(source_of(home), tmp_path / "backup", say)
    with pytest.raises(BackupError, match="is not empty"):
        restore_backup(tmp_path / "backup", home, say)
    with pytest.raises(BackupError, match="exists already"):
        create(source_of(home), tmp_path / "backup", say)
    with pytest.raises(BackupError, match="is inside of the home"):
        create(source_of(home), home / "backups" / "first", say)
    assert not (home / "backups").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", ["1", *(pytest.param(step, marks=pytest.mark.nightly) for step in ("14", "24", "30")), "last"]
)
@pytest.mark.parametrize("what", ["create", "restore"])
def test_a_kill_leaves_no_half_backup_and_no_half_home(what: str, step: str, home: Path, tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    manifest = create(source_of(home), reference, say)
    source, to = (home, tmp_path / "made") if what == "create" else (reference, tmp_path / "made")
    steps = (
        len(manifest.files) if what == "create" else sum(n.startswith(("home/", "store/")) for n in manifest.files) + 1
    )
    number = str(steps) if step == "last" else step
    command = [sys.executable, "-c", KILLED, what, str(source), str(to)]
    environment = {**os.environ, VARIABLE: f"backup.step:before@{number}"}
    died = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not to.exists()
    if step != "last":  # then only the rename is missing
        with pytest.raises(BackupError):
            check_backup(to.with_name(f".{to.name}.partial"))
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    if what == "create":
        check_backup(to)
    else:
        assert rows(to / STORE_FILE) == rows(home / STORE_FILE)
    assert not to.with_name(f".{to.name}.partial").exists()
