import random

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import Message, assistant
from streams.environments.environment import (
    Canonicalises,
    Environment,
    ListsActions,
    Network,
    Restore,
    Snapshots,
    TaskSource,
)
from streams.environments.openenv.environment import OpenEnv
from streams.environments.textworld_express import TextWorldExpress
from streams.errors import SandboxError
from streams.sandboxes.session import ReferenceTrajectory, ReplaySession
from tests.streams.environments.openenv.openenv_servers import SNAPSHOTS, settings


@pytest.fixture
def task() -> Task:
    return Task(environment="openenv", task_id="twc/train/17", seed=17)


def walk(session: OpenEnv, task: Task, steps: int, generator: random.Random) -> list[Message]:
    """Actions that can be taken one after the other from the task's start, and with them the session at their end."""
    assert isinstance(session, ListsActions)
    session.reset(task)
    actions: list[Message] = []
    for _ in range(steps):
        actions.append(assistant(generator.choice(session.valid_actions())))
        session.step(actions[-1])
    return actions


def test_a_session_has_the_abilities_that_its_server_offers_and_no_others(session: OpenEnv) -> None:
    assert [
        isinstance(session, protocol) for protocol in (Environment, Snapshots, ListsActions, TaskSource, Canonicalises)
    ] == [True, True, True, True, False]
    assert session.capabilities.restores == (Restore.SNAPSHOT, Restore.REPLAY)
    assert session.capabilities.network is Network.REMOTE
    assert not session.capabilities.side_effects
    assert session.harness == TextWorldExpress().harness


def test_a_remote_environment_is_played_as_it_is_where_it_runs(session: OpenEnv, task: Task) -> None:
    local = TextWorldExpress()
    assert session.reset(task) == local.reset(task)
    for action in ("open clothes drier", "take dirty white shirt", "dance with the ☃"):
        assert session.step(assistant(action)) == local.step(assistant(action))
        assert session.fingerprint() == local.fingerprint()
        assert isinstance(session, ListsActions)
        assert session.valid_actions() == local.valid_actions()
    local.close()


def test_its_tasks_and_demonstrations_come_from_the_server(session: OpenEnv) -> None:
    assert isinstance(session, TaskSource)
    assert "coin" in session.games()
    tasks = session.task_list("coin", "train")
    assert {task.environment for task in tasks} == {"openenv"}
    actions = session.demonstration(tasks[3])
    session.reset(tasks[3])
    assert [session.step(action) for action in actions][-1].success
    with pytest.raises(SandboxError, match="reserved"):
        session.task_list("coin", "test")


def test_any_state_of_an_episode_is_restored_exactly_and_continues_as_before(session: OpenEnv, task: Task) -> None:
    generator = random.Random(5)
    actions = walk(session, task, 20, generator)
    assert isinstance(session, Snapshots)
    session.reset(task)
    snapshots, fingerprints, answers = [session.snapshot()], [session.fingerprint()], []
    for action in actions:
        answers.append(session.step(action))
        snapshots.append(session.snapshot())
        fingerprints.append(session.fingerprint())
    for _ in range(60):
        depth = generator.randrange(len(actions))
        session.restore(snapshots[depth])
        assert session.fingerprint() == fingerprints[depth]
        assert session.step(actions[depth]) == answers[depth]
        assert session.fingerprint() == fingerprints[depth + 1]
        session.step(assistant("look around"))


def test_a_remote_episode_is_branched_at_any_of_its_states(session: OpenEnv, task: Task) -> None:
    generator = random.Random(7)
    actions = walk(session, task, 8, generator)
    local = TextWorldExpress()
    shown = (local.reset(task).messages, *(local.step(action).messages for action in actions))
    replay = ReplaySession(session, 60)
    replay.follow(ReferenceTrajectory(task, tuple(actions), shown))
    for _ in range(20):
        depth = generator.randrange(len(actions))
        replay.restore(depth)
        assert replay.step(actions[depth]).messages == shown[depth + 1]
    replay.close()
    local.close()


def test_a_snapshot_outlives_a_reset_to_another_task(session: OpenEnv, task: Task) -> None:
    assert isinstance(session, Snapshots)
    session.reset(task)
    session.step(assistant("take dirty white shirt"))
    taken, fingerprint = session.snapshot(), session.fingerprint()
    session.reset(Task(environment="openenv", task_id="coin/dev/10003", seed=10003))
    session.restore(taken)
    assert session.fingerprint() == fingerprint


def test_a_session_keeps_a_limited_number_of_snapshots_and_unreferenced_ones_are_released(
    session: OpenEnv, task: Task
) -> None:
    assert isinstance(session, Snapshots)
    session.reset(task)
    held = [session.snapshot() for _ in range(SNAPSHOTS)]
    with pytest.raises(SandboxError, match="SNAPSHOT_LIMIT"):
        session.snapshot()
    held.pop()
    held.append(session.snapshot())
    session.restore(held[0])


def test_another_sessions_snapshot_is_refused_and_nothing_is_lost(session: OpenEnv, port: int, task: Task) -> None:
    other = OpenEnv(settings(port))
    assert isinstance(session, Snapshots)
    assert isinstance(other, Snapshots)
    session.reset(task)
    before = session.fingerprint()
    other.reset(task)
    with pytest.raises(SandboxError, match="UNKNOWN_SNAPSHOT"):
        session.restore(other.snapshot())
    with pytest.raises(SandboxError, match="not a snapshot of this session"):
        session.restore("an id that a stranger made up")
    assert session.fingerprint() == before
    other.close()


def test_two_sessions_share_no_state(session: OpenEnv, port: int, task: Task) -> None:
    other = OpenEnv(settings(port))
    session.reset(task)
    other.reset(Task(environment="openenv", task_id="coin/dev/10003", seed=10003))
    session.step(assistant("take dirty white shirt"))
    fingerprint = session.fingerprint()
    other.close()
    assert session.fingerprint() == fingerprint
    assert session.step(assistant("put dirty white shirt in laundry basket")).score == 0.5


def test_requests_that_need_an_episode_are_refused_before_the_first_reset(session: OpenEnv) -> None:
    assert isinstance(session, ListsActions)
    for needy in (session.fingerprint, session.valid_actions, lambda: session.step(assistant("look around"))):
        with pytest.raises(SandboxError, match="Reset"):
            needy()


@pytest.mark.parametrize(
    "task_id", ["twc/test/20000", "ws://127.0.0.1:1/ws", "http://169.254.169.254/latest", "../../ws?url=ws://evil"]
)
def test_an_invalid_task_id_is_refused(session: OpenEnv, task: Task, task_id: str) -> None:
    with pytest.raises(SandboxError, match=r"\. [A-Z]\w+ "):
        session.reset(Task(environment="openenv", task_id=task_id))
    assert session.reset(task).text.startswith("Your task")
