"""`ratchet environment demonstrate`: known solutions become trusted episodes of an expert, and held-out tasks never."""

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daemon.cli import app
from daemon.commands.demonstrating import demonstrated, trained_on
from daemon.config import DomainSettings, Settings
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Event
from streams.branching.settings import BranchingSettings
from streams.environments.toolbox.scaffold import write_toolbox
from streams.sandboxes.pool import sandbox_pool
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT
from tests.builders.stored import Log, ServedStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demonstrated") / "todos"
    write_toolbox(folder, "todos", "functions")
    return folder


def configured(folder: Path) -> Settings:
    branching = BranchingSettings(environments={"toolbox": {"folder": str(folder)}})
    return Settings(domain=DomainSettings(environment="toolbox", suite="todos"), branching=branching, holdout=HOLDOUT)


async def events_of(settings: Settings) -> list[list[Event]]:
    async with sandbox_pool("toolbox", settings.branching, size=1) as pool:
        tasks, harness = await trained_on(settings, pool), (await pool.describe()).harness
        assert all(settings.holdout.split(task.task_id) is Split.TRAIN for task in tasks)
        return [events async for events in demonstrated(pool, tasks, harness, "clerk", "book", Counter())]


@pytest.mark.slow
async def test_known_solutions_are_trusted_once_however_often_they_are_recorded(
    folder: Path, served_store: ServedStore
) -> None:
    settings = configured(folder)
    first = await events_of(settings)
    assert first
    ids = [[event.event_id for event in events] for events in first]
    assert [[event.event_id for event in events] for events in await events_of(settings)] == ids
    log = Log(served_store.store)
    for events in [*first, *first]:
        log.publish(*events)
    trusted = served_store.store.query("SELECT count(DISTINCT episode_id) AS count FROM trusted WHERE split = 'train'")
    assert trusted["count"].to_pylist() == [len(first)]


def test_the_command_tells_what_would_be_recorded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ratchet.toml").write_text(
        f'[domain]\nenvironment = "toolbox"\nsuite = "todos"\n[branching.environments.toolbox]\nfolder = "{folder}"\n'
    )
    done = CliRunner().invoke(app, ["environment", "demonstrate", "--tasks", "2", "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout[done.stdout.index('{"environment"') :])
    assert report["recorded"] == 2
    assert report["train_tasks"] >= 2
    assert report["failed"] == {}


def test_without_a_domain_there_is_nothing_to_demonstrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["environment", "demonstrate", "--dry-run"])
    assert isinstance(done.exception, ConfigurationError)
    assert "domain.environment" in str(done.exception)
