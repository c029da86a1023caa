"""The report of `ratchet environment check`, on plain OpenEnv servers in processes of their own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from daemon.cli import app
from daemon.commands.conformance_report import ConformanceReport, print_report
from ratchet_client.errors import ConfigurationError
from streams.errors import SandboxError
from streams.runtime.processes import free_port
from tests.streams.environments.openenv.openenv_servers import started, stopped

PLAIN = Path("tests/streams/environments/openenv/plain_openenv.py").absolute()
ACTIONS = '{"task_id": "front", "seed": 3, "actions": ["a", "b", "c"]}\n{"task_id": "back", "actions": ["c", "b"]}\n'

Check = Callable[..., Result]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Check]]:
    """Start a server of `plain_openenv.py`, and return what checks it by the command."""
    running = []

    def begin(*command: str, deterministic: bool = True) -> Check:
        port = free_port()
        running.append(started([str(PLAIN), command[0], str(port), *command[1:]], port))
        settings = {
            "action_field": "letter",
            "text_field": "message",
            "deterministic": deterministic,
            "side_effects": False,
        }
        of_it = {"openenv": {"url": f"ws://127.0.0.1:{port}/ws", **settings}}
        monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
        monkeypatch.setenv("RATCHET_BRANCHING__ENVIRONMENTS", json.dumps(of_it))
        monkeypatch.setenv(
            "RATCHET_BRANCHING__PERMISSIONS", json.dumps({"openenv": {"network": [f"127.0.0.1:{port}"]}})
        )
        return lambda *options: CliRunner().invoke(
            app, ["environment", "check", "openenv", "--restores", "4", *options]
        )

    yield begin
    for process in running:
        stopped(process)


@pytest.fixture
def actions(tmp_path: Path) -> str:
    (tmp_path / "actions.jsonl").write_text(ACTIONS)
    return str(tmp_path / "actions.jsonl")


def reported(done: Result) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    report = json.loads(done.stdout[done.stdout.index('{"environment"') :])
    return report, {check["name"]: check for check in report["checks"]}


def test_a_server_without_demonstrations_is_played_by_the_actions_of_a_file(
    serve: Callable[..., Check], actions: str
) -> None:
    done = serve("serve", "2")("--actions", actions, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    report, checks = reported(done)
    assert report["played"] == {"front": ["'a'", "'b'", "'c'"], "back": ["'c'", "'b'"]}
    assert checks["the same actions lead to the same states"]["seen"] == "7 states of 2 trajectories"
    assert checks["sessions share no state"]["kept"]


def test_what_was_not_tried_is_not_called_kept(serve: Callable[..., Check]) -> None:
    done = serve("serve", "2")("--task", "front", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    _, checks = reported(done)
    same = checks["the same actions lead to the same states"]
    assert (same["kept"], same["seen"]) == (None, "no actions were played")
    assert "--actions" in same["remedy"]
    assert checks["tools are defined as models are given them"]["kept"] is None


def test_a_server_that_holds_one_session_is_checked_with_one(serve: Callable[..., Check], actions: str) -> None:
    done = serve("serve", "1")("--actions", actions, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    _, checks = reported(done)
    assert checks["the same actions lead to the same states"]["kept"]
    assert checks["sessions share no state"]["kept"] is None
    assert "max_concurrent_envs" in checks["sessions share no state"]["seen"]


def test_a_broken_promise_comes_with_the_actions_the_expectation_and_a_remedy(
    serve: Callable[..., Check], actions: str
) -> None:
    check = serve("draw")
    done = check("--actions", actions, "--json")
    assert isinstance(done.exception, SandboxError)
    report, checks = reported(done)
    same = checks["the same actions lead to the same states"]
    assert same["kept"] is False
    assert same["tried"] == "task front: reset (played twice)"
    assert same["expected"].splitlines()[1] != same["seen"]
    assert same["expected"].splitlines()[1].startswith("'Lock 0.")
    assert same["seen"].startswith("'Lock 0.")
    assert "seed" in same["remedy"]
    console = Console(record=True, width=160)
    print_report(ConformanceReport.model_validate(report), console)
    told = console.export_text()
    for part in (
        "tried    task front: reset",
        "expected The same observations",
        "came     'Lock",
        "to do    Take time",
    ):
        assert part in told


def test_a_server_that_is_not_called_deterministic_is_not_held_to_it(serve: Callable[..., Check], actions: str) -> None:
    done = serve("draw", deterministic=False)("--actions", actions, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    _, checks = reported(done)
    assert checks["sessions share no state"]["seen"] == "it is not declared deterministic"
    assert checks["branches share no state"]["seen"] == "no way of restoring is declared"
    assert checks["what is not an action is answered"]["kept"]


def test_one_error_that_breaks_several_promises_is_told_once(serve: Callable[..., Check], actions: str) -> None:
    report, _ = reported(serve("draw")("--actions", actions, "--json"))
    for check in report["checks"]:
        check.update(kept=False, seen="no server answers")
    console = Console(record=True, width=160)
    print_report(ConformanceReport.model_validate(report), console)
    assert console.export_text().count("no server answers") == 1


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"task_id": "front"}', "line 1, is not a task with its actions"),
        ("", "has no tasks"),
        ('{"task_id": "front", "actions": [{"role": "user", "content": "a"}]}', "the assistant's messages only"),
    ],
)
def test_a_file_of_actions_that_is_wrong_is_refused_with_its_line(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "actions.jsonl").write_text(written)
    command = ["environment", "check", "openenv", "--actions", str(tmp_path / "actions.jsonl")]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, ConfigurationError)
    assert said in str(done.exception)


def test_a_task_that_the_environment_does_not_know_is_refused_before_anything_is_checked() -> None:
    done = CliRunner().invoke(
        app, ["environment", "check", "examples/helpdesk", "--task", "helpdesk/nowhere/1", "--json"]
    )
    assert isinstance(done.exception, ConfigurationError)
    assert "the task 'helpdesk/nowhere/1' cannot be begun" in str(done.exception)
    assert "{" not in done.stdout
