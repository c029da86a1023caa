"""What an operator types, and what comes back: exit codes, JSON on stdout, one clear line on stderr."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from daemon.cli import COMMANDS as LISTED
from daemon.cli import app
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from ratchet_client.ids import content_id
from streams.runtime.processes import free_port

COMMANDS = (
    *("demo", "run", "status", "history", "why", "rollback", "forget", "transitions", "export", "dead-letters"),
    *("check-config", "doctor", "approve", "reject", "restore", "hold", "resume", "verify", "cycle"),
)


@pytest.fixture
def ratchet(tmp_path: Path) -> "Ratchet":
    return Ratchet(tmp_path)


class Ratchet:
    """Runs the real command in a process of its own, in a folder of its own, on a port where nothing answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        repository = str(Path(__file__).parents[2])
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        self.environment = kept | {"RATCHET_SERVING__PORT": str(free_port()), "PYTHONPATH": repository}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "daemon.cli", *arguments)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self._folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_without_a_daemon_the_status_is_one_line_that_says_what_to_do(ratchet: Ratchet) -> None:
    done = ratchet("status", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "is `ratchet run` up" in done.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [("ratchet dr", {"drill"}), ("ratchet rollback --re", {"--reason"}), ("ratchet drill ", {"rollback"})],
)
def test_a_shell_completes_commands_and_their_options(ratchet: Ratchet, words: str, offered: set[str]) -> None:
    ratchet.environment |= {
        "_RATCHET_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = ratchet.python("-c", "import sys; sys.argv = ['ratchet']; from daemon.cli import main; main()")
    assert set(done.stdout.split()) == offered, done.stderr


def test_a_rollback_without_a_daemon_fails_in_one_line(ratchet: Ratchet) -> None:
    done = ratchet("rollback")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


@pytest.mark.slow
def test_a_wrong_setting_is_one_line_and_exit_status_one(ratchet: Ratchet, tmp_path: Path) -> None:
    (tmp_path / "ratchet.toml").write_text("sede = 1")
    for command in ("check-config", "status", "run"):
        done = ratchet(command)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("ratchet: the setting 'sede' is wrong")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert command in done.output


def test_the_help_lists_every_command() -> None:
    done = invoke("--help")
    assert done.exit_code == 0
    assert all(command in done.output for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["status", "--fast"],
        ["history", "--limit", "0"],
        ["run", "--roles", "record,dance"],
        ["demo", "--seed", "many"],
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


@pytest.mark.slow
def test_a_role_by_itself_needs_a_cluster_that_the_others_share(ratchet: Ratchet) -> None:
    done = ratchet("run", "--roles", "record")
    assert done.returncode == 2
    assert "RATCHET_KAFKA__BOOTSTRAP" in done.stderr


@pytest.mark.slow
def test_what_ends_a_role_is_told_in_the_form_of_its_log(ratchet: Ratchet) -> None:
    ratchet.environment |= {
        "RATCHET_KAFKA__BOOTSTRAP": "127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    words = "traces cannot be sent by 'grpc'"
    done = ratchet("run", "--roles", "assemble")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ratchet: {words}")
    ratchet.environment["RATCHET_LOG__FORMAT"] = "json"
    done = ratchet("run", "--roles", "assemble")
    assert done.returncode == 1
    *_, last = map(json.loads, done.stderr.splitlines())
    assert (last["event"], last["level"]) == ("ended by an error", "error")
    assert last["error"].startswith(words)


def test_a_rollback_to_something_that_is_not_an_adapter_is_wrong_usage(ratchet: Ratchet) -> None:
    done = ratchet("rollback", "--to", "yesterday")
    assert (done.returncode, done.stdout) == (2, "")
    assert "64 digits" in done.stderr


def test_the_configuration_is_printed_as_json_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ratchet.toml").write_text("seed = 5")
    done = invoke("check-config", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["seed"] == 5
    assert json.loads(invoke("check-config").stdout)["seed"] == 5


def test_the_history_needs_nothing_running_and_shows_the_newest_entries_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(invoke("history", "--json").stdout) == []
    registry = Registry(tmp_path / ".ratchet")
    for number in range(3):
        registry.enter(content_id(str(number)), State.TRAINED, "learner", f"reason {number}")
    entries = json.loads(invoke("history", "--json", "--limit", "2").stdout)
    assert [entry["reason"] for entry in entries] == ["reason 1", "reason 2"]
    table = invoke("history")
    assert table.exit_code == 0
    assert "reason 0" in table.output


HEAVY = ("torch", "transformers", "peft", "scipy", "pyarrow", "duckdb", "faust", "aiokafka", "pandas", "sklearn")


@pytest.mark.parametrize(
    ("command", "status"),
    [("--help", 0), ("rollback --help", 0), ("status", 1), ("rollback", 1), ("history", 0)],
)
def test_a_command_imports_no_more_than_it_needs(command: str, status: int, ratchet: "Ratchet") -> None:
    script = (
        "import atexit, sys, daemon.cli\n"
        f"atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules]))\n"
        "daemon.cli.main()"
    )
    done = ratchet.python("-c", script, *command.split())
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", LISTED)
def test_the_list_of_commands_says_of_each_what_its_own_help_says(name: str) -> None:
    command = LISTED[name].load(name)
    assert command.help is not None
    assert " ".join(command.help.split("\n\n")[0].split()) == LISTED[name].summary


def test_what_a_command_imports_is_not_searched_for_garbage_and_what_it_makes_is(ratchet: Ratchet) -> None:
    said = ratchet.python(
        "-c",
        "import gc; from daemon.cli import COMMANDS; COMMANDS['history'].load('history'); "
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000)",
    )
    assert said.stdout == "True True\n"
