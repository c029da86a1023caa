"""A copy of the sandbox process in its present state, made by forking it, which goes on where it was forked.

`streams.sandboxes.session` branches so in environments that live in the process itself.
"""

import os
import signal
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Literal, NoReturn, TypeAlias

from ratchet_client.messages import Message
from streams.environments.environment import Environment, ListsActions, Observation
from streams.errors import SandboxError
from streams.runtime.processes import die_with_parent

_Ask: TypeAlias = Message | Literal["valid_actions", "fingerprint"]
_Answer: TypeAlias = Observation | list[str] | str | SandboxError


class Fork:
    """A forked copy of `environment`. It has what an environment has from its first step on.

    Every method raises `SandboxError` when the environment does, or when the copy has died.
    """

    def __init__(self, environment: Environment) -> None:
        ours, theirs = Pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            die_with_parent(parent)
            _serve(environment, theirs)
        theirs.close()
        self._connection = ours

    def step(self, action: Message) -> Observation:
        answer = self._ask(action)
        assert isinstance(answer, Observation)
        return answer

    def valid_actions(self) -> list[str]:
        answer = self._ask("valid_actions")
        assert isinstance(answer, list)
        return answer

    def fingerprint(self) -> str:
        answer = self._ask("fingerprint")
        assert isinstance(answer, str)
        return answer

    def close(self) -> None:
        self._connection.close()
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def _ask(self, ask: _Ask) -> _Answer:
        try:
            self._connection.send(ask)
            answer: _Answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise SandboxError(f"the forked sandbox died at {ask!r}") from error
        if isinstance(answer, SandboxError):
            raise answer
        return answer


def _serve(environment: Environment, connection: Connection) -> NoReturn:
    """Answer until the other end is closed. The process then ends at once: what it inherited is its parent's."""
    status = 1
    try:
        while True:
            connection.send(_answer(environment, connection.recv()))
    except EOFError:
        status = 0
    finally:
        os._exit(status)


def _answer(environment: Environment, ask: _Ask) -> _Answer:
    try:
        if isinstance(ask, Message):
            return environment.step(ask)
        if ask == "fingerprint":
            return environment.fingerprint()
        return environment.valid_actions() if isinstance(environment, ListsActions) else []
    except SandboxError as error:
        return error
