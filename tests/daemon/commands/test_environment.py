"""`ratchet environment`, on environments of a third party."""

import json

import pytest
from typer.testing import CliRunner

from daemon.cli import app
from streams.errors import SandboxError

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
    assert {check["kept"] for check in report["checks"]} == {True}


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
