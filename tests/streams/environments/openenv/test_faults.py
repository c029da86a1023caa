import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pydantic import SecretStr, ValidationError
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Origin

from ratchet_client.events import Task
from ratchet_client.messages import assistant
from streams.environments.environment import TaskSource
from streams.environments.openenv.environment import OpenEnv
from streams.environments.openenv.settings import OpenEnvSettings
from streams.errors import SandboxError
from streams.runtime.processes import free_port
from tests.streams.environments.openenv.openenv_servers import SESSIONS, reference, settings, stopped
from tests.waiting import until

TOKEN = "a-token-for-the-tests"


@pytest.fixture
def task() -> Task:
    return Task(environment="openenv", task_id="twc/train/17", seed=17)


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
    opened: list[OpenEnv] = []
    until(lambda: opened.append(opening()) or opened, errors=(SandboxError,))  # type: ignore[func-returns-value]
    return opened[0]


def test_a_message_that_is_too_long_is_not_sent_and_the_session_goes_on(session: OpenEnv, task: Task) -> None:
    session.reset(task)
    with pytest.raises(SandboxError, match=r"message_bytes.*\. [A-Z]\w+ "):
        session.step(assistant("take " + "very " * 2**20))
    assert session.step(assistant("take dirty white shirt")).score == 0.25


def test_a_server_ends_only_the_session_that_sends_too_long_a_message(session: OpenEnv, port: int, task: Task) -> None:
    session.reset(task)
    careless = OpenEnv(settings(port, message_bytes=2**24))
    careless.reset(task)
    with pytest.raises(SandboxError, match=r"is lost.*\. [A-Z]\w+ "):
        careless.step(assistant("take " + "very " * 2**20))
    assert session.step(assistant("take dirty white shirt")).score == 0.25


def test_an_answer_that_is_too_long_ends_the_session_and_says_why(port: int) -> None:
    small = OpenEnv(settings(port, message_bytes=1024))
    assert isinstance(small, TaskSource)
    with pytest.raises(SandboxError, match=r"message_bytes.*\. [A-Z]\w+ "):
        small.task_list("coin", "train")
    with pytest.raises(SandboxError, match="is lost"):
        small.games()


@pytest.mark.slow
def test_a_server_that_dies_ends_its_sessions_and_the_next_one_works(task: Task) -> None:
    chosen = free_port()
    process = reference(chosen)
    session = OpenEnv(settings(chosen))
    session.reset(task)
    process.kill()
    process.wait()
    for _ in range(2):
        with pytest.raises(SandboxError, match=r"is lost.*Open a new session"):
            session.step(assistant("look around"))
    session.close()
    again = reference(chosen)
    session = OpenEnv(settings(chosen))
    assert session.reset(task).text.startswith("Your task")
    assert stopped(again) == 0
    with pytest.raises(SandboxError, match="is lost"):
        session.step(assistant("look around"))


def test_an_address_without_an_openenv_server_is_named_with_a_remedy(port: int) -> None:
    with pytest.raises(SandboxError, match=r"no OpenEnv server answers.*Start it"):
        OpenEnv(settings(free_port()))
    with pytest.raises(SandboxError, match=r"HTTP status 403.*the settings' url"):
        OpenEnv(OpenEnvSettings.model_validate({"url": f"ws://127.0.0.1:{port}/elsewhere"}))


def test_a_server_that_does_not_answer_is_given_up(task: Task) -> None:
    def say_nothing(connection: ServerConnection) -> None:
        for _ in connection:
            pass

    with serve(say_nothing, "127.0.0.1", 0) as silent:
        threading.Thread(target=silent.serve_forever, daemon=True).start()
        with pytest.raises(SandboxError, match=r"did not answer within 0.2 s"):
            OpenEnv(settings(silent.socket.getsockname()[1], answer_timeout_s=0.2))
        silent.shutdown()


@pytest.mark.parametrize("said", ["no JSON", "[]", '{"type": "capabilities"}', '{"type": "state", "data": {}}', "{}"])
def test_a_server_that_breaks_the_protocol_is_refused(said: str) -> None:
    def talk(connection: ServerConnection) -> None:
        for _ in connection:
            connection.send(said)

    with serve(talk, "127.0.0.1", 0) as babbling:
        threading.Thread(target=babbling.serve_forever, daemon=True).start()
        with pytest.raises(SandboxError, match=r"the server at ws|is lost"):
            OpenEnv(settings(babbling.socket.getsockname()[1]))
        babbling.shutdown()


def test_redirects_of_a_server_are_not_followed(port: int) -> None:
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


def test_connections_from_web_pages_are_refused(port: int) -> None:
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


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, b"--snapshots"),
        (["textworld_express", "--port", "none"], 2, b"port"),
        (["textworld_express", "--host", "0.0.0.0"], 2, b"RATCHET_OPENENV_TOKEN"),
        (["chess"], 1, b"no environment 'chess' is installed"),
    ],
)
def test_the_command_explains_its_usage(arguments: list[str], status: int, said: bytes) -> None:
    command = [sys.executable, "-m", "streams.environments.openenv.server", *arguments]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert ended.returncode == status
    assert said in ended.stdout + ended.stderr
