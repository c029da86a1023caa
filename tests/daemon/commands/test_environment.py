"""`ratchet environment`, on environments of a third party."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from daemon.cli import app
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Actor, OutcomeEvent, StepEvent, Task
from ratchet_client.messages import assistant, call, tool_result, user
from streams.environments.toolbox.scaffold import write_toolbox
from streams.errors import SandboxError
from tests.builders.stored import Log, ServedStore

pytestmark = pytest.mark.usefixtures("faulty_environments")


def test_installed_environments_are_listed() -> None:
    listed = json.loads(CliRunner().invoke(app, ["environment", "list", "--json"]).stdout)
    assert {"textworld_express", "scienceworld", "textworld", "bfcl", "openenv", "faulty_sound"} <= set(listed)


def test_an_environment_that_keeps_its_promises_passes_the_check() -> None:
    done = CliRunner().invoke(
        app, ["environment", "check", "faulty_sound", "--tasks", "2", "--restores", "5", "--json"]
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout[done.stdout.index('{"environment"') :])
    assert report["tasks"] == 2
    kept = {check["name"]: check["kept"] for check in report["checks"]}
    assert False not in kept.values()
    assert kept["the same actions lead to the same states"]


def test_a_broken_promise_is_named_and_fails_the_command() -> None:
    arguments = ["environment", "check", "faulty_forgetful", "--tasks", "2", "--restores", "5"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert isinstance(done.exception, SandboxError)
    assert "states come back exactly by snapshot" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "faulty_sound", "--game", "chess"], "it has walk"),
        (["check", "production"], "not installed as a sandbox"),
    ],
)
def test_an_environment_that_cannot_be_checked_is_refused_with_a_remedy(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["environment", *arguments])
    assert done.exit_code != 0
    assert said in f"{done.output} {done.exception}"


def test_a_new_toolbox_is_checked_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["environment", "new", "mine", "--functions"]).exit_code == 0
    done = CliRunner().invoke(app, ["environment", "check", "mine", "--tasks", "2", "--restores", "4", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    report = json.loads(done.stdout[done.stdout.index('{"environment"') :])
    assert (report["environment"], report["tasks"], report["description"]["games"]) == ("toolbox", 2, ["mine"])
    assert {check["kept"] for check in report["checks"]} == {True, None}
    again = CliRunner().invoke(app, ["environment", "new", "mine"])
    assert isinstance(again.exception, ConfigurationError)
    (tmp_path / "empty").mkdir()
    assert "no toolbox.toml" in CliRunner().invoke(app, ["environment", "check", "empty"]).output


def test_recorded_episodes_are_replayed_and_where_they_part_is_told(
    served_store: ServedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toolbox(tmp_path / "todos", "todos", "functions")
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    monkeypatch.setenv("RATCHET_STORE__PORT", served_store.url.rpartition(":")[2])
    monkeypatch.setenv("RATCHET_BRANCHING__ENVIRONMENTS", json.dumps({"toolbox": {"folder": str(tmp_path / "todos")}}))
    monkeypatch.setenv("RATCHET_DOMAIN__ENVIRONMENT", "toolbox")
    nothing = CliRunner().invoke(app, ["environment", "replay"])
    assert "no episode of the environment 'toolbox' is recorded" in str(nothing.exception)
    log = Log(served_store.store)
    for name, answer, success in (
        ("same", '{"number": 1}', True),
        ("other", '{"number": 9}', True),
        ("judged", '{"number": 1}', False),
    ):
        log.publish(*added(name, answer, success))
    done = CliRunner().invoke(app, ["environment", "replay", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    report = json.loads(done.stdout[done.stdout.index('{"environment"') :])
    assert (report["episodes"], report["reproduced"], report["judged_otherwise"]) == (3, 2, ["judged"])
    (parted,) = report["parted"]
    assert (parted["episode_id"], parted["parts_at"], parted["reproduced"]) == ("other", 0, 0)
    assert {'- "number": 9', '+ "number": 1'} <= set(parted["diff"])
    shown = CliRunner().invoke(app, ["environment", "replay", "--limit", "2"])
    assert "1 of 2 episodes of toolbox are reproduced exactly" in shown.stdout
    assert "1 part after add_todo" in shown.stdout
    assert "parts after action 1 of 2: add_todo(" in " ".join(shown.stdout.split())
    unknown = CliRunner().invoke(app, ["environment", "replay", "--environment", "bfcl"])
    assert "there are those of: toolbox (3)" in str(unknown.exception)


def added(name: str, answer: str, success: bool) -> tuple[StepEvent | OutcomeEvent, ...]:
    """An episode in which a to-do was put down, as production recorded it."""
    calling = assistant(None, call("add_todo", '{"title": "buy bread", "due": "Tuesday"}', "c1"))
    asked = (user("Please put down: buy bread, due Tuesday."),)
    task, now = Task(environment="toolbox", task_id="todos/add-1"), datetime(2026, 11, 1, tzinfo=UTC)
    common: dict[str, Any] = {"episode_id": name, "agent": "a", "principal": "p", "recorded_at": now, "task": task}
    actor = Actor(kind="policy", adapter="base")
    said = (*asked, calling, tool_result(answer, "c1"))
    return (
        StepEvent(step=0, messages=asked, action=calling, observation=said[2:], actor=actor, **common),
        StepEvent(step=1, messages=said, action=assistant("Done."), observation=(), actor=actor, **common),
        OutcomeEvent(
            episode_id=name, verifier="v", success=success, score=float(success), evidence={}, recorded_at=now
        ),
    )


def test_an_environment_that_is_not_installed_is_told_with_those_that_are() -> None:
    done = CliRunner().invoke(app, ["environment", "check", "nosuch"], env={"COLUMNS": "400"})
    assert isinstance(done.exception, ConfigurationError)
    assert "known are: bfcl" in str(done.exception)
    assert "environment new" in str(done.exception)
