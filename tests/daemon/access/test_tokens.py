"""Tokens as operators make them: by the command, in a file that is never half, named in the audit log."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from daemon.cli import app
from daemon.registry.registry import Registry
from daemon.serving.access import GATEWAY, NEEDS
from daemon.serving.alias import Alias
from daemon.serving.control import control_router
from ratchet_client.crash_points import VARIABLE, CrashPoint
from ratchet_client.errors import ConfigurationError
from streams.access.access import Access
from streams.access.guard import guard
from streams.access.settings import AccessSettings
from streams.access.token_file import TokenFile
from streams.access.tokens import (
    INTERNAL_ROLES_VARIABLE,
    INTERNAL_VARIABLE,
    TOKEN_VARIABLE,
    AccessRole,
    own_token,
)
from tests.builders.grouped import alone
from tests.waiting import eventually

NOTHING = cast(Any, None)  # parts that a hold does not ask
_ISSUE = """
import sys
from pathlib import Path
from streams.access.token_file import TokenFile
from streams.access.tokens import (
    INTERNAL_ROLES_VARIABLE,
    INTERNAL_VARIABLE,
    TOKEN_VARIABLE,
    AccessRole,
    own_token,
)
TokenFile(Path(sys.argv[1])).issue("ben", [AccessRole.READ])
"""


def test_the_command_makes_lists_and_revokes_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    run = CliRunner().invoke
    made = run(app, ["token", "new", "ann", "--role", "operate", "--role", "read", "--expires", "90d"])
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    file = tmp_path / "home" / "tokens.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in file.read_text()
    (listed,) = json.loads(run(app, ["token", "list", "--json"]).stdout)["tokens"]
    assert (listed["name"], listed["roles"], listed["expired"]) == ("ann", ["operate", "read"], False)
    assert "ann" in run(app, ["token", "list"]).stdout
    assert run(app, ["token", "revoke", "ann"]).exit_code == 0
    assert TokenFile(tmp_path / "home").read() == ()
    for wrong in (["new", "ann"], ["new", "ann", "--role", "king"], ["new", "ann", "--role", "read", "--expires", "x"]):
        assert run(app, ["token", *wrong]).exit_code == 2
    assert isinstance(run(app, ["token", "revoke", "nobody"]).exception, ConfigurationError | SystemExit)


@pytest.mark.parametrize(
    ("point", "names"), [(CrashPoint.FILE_RENAME_BEFORE, ["ann"]), (CrashPoint.FILE_RENAME_AFTER, ["ann", "ben"])]
)
def test_killed_while_it_is_written_the_file_is_the_old_one_or_the_new_one(
    tmp_path: Path, point: CrashPoint, names: list[str]
) -> None:
    file = TokenFile(tmp_path)
    file.issue("ann", [AccessRole.READ])
    killed = subprocess.run(
        [sys.executable, "-c", _ISSUE, str(tmp_path)], env=os.environ | {VARIABLE: point.value}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert [token.name for token in file.read()] == names
    file.issue("cara", [AccessRole.READ])
    assert [token.name for token in file.read()] == [*names, "cara"]


def test_without_a_token_only_this_machine_is_listened_to(tmp_path: Path) -> None:
    assert not Access("127.0.0.1", home=tmp_path).check()
    with pytest.raises(ConfigurationError, match=r"serving\.host is 0\.0\.0\.0.*ratchet token new"):
        Access("0.0.0.0", "serving.host", home=tmp_path).check()
    assert not Access("0.0.0.0", settings=AccessSettings(open=True), home=tmp_path).check()
    TokenFile(tmp_path).issue("ann", [AccessRole.READ])
    assert Access("0.0.0.0", "serving.host", home=tmp_path).check()


async def test_the_actor_in_the_audit_log_is_whose_token_came(tmp_path: Path) -> None:
    registry, control = Registry(tmp_path), FastAPI()
    guard(control, Access(home=tmp_path), NEEDS, asks_itself=GATEWAY)
    control.include_router(control_router(alone(registry, Alias("assistant")), NOTHING, NOTHING, NOTHING, ""))
    request = {"actor": "mallory", "reason": "a look first"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(control), base_url="http://127.0.0.1") as client:
        assert (await client.post("/hold", json=request)).is_success
        assert registry.audit.read()[-1].actor == "mallory"  # nobody proves anything without tokens
        token = TokenFile(tmp_path).issue("ann", [AccessRole.OPERATE])

        async def is_closed() -> bool:
            return (await client.get("/history")).status_code == 401

        await eventually(is_closed, "the token is seen")
        assert (await client.post("/resume", json=request)).status_code == 401
        answer = await client.post("/resume", json=request, headers={"authorization": f"Bearer {token}"})
        assert answer.is_success, answer.text
    assert registry.audit.read()[-1].actor == "ann"


def test_a_role_gets_the_token_of_the_run_that_it_is_of_and_any_other_that_of_the_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in (TOKEN_VARIABLE, INTERNAL_VARIABLE, INTERNAL_ROLES_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    assert own_token("record") == ""
    monkeypatch.setenv(TOKEN_VARIABLE, "of the shell")
    assert own_token("record") == "of the shell"
    monkeypatch.setenv(INTERNAL_VARIABLE, "of the run")
    monkeypatch.setenv(INTERNAL_ROLES_VARIABLE, "record,serve")
    assert (own_token("record"), own_token("assemble")) == ("of the run", "of the shell")


def test_tokens_that_a_newer_version_wrote_let_nobody_in(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    file.path.write_text('{"version": 2, "tokens": []}')
    with pytest.raises(ConfigurationError, match=r"cannot be read: version: .* less than or equal to 1"):
        file.read()
