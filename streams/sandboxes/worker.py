"""The sandbox process: `python -m streams.sandboxes.worker ENVIRONMENT PARENT_PID`, which only `pool.py` starts.

It holds sessions of one environment and answers one request at a time, as JSON lines on its standard input and output.
"""

import os
import resource
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import BinaryIO, Literal

from streams.errors import ConfigurationError, RatchetError, SandboxError
from streams.events import Record, Task
from streams.processes import die_with_parent
from streams.sandboxes.environment import Environment, ListsActions, Observation, TaskSource

ENVIRONMENTS = "ratchet.environments"

_OPEN_FILES = 256
_FILE_BYTES = 64 * 2**20
# A Java virtual machine reserves far more addresses than it ever uses, so this only stops a runaway.
_ADDRESS_BYTES = 16 * 2**30


class Request(Record):
    """One request; `id` comes back in its answer. A `replay` resets to `task` and takes all of `actions`."""

    id: int = 0
    op: Literal["open", "close", "reset", "step", "replay", "valid_actions", "fingerprint", "demonstration", "tasks"]
    session: int
    task: Task | None = None
    actions: tuple[str, ...] = ()
    game: str = ""
    fold: str = ""


class Answer(Record):
    """The answer to the request of the same `id`. A non-empty `error` is why the environment refused."""

    id: int
    error: str = ""
    observations: tuple[Observation, ...] = ()
    texts: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()


def registered_environments() -> frozenset[str]:
    """The names of the environments that are installed as sandboxes."""
    return frozenset(entry_points(group=ENVIRONMENTS).names)


def load_environment(name: str) -> type[Environment]:
    """The class registered under `name`. Raises `ConfigurationError` when there is none."""
    for entry in entry_points(group=ENVIRONMENTS, name=name):
        loaded: type[Environment] = entry.load()
        return loaded
    raise ConfigurationError(
        f"no environment {name!r} is installed; known are: {', '.join(sorted(registered_environments()))}. "
        f"Remedy: install a package that registers it under the entry-point group {ENVIRONMENTS}."
    )


def serve(environment: type[Environment], requests: Iterable[bytes], answers: BinaryIO) -> None:
    """Answer requests until their stream ends."""
    sessions: dict[int, Environment] = {}
    for line in requests:
        request = Request.model_validate_json(line)
        try:
            answer = _answer(environment, sessions, request)
        except RatchetError as error:
            answer = Answer(id=request.id, error=str(error))
        answers.write(answer.to_json() + b"\n")
        answers.flush()


def _answer(environment: type[Environment], sessions: dict[int, Environment], request: Request) -> Answer:
    if request.op == "open":
        sessions[request.session] = environment()
        return Answer(id=request.id)
    session = sessions[request.session]
    match request.op:
        case "close":
            sessions.pop(request.session).close()
            return Answer(id=request.id)
        case "reset" | "replay":
            observations = (session.reset(_task(request)), *(session.step(action) for action in request.actions))
            return Answer(id=request.id, observations=observations)
        case "step":
            return Answer(id=request.id, observations=tuple(session.step(action) for action in request.actions))
        case "valid_actions":
            listed = session.valid_actions() if isinstance(session, ListsActions) else ()
            return Answer(id=request.id, texts=tuple(listed))
        case "fingerprint":
            return Answer(id=request.id, texts=(session.fingerprint(),))
    if not isinstance(session, TaskSource):
        raise SandboxError(f"{environment.__name__} brings no tasks of its own. Remedy: name the tasks yourself.")
    if request.op == "demonstration":
        return Answer(id=request.id, texts=tuple(session.demonstration(_task(request))))
    return Answer(id=request.id, tasks=session.task_list(request.game, request.fold))


def _task(request: Request) -> Task:
    if request.task is None:
        raise SandboxError(f"the request {request.op} came without a task")
    return request.task


def _limit_resources() -> None:
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_AS, _ADDRESS_BYTES),
    ):
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))


def main() -> None:
    name, parent = sys.argv[1:]
    die_with_parent(int(parent))
    _limit_resources()
    # What a simulator prints must not end up between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(load_environment(name), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
