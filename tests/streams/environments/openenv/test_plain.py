"""Both ends against OpenEnv's own: its client on the reference server, and the adapter on its server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import assistant, call
from streams.environments.environment import (
    Canonicalises,
    Environment,
    ListsActions,
    Observation,
    Restore,
    Snapshots,
    TaskSource,
)
from streams.environments.openenv.environment import OpenEnv
from streams.environments.openenv.settings import OpenEnvSettings
from streams.errors import SandboxError
from streams.runtime.processes import free_port
from tests.streams.environments.openenv.openenv_servers import reference, settings, started, stopped

PLAIN = Path(__file__).with_name("plain_openenv.py")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the reference server serves TextWorldExpress."""
    chosen = free_port()
    process = reference(chosen)
    yield chosen
    assert stopped(process) == 0


@pytest.fixture(scope="module")
def plain_port() -> Iterator[int]:
    """Where OpenEnv's own server serves a game of its own."""
    chosen = free_port()
    process = started([str(PLAIN), "serve", str(chosen), "2"], chosen)
    yield chosen
    stopped(process)


def test_openenvs_own_client_plays_on_the_reference_server(port: int) -> None:
    command = [sys.executable, str(PLAIN), "play", f"http://127.0.0.1:{port}", "twc/train/17"]
    played = subprocess.run([*command, "take dirty white shirt", "dance"], capture_output=True, timeout=60, check=True)
    said = json.loads(played.stdout)
    assert said["said"][0]["text"].startswith("Your task")
    assert [one["reward"] for one in said["said"]] == [None, 0.25, 0.0]
    assert said["state"]["step_count"] == 2


def lock_settings(port: int, **others: object) -> OpenEnvSettings:
    return settings(port, action_field="letter", text_field="message", **others)


def test_on_openenvs_own_server_nothing_is_restored_unless_the_operator_declares_it(plain_port: int) -> None:
    session = OpenEnv(lock_settings(plain_port))
    vouched = OpenEnv(lock_settings(plain_port, deterministic=True, side_effects=False))
    assert session.capabilities.restores == ()
    assert session.capabilities.side_effects
    assert vouched.capabilities.restores == (Restore.REPLAY,)
    for protocol in (Snapshots, ListsActions, TaskSource, Canonicalises):
        assert not isinstance(session, protocol)
    assert isinstance(session, Environment)
    session.close()
    vouched.close()


def test_openenvs_own_server_is_played_and_replayed_according_to_the_settings(plain_port: int) -> None:
    session = OpenEnv(lock_settings(plain_port, deterministic=True))
    task = Task(environment="openenv", task_id="the door", seed=3)

    def play() -> list[tuple[Observation, str]]:
        seen = [(session.reset(task), session.fingerprint())]
        return [
            *seen,
            *((session.step(assistant(letter)), session.fingerprint()) for letter in ("a", "b", "c", "a", "b", "c")),
        ]

    first = play()
    assert first[0][0] == Observation.said("A lock, for the door.", 0.0, False, False)
    assert max(answer.score for answer, _ in first) == 1.0
    assert any(answer.done and answer.success for answer, _ in first)
    assert len({fingerprint for _, fingerprint in first}) == len(first)
    assert play()[:3] == first[:3]
    session.close()


def test_the_reserved_fold_is_not_played_on_a_server_that_would_play_it(plain_port: int) -> None:
    session = OpenEnv(lock_settings(plain_port))
    with pytest.raises(SandboxError, match="reserved"):
        session.reset(Task(environment="openenv", task_id="lock/test/1"))
    session.close()


def test_an_action_that_openenvs_own_server_cannot_read_is_answered(plain_port: int) -> None:
    session = OpenEnv(settings(plain_port))
    session.reset(Task(environment="openenv", task_id="the door", seed=3))
    before = session.fingerprint()
    for senseless, why in (("open it", "JSON"), ('{"word": "a"}', "letter: Field required"), ("[1]", "JSON")):
        answer = session.step(assistant(senseless))
        assert not answer.understood
        assert why in answer.text
    assert session.fingerprint() == before
    assert json.loads(session.step(assistant('{"letter": "z"}')).text) == {"message": "Nothing."}
    session.close()
    wrong = OpenEnv(settings(plain_port, text_field="text"))
    with pytest.raises(SandboxError, match="no field 'text'"):
        wrong.reset(Task(environment="openenv", task_id="the door"))
    wrong.close()


@pytest.fixture
def quiz() -> Iterator[OpenEnv]:
    """A session of an environment such as OpenEnv's importers make of others'."""
    port = free_port()
    process = started([str(PLAIN), "pose", str(port)], port)
    session = OpenEnv(settings(port, task_field="", text_field="metadata.prompt", tools=True))
    yield session
    session.close()
    stopped(process)


def test_a_task_is_named_by_several_parameters_of_the_reset_and_begins_with_the_messages_of_a_field(
    quiz: OpenEnv,
) -> None:
    first = quiz.reset(Task(environment="openenv", task_id='{"split": "train", "index": 5}'))
    assert [(message.role, message.text) for message in first.messages] == [("system", "Add."), ("user", "5 and 5?")]
    answer = quiz.step(assistant(None, call("add", '{"amount": 10}', "c1")))
    assert answer.text == "The sum is 10."


@pytest.mark.parametrize(
    ("task_id", "said"),
    [
        ("train/5", "not a JSON object of the reset's parameters"),
        ('{"split": "test", "index": 5}', "reserved"),
        ('{"split": "train"}', "split and index must be provided together"),
    ],
)
def test_parameters_that_name_no_task_are_refused(quiz: OpenEnv, task_id: str, said: str) -> None:
    with pytest.raises(SandboxError, match=said):
        quiz.reset(Task(environment="openenv", task_id=task_id))


def test_a_field_that_is_missing_is_told_with_those_that_are_there(plain_port: int) -> None:
    session = OpenEnv(settings(plain_port, text_field="message.text"))
    with pytest.raises(SandboxError, match=r"no field 'message\.text': where 'text' should be, it has A lock"):
        session.reset(Task(environment="openenv", task_id="door"))
    session.close()
