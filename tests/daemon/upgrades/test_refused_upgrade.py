"""An upgrade is refused, and nothing is changed, where it could not be right."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from daemon.cli import app
from daemon.erasure.request import ErasureRequest, ask
from daemon.registry.learner_status import LEARNER_FILE, LearnerPhase, LearnerStatus
from daemon.registry.registry import Registry
from daemon.serving.sole import sole_serve_role
from daemon.upgrades.upgrading import UpgradeReport, begun_in, upgrade
from learners.adapters import AdapterStore, adapter_digest
from ratchet_client.errors import RatchetError
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState
from streams.errors import BackupError, StoreError, UpgradeError
from tests.builders.old_homes import files_of, home_of, source_of
from tests.crash.victims import ROOT

DAY = "2026-11-29"
HOLDS = {
    "record": "import duckdb; held = duckdb.connect(sys.argv[1] + '/store.duckdb')",
    "an older assemble": "import sqlite3; held = sqlite3.connect(sys.argv[1] + '/assembly.sqlite'); "
    "held.execute('PRAGMA locking_mode = EXCLUSIVE'); held.execute('UPDATE traces SET last = 0')",
}


def brought(home: Path, backup: Path | None = None) -> UpgradeReport:
    return asyncio.run(upgrade(source_of(home), backup, lambda text: None))


def without_locks(home: Path) -> dict[str, str]:
    return {name: digest for name, digest in files_of(home).items() if not name.endswith(".lock")}


@contextmanager
def held_by(role: str, home: Path) -> Iterator[None]:
    """A process that has a database open as the role has."""
    script = f"import sys; {HOLDS[role]}; print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(home)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.communicate()


def newer(home: Path, what: str) -> str:
    """Make something of the home that a newer version wrote; what the refusal says of it."""
    if what in ("store", "columns", "tables"):
        statement, refused = {
            "store": ("INSERT INTO schema_version VALUES (3)", "schema 3"),
            "columns": ("ALTER TABLE events ADD COLUMN mood VARCHAR", "what is new: events.mood"),
            "tables": ("CREATE TABLE moods (mood VARCHAR)", "what is new: moods"),
        }[what]
        with duckdb.connect(str(home / "store.duckdb")) as connection:
            connection.execute(statement)
        return refused
    if what == "assembly":
        with sqlite3.connect(home / "assembly.sqlite") as assembly:
            assembly.execute("PRAGMA user_version = 2")
        assembly.close()
        return "assembly.sqlite has version 2"
    if what == "snapshots":
        (path,) = home.glob("snapshots/*/manifest.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 5}))
        return "it has schema 5"
    if what == "tokens":
        (home / "tokens.json").write_text('{"version": 2, "tokens": []}')
        return "tokens.json has version 2"
    if what == "adapters":
        # Its folder's name is the digest of a manifest that this version cannot read.
        folder = next((home / "adapters").iterdir())
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"mood": "good"}))
        folder.rename(folder.with_name(adapter_digest(folder)))
        return "mood"
    log = Registry(home).audit
    last = log.read()[-1]
    entry: dict[str, object] = {"actor": "anna", "action": "praised", "subject": "base", "reason": "well done"}
    entry |= {"sequence": last.sequence + 1, "at": last.at.isoformat(), "previous": last.hash}
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    with log.path.open("a") as file:
        file.write(json.dumps(entry | {"hash": sha256(canonical.encode()).hexdigest()}, sort_keys=True) + "\n")
    assert log.verify() == last.sequence + 1
    return f"line {last.sequence + 1} of the audit log is not an entry"


@pytest.mark.parametrize(
    "what", ["store", "columns", "tables", "assembly", "snapshots", "tokens", "adapters", "audit log"]
)
def test_a_home_of_a_newer_version_is_refused_by_what_is_newer(what: str, tmp_path: Path) -> None:
    home = home_of(DAY, tmp_path)
    told = newer(home, what)
    before = files_of(tmp_path)
    with pytest.raises(UpgradeError, match=r"(?s)cannot read all of the home.*A newer version wrote that") as refused:
        brought(home)
    assert told in str(refused.value)
    assert files_of(tmp_path) == before


def test_an_adapter_that_is_damaged_does_not_stand_in_the_way(tmp_path: Path) -> None:
    home = home_of(DAY, tmp_path)
    digest = AdapterStore(home / "adapters").digests()[0]
    (home / "adapters" / digest / "manifest.json").write_text("{}")
    assert brought(home).done


@pytest.mark.parametrize("role", ["serve", "assemble", "learn"])
def test_a_home_that_a_role_uses_is_refused(role: str, tmp_path: Path) -> None:
    home, now = home_of(DAY, tmp_path), datetime.now(UTC)

    async def attempt() -> None:
        with ExitStack() as stack:
            if role == "assemble":
                state = AssemblyState.open(AssemblySettings(path=home / "assembly.sqlite"), 0.0)
                stack.callback(state.close)
            elif role == "learn":
                beat = LearnerStatus(phase=LearnerPhase.TRAINING, since=now, beat_at=now)
                (home / LEARNER_FILE).write_text(beat.model_dump_json())
            with pytest.raises(UpgradeError, match=f"is in use by {role}: stop Ratchet"):
                await upgrade(source_of(home), None, lambda text: None)

    async def beside_serve() -> None:
        async with sole_serve_role(home):
            await attempt()

    asyncio.run(beside_serve() if role == "serve" else attempt())
    assert begun_in(home) is None
    assert [path.name for path in tmp_path.glob("home.*")] == []


@pytest.mark.parametrize("role", HOLDS)
def test_a_database_that_another_process_has_open_is_refused(role: str, tmp_path: Path) -> None:
    home = home_of(DAY, tmp_path)
    with held_by(role, home), pytest.raises((StoreError, UpgradeError), match="stop Ratchet"):
        brought(home)
    assert begun_in(home) is None
    assert [path.name for path in tmp_path.glob("home.*")] == []


def test_a_second_upgrade_at_the_same_time_is_refused(tmp_path: Path) -> None:
    home = home_of(DAY, tmp_path)

    def meanwhile(text: str) -> None:
        with pytest.raises(UpgradeError, match=r"another upgrade of .* is under way"):
            asyncio.run(upgrade(source_of(home), None, lambda text: None))
        refused.append(text)

    refused = list[str]()
    with ThreadPoolExecutor(1) as pool:
        told = asyncio.run(upgrade(source_of(home), None, lambda text: pool.submit(meanwhile, text).result()))
    assert told.done
    assert len(refused) >= 5


def test_an_erasure_that_waits_comes_first(tmp_path: Path) -> None:
    home = home_of(DAY, tmp_path)
    ask(home, ErasureRequest(principal="e0", actor="anna"))
    with pytest.raises(UpgradeError, match=r"an erasure of .* waits"):
        brought(home)
    assert [path.name for path in tmp_path.glob("home.*")] == []


def test_a_backup_that_cannot_be_made_leaves_the_home_as_it_was(tmp_path: Path) -> None:
    home = home_of(DAY, tmp_path)
    before = files_of(home)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(BackupError, match="could not be written"):
        brought(home, tmp_path / "taken" / "backup")
    assert without_locks(home) == before


def test_a_folder_that_is_there_is_never_taken_for_the_backup(tmp_path: Path) -> None:
    home = home_of(DAY, tmp_path)
    assert brought(home, tmp_path / "backup").done
    older = home_of("2026-11-21", tmp_path / "other")
    before = files_of(older)
    with pytest.raises(BackupError, match="exists already: name a new folder"):
        brought(older, tmp_path / "backup")
    assert without_locks(older) == before


def test_ratchet_does_not_run_on_a_home_whose_upgrade_is_not_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_of(DAY, tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    begun = {"backup": str(tmp_path / "backup"), "formats": [], "newest": 0}
    (home / ".upgrade.json").write_text(json.dumps(begun))
    refused = CliRunner().invoke(app, ["run"]).exception
    assert isinstance(refused, RatchetError)
    assert "was begun and is not over: run `ratchet upgrade` again, which ends it" in str(refused)
