"""`ratchet episodes` over a served store: what it prints, and what it finds in snapshots and adapters."""

import asyncio
import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from daemon.cli import app
from learners.snapshots import Snapshot, build_snapshot
from streams.assembly.status import AssemblyStatus
from streams.runtime.processes import free_port
from streams.store.client import StoreClient
from tests.builders.episodes import HOLDOUT, episode
from tests.builders.stored import Log, ServedStore
from tests.builders.trained import entered
from tests.served import served


def ratchet(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["episodes", *arguments], env={"COLUMNS": "250"})
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def home(served_store: ServedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home whose settings name the served store, which has three episodes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RATCHET_STORE__PORT", served_store.url.rpartition(":")[2])
    log = Log(served_store.store)
    log.publish(*episode("sound"), *episode("broken", action="run")[1:], episode("[open]", action="sit")[0])
    return tmp_path / "home"


def test_the_list_says_of_each_episode_what_it_is_and_why(home: Path) -> None:
    shown = {one["episode_id"]: (one["state"], one["reason"]) for one in json.loads(ratchet("list", "--json"))}
    assert shown == {
        "sound": ("trusted", ""),
        "broken": ("undecided", "a step is missing"),
        "[open]": ("open", "no outcome yet"),
    }
    assert [one["episode_id"] for one in json.loads(ratchet("list", "--state", "trusted", "--json"))] == ["sound"]
    assert len(json.loads(ratchet("list", "--limit", "1", "--json"))) == 1
    table = ratchet("list")
    assert "a step is missing" in table
    assert "[open]" in table


def test_an_episode_is_shown_with_what_learned_from_it(home: Path, served_store: ServedStore) -> None:
    async def build() -> Snapshot:
        async with StoreClient(served_store.url) as client:
            return await build_snapshot(client, HOLDOUT, home / "snapshots")

    snapshot = asyncio.run(build())
    adapter = entered(home, snapshot)
    shown = json.loads(ratchet("show", "sound", "--json"))
    assert shown["uses"] == {"snapshots": [snapshot.manifest.snapshot_id], "adapters": [adapter]}
    assert [step["action"] for step in shown["episode"]["steps"]] == ["go 0", "go 1"]
    assert [(each["verifier"], each["counts"]) for each in shown["episode"]["outcomes"]] == [("game", True)]
    table = ratchet("show", "sound")
    for said in ("trusted", "go 1", "game", snapshot.manifest.snapshot_id, adapter[:12]):
        assert said in table
    assert json.loads(ratchet("show", "broken", "--json"))["uses"] == {"snapshots": [], "adapters": []}


def test_an_unknown_episode_is_an_error(home: Path) -> None:
    done = CliRunner().invoke(app, ["episodes", "show", "nobody"])
    assert done.exit_code == 1
    assert "nobody" in str(done.exception)


def test_the_list_says_at_its_end_how_many_conversations_are_open(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app_of_assembler, opened = FastAPI(), AssemblyStatus(open=3, open_s=150, next_settles_s=40, all_settle_s=560)
    app_of_assembler.get("/status")(lambda: opened)
    monkeypatch.setenv("RATCHET_ASSEMBLY__PORT", str(free_port()))
    assert "open, and not listed" not in ratchet("list"), "the assembler need not run here"
    with served(app_of_assembler) as address:
        monkeypatch.setenv("RATCHET_ASSEMBLY__PORT", address.rpartition(":")[2])
        assert ratchet("list").splitlines()[-1] == (
            "conversations that are still open, and not listed: 3, the oldest silent for 2 min; without more calls the "
            "first settles in 40 s, all in 9 min"
        )
        json.loads(ratchet("list", "--json"))
