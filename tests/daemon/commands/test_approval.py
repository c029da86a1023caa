"""`ratchet approve` and `ratchet reject`, as a person types them."""

import asyncio
import getpass
import json
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from daemon.cli import app
from daemon.commands.options import operator_name
from daemon.registry.lifecycle import State
from daemon.registry.refs import Refs
from daemon.registry.registry import Registry
from ratchet_client.errors import RatchetError
from streams.errors import ControlError, LifecycleError, RegistryError, UnknownAdapterError
from streams.runtime.processes import free_port

A, B = "a" * 64, "b" * 64


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A home with the adapter A, which is held, and B, which is approved; nothing runs."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    monkeypatch.setenv("RATCHET_SERVING__PORT", str(free_port()))
    registry = Registry(tmp_path)
    for adapter, last in ((A, State.HELD), (B, State.APPROVED)):
        (tmp_path / "adapters" / adapter).mkdir(parents=True)
        for state in (State.TRAINED, State.EVALUATING, last):
            registry.enter(adapter, state, "learner", "It repeats one action.")
    return registry


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("name", [A, A[:8], f"ratchet-7-{A[:12]}"])
def test_a_rejection_needs_nothing_running_and_is_in_the_audit_log(name: str, registry: Registry) -> None:
    done = invoke("reject", name, "--reason", "it pads its answers")
    assert (done.exit_code, done.output) == (0, f"{A[:12]} is rejected and will not serve\n")
    last = registry.audit.read()[-1]
    assert (last.subject, last.state, last.actor, last.reason) == (
        *(A, State.REJECTED, getpass.getuser(), "it pads its answers"),
    )
    again = invoke("reject", name, "--reason", "really")
    assert isinstance(again.exception, LifecycleError)
    assert "not held but rejected" in str(again.exception)


def test_a_rejection_is_told_as_json(registry: Registry) -> None:
    told = json.loads(invoke("reject", A, "--reason", "rude", "--json").stdout)
    assert (told["subject"], told["state"], told["reason"]) == (A, "rejected", "rude")


def test_an_approval_needs_a_running_ratchet_and_says_so(registry: Registry) -> None:
    done = invoke("approve", A, "--reason", "fine")
    assert isinstance(done.exception, ControlError)
    assert "is `ratchet run` up" in str(done.exception)
    assert registry.state(A) is State.HELD


@pytest.mark.parametrize("command", ["approve", "reject"])
@pytest.mark.parametrize("arguments", [(), (A,), ("--reason", "fine"), (A, "--reason", ""), (A, "--reason", " \n")])
def test_a_decision_without_an_adapter_or_a_reason_is_wrong_usage(
    command: str, arguments: tuple[str, ...], registry: Registry
) -> None:
    assert invoke(command, *arguments).exit_code == 2
    assert registry.state(A) is State.HELD


@pytest.mark.parametrize("command", ["approve", "reject"])
@pytest.mark.parametrize("name", ["champion", "base", "abc", "f" * 64])
def test_a_name_that_stands_for_no_candidate_is_one_clear_error(command: str, name: str, registry: Registry) -> None:
    assert isinstance(invoke(command, name, "--reason", "fine").exception, UnknownAdapterError)


def test_an_adapter_that_is_not_held_cannot_be_rejected(registry: Registry) -> None:
    done = invoke("reject", B, "--reason", "no")
    assert isinstance(done.exception, RatchetError)
    assert "not held but approved, by learner" in str(done.exception)


def test_a_log_that_may_not_be_written_is_one_clear_error(registry: Registry) -> None:
    registry.audit.path.rename(registry.home / "elsewhere")
    registry.audit.path.mkdir()
    done = invoke("reject", A, "--reason", "no")
    assert isinstance(done.exception, RegistryError)
    assert "as the user that Ratchet runs as" in str(done.exception)


def test_the_history_tells_who_decided_and_why(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    invoke("reject", A, "--reason", "it pads [/its] answers")
    shown = " ".join(invoke("history").output.replace("│", " ").split())
    assert "moved → rejected" in shown
    assert "it pads [/its] answers" in shown


async def test_what_is_approved_at_the_command_line_serves(
    serving: httpx.AsyncClient,
    make_adapter: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    registry: Registry,
) -> None:
    first, second = make_adapter(1, last=State.HELD), make_adapter(2, last=State.HELD)
    monkeypatch.setenv("RATCHET_SERVING__PORT", str(serving.base_url.port))
    done = await asyncio.to_thread(invoke, "approve", first[:12], "--reason", "I read its episodes", "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout.splitlines()[-1])["to_adapter"] == first
    assert registry.refs() == Refs(champion=first)
    approved = next(
        entry for entry in registry.audit.read() if entry.subject == first and entry.state is State.APPROVED
    )
    assert (approved.actor, approved.reason) == (getpass.getuser(), "I read its episodes")
    for adapter, reason in ((first, "not held but serving"), (second, "judged against the base model")):
        refused = await asyncio.to_thread(invoke, "approve", adapter, "--reason", "me too")
        assert isinstance(refused.exception, ControlError)
        assert reason in str(refused.exception)
    assert registry.refs() == Refs(champion=first)


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert operator_name() == f"user {os.getuid()}"
