"""`ratchet restore`, `ratchet hold` and `ratchet resume`, as a person types them."""

import asyncio
import getpass
import json
from collections.abc import Callable

import httpx
import pytest
from typer.testing import CliRunner, Result

from daemon.cli import app
from daemon.registry.refs import Refs
from daemon.registry.registry import Registry
from streams.errors import LifecycleError

MakeAdapter = Callable[..., str]


def invoke(*arguments: str, said: str = "") -> Result:
    return CliRunner().invoke(app, arguments, input=said)


async def test_a_restore_shows_the_gates_and_asks_and_a_hold_is_begun_and_ended_offline(
    serving: httpx.AsyncClient, registry: Registry, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(registry.home))
    monkeypatch.setenv("RATCHET_SERVING__PORT", str(serving.base_url.port))
    adapter = make_adapter(1)
    early = invoke("restore", adapter, "--reason", "why not", "--yes")
    assert isinstance(early.exception, LifecycleError)
    assert "it was not rolled back but is approved" in str(early.exception)
    promotion = {"digest": adapter, "reason": "better", "actor": "learner"}
    assert (await serving.post("/promote", json=promotion)).is_success
    rolled_back = await asyncio.to_thread(invoke, "rollback")
    assert "promotion is on hold" in rolled_back.stderr

    refused = await asyncio.to_thread(invoke, "restore", adapter[:12], "--reason", "a mistake", said="n\n")
    assert (refused.exit_code, registry.refs()) == (1, Refs())
    assert adapter in refused.stdout
    done = await asyncio.to_thread(invoke, "restore", adapter[:12], "--reason", "a mistake", "--yes", "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout.splitlines()[-1])["to_adapter"] == adapter
    assert registry.refs() == Refs(champion=adapter)

    # The rollback has begun one already.
    again = invoke("hold", "--reason", "an incident")
    assert f"by {getpass.getuser()}" in again.stdout
    assert "an incident" not in again.stdout
    assert "not written down" in again.stderr
    assert "promotion is automatic again" in invoke("resume").stdout
    assert "was not on hold" in invoke("resume").stdout
    later = invoke("hold", "--reason", "an incident")
    assert "an incident" in later.stdout
    assert not later.stderr
    assert invoke("hold", "--reason", " ").exit_code == 2
