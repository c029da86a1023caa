import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Origin

from streams.errors import SandboxError
from streams.events import Task
from streams.processes import free_port
from streams.sandboxes.environment import (
    Canonicalises,
    Environment,
    ListsActions,
    Network,
    Observation,
    Restore,
    Snapshots,
    TaskSource,
    Tools,
)
from streams.sandboxes.lane import Lane, Trunk
from streams.sandboxes.openenv import OpenEnv
from streams.sandboxes.openenv_settings import OpenEnvSettings
from streams.sandboxes.textworld_express import TextWorldExpress

PLAIN = Path(__file__).with_name("plain_openenv.py")
SESSIONS, SNAPSHOTS = 4, 24
TOKEN = "a-token-for-the-tests"


def started(command: list[str], port: int, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A server process that listens on `port`."""
    process = subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"{command} does not serve")


def reference(port: int, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    command = ["-m", "streams.sandboxes.openenv_server", "textworld_express", "--port", str(port)]
    limits = ["--sessions", str(SESSIONS), "--snapshots", str(SNAPSHOTS)]
    return started([*command, *limits], port, environment)


def stopped(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(30)


def settings(port: int, **others: object) -> OpenEnvSettings:
    return OpenEnvSettings.model_validate({"url": f"ws://127.0.0.1:{port}/ws", **others})


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
    process = started([str(PLAIN), "serve", str(chosen)], chosen)
    yield chosen
    stopped(process)


@pytest.fixture
def session(port: int) -> Iterator[OpenEnv]:
    opened = OpenEnv(settings(port))
    yield opened
    opened.close()


@pytest.fixture
def task() -> Task:
    return Task(environment="openenv", task_id="twc/train/17", seed=17)


def walk(session: OpenEnv, task: Task, steps: int, generator: random.Random) -> list[str]:
    """Actions that can be taken one after the other from the task's start, and with them the session at their end."""
    assert isinstance(session, ListsActions)
    session.reset(task)
    actions = []
    for _ in range(steps):
        actions.append(generator.choice(session.valid_actions()))
        session.step(actions[-1])
    return actions


def test_a_session_has_the_abilities_that_its_server_offers_and_no_others(session: OpenEnv) -> None:
    assert [
        isinstance(session, protocol)
        for protocol in (Environment, Snapshots, ListsActions, TaskSource, Tools, Canonicalises)
    ] == [True, True, True, True, False, False]
    assert session.capabilities.restores == (Restore.SNAPSHOT, Restore.REPLAY)
    assert session.capabilities.network is Network.REMOTE
    assert not session.capabilities.side_effects
    assert session.harness == TextWorldExpress.harness


def test_a_remote_environment_is_played_as_it_is_where_it_runs(session: OpenEnv, task: Task) -> None:
    local = TextWorldExpress()
    assert session.reset(task) == local.reset(task)
    for action in ("open clothes drier", "take dirty white shirt", "dance with the ☃"):
        assert session.step(action) == local.step(action)
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


def test_any_state_on_the_way_is_restored_exactly_and_goes_on_as_before(session: OpenEnv, task: Task) -> None:
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
        session.step("look around")


def test_a_remote_episode_is_branched_at_any_of_its_states(session: OpenEnv, task: Task) -> None:
    generator = random.Random(7)
    actions = walk(session, task, 8, generator)
    local = TextWorldExpress()
    texts = (local.reset(task).text, *(local.step(action).text for action in actions))
    lane = Lane(session)
    lane.follow(Trunk(task, tuple(actions), texts))
    for _ in range(20):
        depth = generator.randrange(len(actions))
        lane.restore(depth)
        assert lane.step(actions[depth]).text == texts[depth + 1]
    lane.close()
    local.close()


def test_a_snapshot_outlives_a_reset_to_another_task(session: OpenEnv, task: Task) -> None:
    assert isinstance(session, Snapshots)
    session.reset(task)
    session.step("take dirty white shirt")
    taken, fingerprint = session.snapshot(), session.fingerprint()
    session.reset(Task(environment="openenv", task_id="coin/dev/10003", seed=10003))
    session.restore(taken)
    assert session.fingerprint() == fingerprint


def test_a_session_keeps_only_so_many_snapshots_and_those_nobody_has_are_released(session: OpenEnv, task: Task) -> None:
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
    with pytest.raises(SandboxError, match="no snapshot of this session"):
        session.restore("an id that a stranger made up")
    assert session.fingerprint() == before
    other.close()


def test_two_sessions_share_nothing(session: OpenEnv, port: int, task: Task) -> None:
    other = OpenEnv(settings(port))
    session.reset(task)
    other.reset(Task(environment="openenv", task_id="coin/dev/10003", seed=10003))
    session.step("take dirty white shirt")
    fingerprint = session.fingerprint()
    other.close()
    assert session.fingerprint() == fingerprint
    assert session.step("put dirty white shirt in laundry basket").score == 0.5


def test_what_needs_an_episode_is_refused_before_the_first(session: OpenEnv) -> None:
    assert isinstance(session, ListsActions)
    for needy in (session.fingerprint, session.valid_actions, lambda: session.step("look around")):
        with pytest.raises(SandboxError, match="Remedy: reset"):
            needy()


@pytest.mark.parametrize(
    "task_id", ["twc/test/20000", "ws://127.0.0.1:1/ws", "http://169.254.169.254/latest", "../../ws?url=ws://evil"]
)
def test_no_task_id_leads_anywhere_but_to_a_refusal(session: OpenEnv, task: Task, task_id: str) -> None:
    with pytest.raises(SandboxError, match="Remedy"):
        session.reset(Task(environment="openenv", task_id=task_id))
    assert session.reset(task).text.startswith("Your task")


def test_a_full_server_says_so_and_a_closed_session_makes_room(port: int) -> None:
    sessions = [OpenEnv(settings(port)) for _ in range(SESSIONS)]
    with pytest.raises(SandboxError, match="CAPACITY_REACHED"):
        OpenEnv(settings(port))
    sessions.pop().close()
    sessions.append(opened_again(lambda: OpenEnv(settings(port))))
    for session in sessions:
        session.close()


def opened_again(opening: Callable[[], OpenEnv]) -> OpenEnv:
    """The server notices a moment later that a session is over."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return opening()
        except SandboxError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_message_that_is_too_long_is_not_sent_and_the_session_goes_on(session: OpenEnv, task: Task) -> None:
    session.reset(task)
    with pytest.raises(SandboxError, match=r"message_bytes.*Remedy"):
        session.step("take " + "very " * 2**20)
    assert session.step("take dirty white shirt").score == 0.25


def test_a_server_ends_only_the_session_that_sends_too_long_a_message(session: OpenEnv, port: int, task: Task) -> None:
    session.reset(task)
    careless = OpenEnv(settings(port, message_bytes=2**24))
    careless.reset(task)
    with pytest.raises(SandboxError, match=r"is lost.*Remedy"):
        careless.step("take " + "very " * 2**20)
    assert session.step("take dirty white shirt").score == 0.25


def test_an_answer_that_is_too_long_ends_the_session_and_says_why(port: int) -> None:
    small = OpenEnv(settings(port, message_bytes=1024))
    assert isinstance(small, TaskSource)
    with pytest.raises(SandboxError, match=r"message_bytes.*Remedy"):
        small.task_list("coin", "train")
    with pytest.raises(SandboxError, match="is lost"):
        small.games()


def test_a_server_that_dies_ends_its_sessions_and_the_next_one_works(task: Task) -> None:
    chosen = free_port()
    process = reference(chosen)
    session = OpenEnv(settings(chosen))
    session.reset(task)
    process.kill()
    process.wait()
    for _ in range(2):
        with pytest.raises(SandboxError, match=r"is lost.*Remedy: open a new session"):
            session.step("look around")
    session.close()
    again = reference(chosen)
    session = OpenEnv(settings(chosen))
    assert session.reset(task).text.startswith("Your task")
    assert stopped(again) == 0
    with pytest.raises(SandboxError, match="is lost"):
        session.step("look around")


def test_a_server_that_is_not_there_or_is_none_is_named_with_a_remedy(port: int) -> None:
    with pytest.raises(SandboxError, match=r"no OpenEnv server answers.*Remedy: start it"):
        OpenEnv(settings(free_port()))
    with pytest.raises(SandboxError, match=r"HTTP status 403.*the settings' url"):
        OpenEnv(OpenEnvSettings.model_validate({"url": f"ws://127.0.0.1:{port}/elsewhere"}))


def test_a_silent_server_is_given_up(task: Task) -> None:
    def say_nothing(connection: ServerConnection) -> None:
        for _ in connection:
            pass

    with serve(say_nothing, "127.0.0.1", 0) as silent:
        threading.Thread(target=silent.serve_forever, daemon=True).start()
        with pytest.raises(SandboxError, match=r"did not answer within 0.2 s"):
            OpenEnv(settings(silent.socket.getsockname()[1], answer_timeout_s=0.2))
        silent.shutdown()


@pytest.mark.parametrize("said", ["no JSON", "[]", '{"type": "capabilities"}', '{"type": "state", "data": {}}', "{}"])
def test_a_server_that_talks_nonsense_is_refused(said: str) -> None:
    def talk(connection: ServerConnection) -> None:
        for _ in connection:
            connection.send(said)

    with serve(talk, "127.0.0.1", 0) as babbling:
        threading.Thread(target=babbling.serve_forever, daemon=True).start()
        with pytest.raises(SandboxError, match=r"the server at ws|is lost"):
            OpenEnv(settings(babbling.socket.getsockname()[1]))
        babbling.shutdown()


def test_a_server_cannot_send_the_session_elsewhere(port: int) -> None:
    class Redirect(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"ws://127.0.0.1:{port}/ws")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Redirect) as redirecting:
        threading.Thread(target=redirecting.serve_forever, daemon=True).start()
        with pytest.raises(SandboxError, match="cannot follow redirect"):
            OpenEnv(settings(redirecting.server_port))
        redirecting.shutdown()


def test_a_web_page_cannot_play(port: int) -> None:
    with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{port}/ws", origin=Origin("https://evil.example")):
        pass


def test_a_server_with_a_token_asks_for_it() -> None:
    chosen = free_port()
    process = reference(chosen, {"RATCHET_OPENENV_TOKEN": TOKEN})
    with pytest.raises(SandboxError, match="403"):
        OpenEnv(settings(chosen))
    OpenEnv(settings(chosen, token=SecretStr(TOKEN))).close()
    assert stopped(process) == 0


def test_settings_keep_secrets_out_of_urls_logs_and_plain_connections() -> None:
    assert TOKEN not in f"{settings(1, token=TOKEN)!r} {settings(1, token=TOKEN).model_dump_json()}"
    for unsafe in ({"url": "ws://user:word@localhost/ws"}, {"url": "ws://far.example/ws", "token": TOKEN}):
        with pytest.raises(ValidationError) as refused:
            OpenEnvSettings.model_validate(unsafe)
        assert TOKEN not in str(refused.value)


def test_openenvs_own_client_plays_on_the_reference_server(port: int) -> None:
    command = [sys.executable, str(PLAIN), "play", f"http://127.0.0.1:{port}", "twc/train/17"]
    played = subprocess.run([*command, "take dirty white shirt", "dance"], capture_output=True, timeout=60, check=True)
    said = json.loads(played.stdout)
    assert said["said"][0]["text"].startswith("Your task")
    assert [one["reward"] for one in said["said"]] == [None, 0.25, 0.0]
    assert said["state"]["step_count"] == 2


def lock_settings(port: int, **others: object) -> OpenEnvSettings:
    return settings(port, action_field="letter", text_field="message", **others)


def test_on_openenvs_own_server_nothing_is_restored_unless_the_operator_vouches_for_it(plain_port: int) -> None:
    session = OpenEnv(lock_settings(plain_port))
    vouched = OpenEnv(lock_settings(plain_port, deterministic=True, side_effects=False))
    assert session.capabilities.restores == ()
    assert session.capabilities.side_effects
    assert vouched.capabilities.restores == (Restore.REPLAY,)
    for protocol in (Snapshots, ListsActions, TaskSource, Tools, Canonicalises):
        assert not isinstance(session, protocol)
    assert isinstance(session, Environment)
    session.close()
    vouched.close()


def test_openenvs_own_server_is_played_and_replayed_as_the_settings_say(plain_port: int) -> None:
    session = OpenEnv(lock_settings(plain_port, deterministic=True))
    task = Task(environment="openenv", task_id="the door", seed=3)

    def play() -> list[tuple[Observation, str]]:
        seen = [(session.reset(task), session.fingerprint())]
        return [*seen, *((session.step(letter), session.fingerprint()) for letter in ("a", "b", "c", "a", "b", "c"))]

    first = play()
    assert first[0][0] == Observation("A lock, for the door.", 0.0, False, False)
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
        answer = session.step(senseless)
        assert not answer.understood
        assert why in answer.text
    assert session.fingerprint() == before
    assert json.loads(session.step('{"letter": "z"}').text) == {"message": "Nothing."}
    session.close()
    wrong = OpenEnv(settings(plain_port, text_field="text"))
    with pytest.raises(SandboxError, match="no field 'text'"):
        wrong.reset(Task(environment="openenv", task_id="the door"))
    wrong.close()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, b"--snapshots"),
        (["textworld_express", "--port", "none"], 2, b"port"),
        (["textworld_express", "--host", "0.0.0.0"], 2, b"RATCHET_OPENENV_TOKEN"),
        (["chess"], 1, b"no environment 'chess' is installed"),
    ],
)
def test_the_command_says_how_it_is_used(arguments: list[str], status: int, said: bytes) -> None:
    command = [sys.executable, "-m", "streams.sandboxes.openenv_server", *arguments]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert ended.returncode == status
    assert said in ended.stdout + ended.stderr
