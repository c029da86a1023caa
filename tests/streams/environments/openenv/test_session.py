"""The reference server with environments that keep, break or bend the contract as no simulator does on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import uvicorn
from websockets.sync.client import connect

from ratchet_client.events import Task
from ratchet_client.messages import Message, assistant, call
from streams.environments.environment import (
    Canonicalises,
    Capabilities,
    Environment,
    Observation,
    Restore,
    Snapshots,
)
from streams.environments.harness import ChatHarness
from streams.environments.openenv.environment import OpenEnv
from streams.environments.openenv.server import OpenEnvServer, ServerSettings
from streams.environments.openenv.settings import OpenEnvSettings
from streams.environments.tool_definitions import Tool
from streams.errors import DivergedError, SandboxError
from streams.runtime.http_server import HttpServer, listen
from streams.runtime.processes import free_port

WRITE = Tool("write", "Writes a note.", {"type": "object", "properties": {"note": {"type": "string"}}})

TASK = Task(environment="openenv", task_id="notes/train/1")


class Notes:
    """A pad that each action is written on. It makes its own snapshots."""

    capabilities = Capabilities(
        restores=(Restore.SNAPSHOT,), deterministic=False, side_effects=False, complete_fingerprint=True
    )
    harness = ChatHarness(system_prompt="You take notes.", reply="message")
    closed = 0

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()

    def reset(self, task: Task) -> Observation:
        self.notes = (task.task_id,)
        return self._seen()

    def step(self, action: Message) -> Observation:
        if action.text == "tear":
            raise ValueError("the pad is torn")
        self.notes = (*self.notes, action.text)
        return self._seen()

    def fingerprint(self) -> str:
        return "\n".join(self.notes)

    def snapshot(self) -> object:
        return self.notes

    def restore(self, snapshot: object) -> None:
        assert isinstance(snapshot, tuple)
        self.notes = snapshot

    def canonical(self, action: Message) -> str:
        return " ".join(action.texts()).casefold()

    def close(self) -> None:
        type(self).closed += 1

    def _seen(self) -> Observation:
        shown = Observation.said("\n".join(self.notes), len(self.notes) / 100, False, False)
        return replace(shown, tools=(WRITE.definition,))


class Fickle:
    """Promises that a replay brings its states back, and shows how often it was reset."""

    capabilities = Capabilities(restores=(Restore.REPLAY,), deterministic=True, side_effects=False)
    harness = ChatHarness()

    def __init__(self) -> None:
        self.resets = 0

    def reset(self, task: Task) -> Observation:
        self.resets += 1
        return Observation.said(f"Number {self.resets}.", 0.0, False, False)

    def step(self, action: Message) -> Observation:
        return Observation.said("Well.", 0.0, False, False)

    def fingerprint(self) -> str:
        return "always"

    def close(self) -> None:
        pass


class Forgetful(Notes):
    """Its snapshots are of nothing."""

    def restore(self, snapshot: object) -> None:
        pass


class Fleeting(Fickle):
    """Cannot bring a state back, and says so."""

    capabilities = Capabilities(restores=(), deterministic=False, side_effects=True)


@contextmanager
def served(environment: Callable[[], Environment]) -> Iterator[OpenEnvSettings]:
    """A server of it on loopback, and how to reach it."""
    port = free_port()
    app = OpenEnvServer(environment, ServerSettings(environment="notes", port=port, sessions=2, snapshots=3)).app()
    server = HttpServer(uvicorn.Config(app, log_config=None, lifespan="off"))
    listening = listen("127.0.0.1", port, "the test's server", "the port")
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    yield OpenEnvSettings.model_validate({"url": f"ws://127.0.0.1:{port}/ws"})
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def test_capabilities_harness_and_tools_of_an_environment_reach_the_client() -> None:
    with served(Notes) as settings:
        session = OpenEnv(settings)
        assert session.capabilities.restores == (Restore.SNAPSHOT,)
        assert session.capabilities.complete_fingerprint
        assert not session.capabilities.deterministic
        assert session.harness == Notes.harness
        assert session.reset(TASK).tools == (WRITE.definition,)
        assert isinstance(session, Canonicalises)
        assert session.canonical(assistant("WRITE")) == "write"
        assert session.canonical(assistant(None, call("WRITE", '{"note": 1}'))) == ' write {"note": 1}'
        session.close()


def test_an_environments_own_snapshots_are_used_and_the_score_continues_from_them() -> None:
    with served(Notes) as settings:
        session = OpenEnv(settings)
        assert isinstance(session, Snapshots)
        session.reset(TASK)
        session.step(assistant("one"))
        taken = session.snapshot()
        session.step(assistant("two"))
        session.restore(taken)
        assert session.fingerprint() == "notes/train/1\none"
        assert session.step(assistant("three")) == replace(
            Observation.said("notes/train/1\none\nthree", 0.03, False, False), tools=(WRITE.definition,)
        )
        session.close()


@pytest.mark.parametrize("environment", [Fickle, Forgetful])
def test_a_restore_that_fails_is_reported_and_ends_the_episode(
    environment: Callable[[], Environment],
) -> None:
    with served(environment) as settings:
        session = OpenEnv(settings)
        assert isinstance(session, Snapshots)
        session.reset(TASK)
        taken = session.snapshot()
        session.step(assistant("go on"))
        with pytest.raises(DivergedError, match="RESTORE_DIVERGED"):
            session.restore(taken)
        with pytest.raises(SandboxError, match="NO_EPISODE"):
            session.step(assistant("go on"))
        session.reset(TASK)
        session.close()


def test_an_environment_that_cannot_be_restored_offers_no_snapshots() -> None:
    with served(Fleeting) as settings:
        session = OpenEnv(settings)
        assert session.capabilities.restores == ()
        assert session.capabilities.side_effects
        assert not isinstance(session, Snapshots)
        session.close()


def test_an_environment_that_fails_ends_only_its_own_session() -> None:
    with served(Notes) as settings:
        broken, sound = OpenEnv(settings), OpenEnv(settings)
        broken.reset(TASK)
        sound.reset(TASK)
        closed = Notes.closed
        with pytest.raises(SandboxError, match=r"is lost.*\. [A-Z]\w+ "):
            broken.step(assistant("tear"))
        deadline = time.monotonic() + 20
        while Notes.closed == closed and time.monotonic() < deadline:
            time.sleep(0.01)
        again = OpenEnv(settings)
        assert sound.step(assistant("on")).text == "notes/train/1\non"
        again.close()
        sound.close()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no JSON", "INVALID_JSON"),
        ("[]", "INVALID_JSON"),
        ('{"type": "step", "data": {}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"task_id": ""}}', "VALIDATION_ERROR"),
        ('{"type": "snapshot"}', "NO_EPISODE"),
        ('{"type": "games"}', "UNKNOWN_TYPE"),
        ('{"type": "mcp", "data": {}}', "UNKNOWN_TYPE"),
    ],
)
def test_a_message_that_makes_no_sense_is_refused_with_a_code_and_the_session_goes_on(message: str, code: str) -> None:
    with served(Notes) as settings, connect(str(settings.url)) as socket:
        socket.send(message)
        refused = json.loads(socket.recv(10))
        assert (refused["type"], refused["data"]["code"]) == ("error", code)
        socket.send('{"type": "reset", "data": {"task_id": "notes/train/1"}}')
        assert json.loads(socket.recv(10))["type"] == "observation"


def test_an_environment_that_does_not_open_is_reported() -> None:
    def refuse() -> Environment:
        raise SandboxError("there is no pad. Buy one.")

    with served(refuse) as settings, pytest.raises(SandboxError, match=r"Buy one.*FACTORY_ERROR"):
        OpenEnv(settings)
