"""Homes that earlier versions wrote become homes of this one, and nothing of them is lost."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from daemon.backups.restoring import restore_backup
from daemon.cli import app
from daemon.registry.registry import Registry
from daemon.registry.verifying import verify
from daemon.upgrades.upgrading import UpgradeReport, upgrade
from learners.snapshots import build_snapshot, read_trajectories
from ratchet_client.events import StepEvent
from streams import schema_versions
from streams.assembly.assembler import Assembler
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState
from streams.assembly.status import AssemblyStatus
from streams.assembly.tables import version_of
from streams.runtime.tally import Tally
from streams.store.api import build_api
from streams.store.client import StoreClient
from streams.store.episodes import episode_report, newest_episodes
from streams.store.export import Origin, look_back, newest
from streams.store.inspection import StoreFormat, format_of
from streams.store.writer import Store
from tests.builders.episodes import HOLDOUT, KAFKA
from tests.builders.old_homes import DAYS, files_of, home_of, source_of
from tests.builders.old_stores import content
from tests.served import served

Upgraded = Callable[[str], Path]


@pytest.fixture
def ratchet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """The command, on the home in the folder of the test; returns its JSON, the last line but for what is logged."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def upgraded(tmp_path: Path) -> Upgraded:
    def bring(day: str) -> Path:
        home = home_of(day, tmp_path)
        done = brought(home)
        assert done.done
        return home

    return bring


def brought(home: Path) -> UpgradeReport:
    return asyncio.run(upgrade(source_of(home), None, lambda text: None))


def changes(report: dict[str, Any]) -> dict[str, tuple[list[int], int, list[str]]]:
    """What the report says of each format that is changed: the versions found, the one that it gets, and how."""
    return {
        each["name"]: (each["found"], each["current"], each["changes"]) for each in report["formats"] if each["changes"]
    }


ASSEMBLED = "its tables become those of version 1"
EXPECTED = {
    "2026-11-21": {
        "store": ([1], 2, ["its tables become those of schema 2"]),
        "assembly": ([0], 1, ["otlp.sqlite becomes assembly.sqlite", ASSEMBLED]),
    },
    "2026-11-28": {
        "store": ([2], 2, ["it gets transitions.advice, transitions.state, practised.advice, erased"]),
        "assembly": ([0], 1, [ASSEMBLED]),
    },
    "2026-11-29": {"store": ([2], 2, ["it gets transitions.state"]), "assembly": ([0], 1, [ASSEMBLED])},
}


def test_every_kept_home_has_its_expectations() -> None:
    assert tuple(EXPECTED) == DAYS


@pytest.mark.parametrize("day", DAYS)
def test_a_dry_run_says_what_would_change_and_changes_no_byte(
    day: str, tmp_path: Path, ratchet: Callable[..., Any]
) -> None:
    home_of(day, tmp_path)
    before = files_of(tmp_path)
    report = ratchet("upgrade", "--dry-run")
    assert changes(report) == EXPECTED[day]
    assert (report["done"], report["backup"]) == (False, None)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("day", DAYS)
def test_an_upgraded_home_is_whole_and_its_history_can_be_told(
    day: str, tmp_path: Path, ratchet: Callable[..., Any]
) -> None:
    home = home_of(day, tmp_path)
    before = Registry(home).audit.read()
    report = ratchet("upgrade")
    assert changes(report) == EXPECTED[day]
    assert report["done"]
    assert ratchet("verify")["findings"] == []
    assert [entry["hash"] for entry in ratchet("history", "--limit", "100")] == [entry.hash for entry in before]
    champion, rolled_back = Registry(home).refs().champion, before[-1].subject
    assert ratchet("why", "champion")["adapter"] == champion
    principal = "tenant/e0" if day == "2026-11-21" else "e0"
    told = ratchet("why", "--principal", principal)
    assert {each["adapter"] for each in told} == {champion, rolled_back}
    assert ratchet("gate", "show", champion)["verdict"] == "PROMOTE"
    (snapshot,) = (home / "snapshots").iterdir()
    assert {principal} <= {name for each in read_trajectories(snapshot) for name in each.principals}


@pytest.mark.parametrize("day", DAYS)
def test_the_second_upgrade_finds_nothing_to_do_and_changes_no_byte(
    day: str, tmp_path: Path, upgraded: Upgraded
) -> None:
    home = upgraded(day)
    before = files_of(tmp_path)
    again = brought(home)
    assert (again.done, again.backup) == (True, None)
    assert [each.name for each in again.formats if each.changes] == []
    assert files_of(tmp_path) == before
    store = format_of(home / "store.duckdb")
    assert store == StoreFormat(version=schema_versions.STORE, newest=store.newest if store else 0)
    assert version_of(home / "assembly.sqlite") == schema_versions.ASSEMBLY


@pytest.mark.parametrize("day", DAYS)
def test_what_the_backup_gives_back_is_the_old_home_byte_for_byte(day: str, tmp_path: Path) -> None:
    home = home_of(day, tmp_path)
    before = files_of(home)
    backup = brought(home).backup
    assert backup is not None
    restored = restore_backup(backup, tmp_path / "restored", lambda text: None)
    assert restored.findings == ()
    assert files_of(restored.home) == before
    assert brought(restored.home).done


@pytest.mark.parametrize("day", DAYS)
async def test_the_stores_queries_work_on_what_was_stored_before(day: str, tmp_path: Path) -> None:
    home = home_of(day, tmp_path)
    assert (await upgrade(source_of(home), None, lambda text: None)).done
    store = Store.open(source_of(home).store, HOLDOUT, KAFKA)
    with served(build_api(store), lifespan="off") as url:
        async with StoreClient(url) as client:
            counted = await client.status()
            assert counted.events == {"step": 6, "outcome": 3}
            listed = {each.episode_id: each.state.value for each in await newest_episodes(client, None, 10)}
            assert listed == {"e0": "trusted", "e1": "trusted", "e2": "failed"}
            report = await episode_report(client, "e0")
            assert [step.action for step in report.steps] == ["go 0", "go 1"]
            rows = (await newest(client, await look_back(client, None, Origin.BRANCH), 10)).to_pylist()
            assert "jump" in {json.loads(row["action"])["content"] for row in rows}
            snapshot = await build_snapshot(client, HOLDOUT, tmp_path / "snapshots")
    store.close()
    assert {"e0", "tenant/e0"} & {name for each in read_trajectories(snapshot.folder) for name in each.principals}


@pytest.mark.parametrize("day", DAYS)
def test_what_the_assembler_had_open_becomes_events_after_an_upgrade(day: str, upgraded: Upgraded) -> None:
    home = upgraded(day)
    settings = AssemblySettings(path=home / "assembly.sqlite")
    state = AssemblyState.open(settings, 0.0)
    assembler = Assembler(state, KAFKA, settings, {}, Tally(AssemblyStatus()))
    for unit in state.due(1e6):
        assembler.assemble(unit)
    steps = [StepEvent.model_validate_json(entry.message.value or b"") for entry in state.pending(100)]
    state.close()
    assert [step.action.content for step in steps] == ["open fridge", "take apple", "eat apple"]


@pytest.mark.parametrize("day", DAYS)
def test_a_store_that_is_opened_without_an_upgrade_comes_to_the_same_tables(day: str, tmp_path: Path) -> None:
    home = home_of(day, tmp_path)
    shutil.copytree(home, tmp_path / "opened")
    assert brought(home).done
    for each in (home, tmp_path / "opened"):
        Store.open(source_of(each).store, HOLDOUT, KAFKA).close()
    assert content(tmp_path / "opened" / "store.duckdb") == content(home / "store.duckdb")
    assert [path.name for path in home.glob("store.duckdb.*")] == []
    copies = ["store.duckdb.schema-1"] if day == "2026-11-21" else []
    assert [path.name for path in (tmp_path / "opened").glob("store.duckdb.*")] == copies


def test_a_home_of_this_version_is_left_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store.open(source_of(home).store, HOLDOUT, KAFKA).close()
    AssemblyState.open(AssemblySettings(path=home / "assembly.sqlite"), 0.0).close()
    before = files_of(tmp_path)
    report = brought(home)
    assert (report.done, report.backup) == (True, None)
    assert files_of(tmp_path) == before
    assert verify(home).findings == ()
