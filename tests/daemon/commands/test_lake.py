"""The commands over a store that is a lake: what works as over a file, and what says that it does not."""

import json
from pathlib import Path

import duckdb
import httpx
import pytest
from typer.testing import CliRunner, Result

from daemon.backups.manifest import STORE_FILE
from daemon.cli import app
from ratchet_client.errors import ConfigurationError
from streams.errors import StoreError
from streams.runtime.processes import free_port
from streams.store.api import build_api
from streams.store.ducklake import folder_of
from streams.store.settings import Backend, LakeSettings, StoreSettings
from streams.store.status import StoreStatus
from streams.store.tables import TABLES
from streams.store.writer import Store
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS, episode
from tests.builders.stored import Log, records
from tests.postgres import Postgres
from tests.served import served

WITH_SEQUENCE = [name for name, schema in TABLES.items() if "sequence" in schema.names]


def ratchet(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of the test's own, whose settings name a lake."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RATCHET_STORE__BACKEND", "ducklake")
    monkeypatch.setenv("RATCHET_STORE__LAKE__DATA", str(tmp_path / "lake"))
    monkeypatch.setenv("RATCHET_STORE__LAKE__CATALOG", f"host=127.0.0.1 port={free_port()} user=ratchet")
    monkeypatch.setenv("RATCHET_STORE__LAKE__PASSWORD", "hunter2")
    monkeypatch.setenv("RATCHET_STORE__PORT", str(free_port()))
    return tmp_path / "home"


@pytest.fixture
def stored(lake: LakeSettings, home: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in a real lake, which the settings name."""
    monkeypatch.setenv("RATCHET_STORE__LAKE__CATALOG", lake.catalog)
    store = Store.open(StoreSettings(backend=Backend.DUCKLAKE, lake=lake), HOLDOUT, KAFKA)
    log, task = Log(store), TASKS[next(iter(TASKS))][0]
    log.publish(*episode("a", task), *episode("b", task))
    log.branched("a", task)
    return store


@pytest.mark.parametrize("left_out", ["CATALOG", "DATA"])
def test_a_lake_without_its_catalog_or_its_folder_is_refused(left_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"RATCHET_STORE__LAKE__{left_out}")
    refused = ratchet("check-config")
    assert isinstance(refused.exception, ConfigurationError)
    assert "the backend ducklake needs lake.catalog and lake.data" in str(refused.exception)


@pytest.mark.parametrize("catalog", ["postgresql://ratchet:secret@db/ratchet", "host=db password=secret"])
def test_a_password_in_the_catalog_is_refused_and_not_repeated(catalog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_STORE__LAKE__CATALOG", catalog)
    refused = ratchet("check-config")
    assert "the password as lake.password" in str(refused.exception)
    assert "secret" not in str(refused.exception)


@pytest.mark.parametrize("data", ["lake", "s3://bucket/lake"])
def test_a_lake_that_is_no_whole_path_of_a_folder_is_refused(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_STORE__LAKE__DATA", data)
    assert "write the whole path of a folder" in str(ratchet("check-config").exception)


def test_nothing_is_written_to_the_folder_of_a_share_that_is_not_mounted(stored: Store, lake: LakeSettings) -> None:
    assert lake.data is not None
    mounted = lake.data.rename(lake.data.with_name("mounted"))
    with pytest.raises(StoreError, match="look whether the share is mounted"):
        Log(stored).publish(*episode("c", TASKS[next(iter(TASKS))][0]))
    lake.data.mkdir()
    with pytest.raises(StoreError, match="look whether the share is mounted"):
        Store.open(StoreSettings(backend=Backend.DUCKLAKE, lake=lake), HOLDOUT, KAFKA)
    assert "look whether the share is mounted" in str(ratchet("check-config").exception)
    assert list(lake.data.iterdir()) == []
    lake.data.rmdir()
    mounted.rename(lake.data)
    assert ratchet("check-config").exit_code == 0
    assert stored.query("SELECT count(DISTINCT episode_id) AS n FROM events")["n"].to_pylist() == [2]


def test_a_lake_that_lacks_a_file_is_told_as_such(lake: LakeSettings, stored: Store) -> None:
    Log(stored).publish(*(event for name in "cdefgh" for event in episode(name, TASKS[next(iter(TASKS))][0])))
    stored.close()
    for file in folder_of(lake).rglob("events/*.parquet"):
        file.unlink()
    with pytest.raises(StoreError, match=r"cannot be read: .*\.parquet"):
        Store.open(StoreSettings(backend=Backend.DUCKLAKE, lake=lake), HOLDOUT, KAFKA)


def test_a_role_that_dies_while_it_makes_a_lake_locks_nobody_out(
    lake: LakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise StoreError("killed")

    settings = StoreSettings(backend=Backend.DUCKLAKE, lake=lake)
    with monkeypatch.context() as broken:
        broken.setattr("streams.store.ducklake._make_tables", dies)
        with pytest.raises(StoreError, match="killed"):
            Store.open(settings, HOLDOUT, KAFKA)
    Store.open(settings, HOLDOUT, KAFKA).close()


def test_a_folder_that_is_not_that_of_the_catalog_is_refused(
    stored: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_STORE__LAKE__DATA", str(tmp_path / "other"))
    refused = ratchet("check-config")
    assert isinstance(refused.exception, ConfigurationError)
    assert "the catalog is that of a lake in" in str(refused.exception)


def test_a_lake_that_cannot_be_reached_is_told_before_anything_runs() -> None:
    pytest.importorskip("duckdb_extension_postgres_scanner")
    checked = ratchet("check-config")
    assert isinstance(checked.exception, StoreError)
    assert "the catalog of the lake cannot be reached" in str(checked.exception)
    assert "hunter2" not in checked.output + str(checked.exception)
    (told,) = (json.loads(line) for line in ratchet("doctor", "--json").stdout.splitlines() if line.startswith("{"))
    (store,) = (check for check in told["checks"] if check["name"] == "store")
    assert (store["status"], "docs/scale.md" in store["remedy"]) == ("error", True)


@pytest.mark.slow
def test_a_lake_that_can_be_reached_is_fit(stored: Store) -> None:
    assert ratchet("check-config").exit_code == 0
    (told,) = (json.loads(line) for line in ratchet("doctor", "--json").stdout.splitlines() if line.startswith("{"))
    assert [check["status"] for check in told["checks"] if check["name"] == "store"] == ["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("through_the_role", [True, False])
def test_a_backup_of_a_lake_is_restored_as_a_file(
    through_the_role: bool, stored: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: stored.query(f"SELECT count(*) AS n FROM {name}")["n"][0].as_py() for name in WITH_SEQUENCE}
    if through_the_role:
        with served(build_api(stored), lifespan="off") as url:
            monkeypatch.setenv("RATCHET_STORE__PORT", url.rpartition(":")[2])
            made = ratchet("backup", "create", str(tmp_path / "backup"), "--as-is")
    else:
        made = ratchet("backup", "create", str(tmp_path / "backup"))
    assert made.exit_code == 0, made.exception
    assert ratchet("backup", "restore", str(tmp_path / "backup"), "--home", str(tmp_path / "new")).exit_code == 0
    with duckdb.connect(str(tmp_path / "new" / STORE_FILE), read_only=True) as file:
        after = {name: file.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in WITH_SEQUENCE}
    assert after == before
    monkeypatch.setenv("RATCHET_STORE__BACKEND", "duckdb")
    restored = Store.open(StoreSettings(path=tmp_path / "new" / STORE_FILE), HOLDOUT, KAFKA)
    assert (restored.sequence, restored.positions()) == (stored.sequence, stored.positions())
    restored.close()


@pytest.mark.slow
@pytest.mark.parametrize("backend", Backend)
def test_a_backup_is_restored_into_a_new_lake_and_into_no_other(
    backend: Backend,
    stored: Store,
    lake: LakeSettings,
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = stored
    if backend is Backend.DUCKDB:
        monkeypatch.setenv("RATCHET_STORE__BACKEND", backend)
        store = Store.open(StoreSettings(path=tmp_path / "home" / STORE_FILE), HOLDOUT, KAFKA)
        Log(store).publish(*episode("a", TASKS[next(iter(TASKS))][0]))
    before = {name: store.query(f"FROM {name}").to_pylist() for name in WITH_SEQUENCE}
    sequence, positions = store.sequence, store.positions()
    store.close()
    assert ratchet("backup", "create", str(tmp_path / "backup")).exit_code == 0

    into = ("backup", "restore", str(tmp_path / "backup"), "--into-lake", "--home")
    refused = ratchet(*into, str(tmp_path / "refused"))
    assert isinstance(refused.exception, StoreError)
    assert "has rows already" in str(refused.exception)
    assert not (tmp_path / "refused").exists()

    new = LakeSettings(catalog=postgres.database(), data=tmp_path / "new-lake")
    monkeypatch.setenv("RATCHET_STORE__LAKE__CATALOG", new.catalog)
    monkeypatch.setenv("RATCHET_STORE__LAKE__DATA", str(new.data))
    restored = ratchet(*into, str(tmp_path / "new"))
    assert restored.exit_code == 0, restored.exception
    assert "run it with store.backend" in restored.output
    assert not (tmp_path / "new" / STORE_FILE).exists()
    filled = Store.open(StoreSettings(backend=Backend.DUCKLAKE, lake=new), HOLDOUT, KAFKA)
    assert {name: filled.query(f"FROM {name} ORDER BY sequence").to_pylist() for name in WITH_SEQUENCE} == {
        name: sorted(rows, key=lambda row: row["sequence"]) for name, rows in before.items()
    }
    assert (filled.sequence, filled.positions()) == (sequence, positions)
    # It goes on where the other ended.
    appended = filled.append(records(episode("comes"), positions[(KAFKA.events_topic, 0)]))
    assert (appended.stored, appended.trusted) == (len(episode("comes")), 1)
    filled.close()


@pytest.mark.slow
def test_status_episodes_and_exports_as_of_a_sequence_are_those_of_any_store(
    stored: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (as_of,) = stored.query("SELECT min(sequence) AS n FROM transitions")["n"].to_pylist()
    target = tmp_path / "file.parquet"
    with served(build_api(stored), lifespan="off") as url:
        monkeypatch.setenv("RATCHET_STORE__PORT", url.rpartition(":")[2])
        counted = StoreStatus.model_validate_json(httpx.get(f"{url}/status", timeout=60).content)
        assert (counted.events, counted.transitions) == ({"outcome": 2, "step": 4}, {"branch": 1, "production": 4})
        for command in (
            ("episodes", "list"),
            ("episodes", "show", "a"),
            ("transitions", "--as-of", str(as_of)),
            ("export", "--to", str(target), "--as-of", str(as_of)),
        ):
            done = ratchet(*command)
            assert done.exit_code == 0, (command, done.exception)
    assert duckdb.execute(f"SELECT count(*) FROM '{target}'").fetchall() == [(1,)]
