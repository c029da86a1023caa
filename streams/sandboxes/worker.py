"""The sandbox process: `python -m streams.sandboxes.worker`, which `process.py` starts isolated.

It holds sessions of one environment and works one request at a time (see `protocol.py`).
"""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ratchet_client.errors import RatchetError
from ratchet_client.events import Task
from streams.environments.environment import (
    BringsUnsolvableTasks,
    Canonicalises,
    Environment,
    GeneratesTasks,
    ListsActions,
    Observation,
    Snapshots,
    TaskSource,
)
from streams.environments.harness import canonical
from streams.environments.registry import needs_of, open_environment
from streams.errors import DivergedError, ObservationTooLargeError, SandboxError, StepTimeoutError
from streams.sandboxes.protocol import Answer, Description, Request, Start
from streams.sandboxes.session import ReferenceTrajectory, ReplaySession


def serve(start: Start, requests: Iterable[bytes], answers: BinaryIO) -> None:
    """Answer requests until their stream ends."""
    sessions: dict[int, EnvironmentSession] = {}
    for line in requests:
        request = Request.model_validate_json(line)
        try:
            answer = _answer(start, sessions, request)
        except StepTimeoutError as error:
            taken = tuple(sessions[request.session].taken)
            answer = Answer(id=request.id, error=str(error), timed_out=True, observations=taken)
        except ObservationTooLargeError as error:
            taken = tuple(sessions[request.session].taken)
            answer = Answer(id=request.id, error=str(error), too_large=True, observations=taken)
        except RatchetError as error:
            answer = Answer(id=request.id, error=str(error), diverged=isinstance(error, DivergedError))
        answers.write(answer.to_json() + b"\n")
        answers.flush()


def _answer(start: Start, sessions: dict[int, "EnvironmentSession"], request: Request) -> Answer:
    match request.op:
        case "needs":
            needs = needs_of(start.environment, start.settings, Path(start.working_folder))
            return Answer(id=request.id, needs=needs)
        case "open":
            sessions[request.session] = EnvironmentSession(
                open_environment(start.environment, start.settings, Path(start.working_folder)), start
            )
            return Answer(id=request.id)
        case "close":
            sessions.pop(request.session).close()
            return Answer(id=request.id)
    return sessions[request.session].answer(request)


class EnvironmentSession:
    """One environment of the process, and what can be asked of it. `taken` is what the last branches led to."""

    def __init__(self, environment: Environment, start: Start) -> None:
        self.taken: list[Observation] = []
        self._environment = environment
        self._replay = ReplaySession(environment, start.step_timeout_s, start.observation_bytes)

    def close(self) -> None:
        self._replay.close()

    def answer(self, request: Request) -> Answer:
        """Raises `RatchetError` when the environment refuses."""
        number, replay = request.id, self._replay
        self.taken = []
        match request.op:
            case "describe":
                return Answer(id=number, description=describe(self._environment))
            case "replay":
                observations = (replay.reset(_task(request)), *(replay.step(action) for action in request.actions))
                return Answer(id=number, observations=observations)
            case "step":
                return Answer(id=number, observations=tuple(replay.step(action) for action in request.actions))
            case "follow":
                reference = ReferenceTrajectory(_task(request), request.actions, request.expected)
                followed = replay.follow(reference, request.way)
                return Answer(id=number, states=followed.states, divergence=followed.divergence)
            case "restore":
                replay.restore(request.step)
            case "branch":
                for action in request.actions:
                    replay.restore(request.step)
                    self.taken.append(replay.step(action))
                return Answer(id=number, observations=tuple(self.taken))
            case "fingerprint":
                return Answer(id=number, texts=(replay.playing.fingerprint(),))
            case "valid_actions":
                playing = replay.playing
                listed = playing.valid_actions() if isinstance(playing, ListsActions) else ()
                return Answer(id=number, texts=tuple(listed))
            case "canonical":
                spell = self._environment.canonical if isinstance(self._environment, Canonicalises) else canonical
                return Answer(id=number, texts=tuple(spell(action) for action in request.actions))
            case "demonstration":
                return Answer(id=number, actions=tuple(self._tasks().demonstration(_task(request))))
            case "tasks":
                return Answer(id=number, tasks=self._tasks().task_list(request.game, request.fold))
            case "generate":
                if not isinstance(self._environment, GeneratesTasks):
                    return Answer(id=number)
                made = self._environment.generate(request.game, request.fold, request.first, request.count)
                return Answer(id=number, tasks=made)
            case "unsolvable":
                environment: object = self._environment
                brought = environment.unsolvable(request.game) if isinstance(environment, BringsUnsolvableTasks) else ()
                return Answer(id=number, tasks=brought)
        return Answer(id=number)

    def _tasks(self) -> TaskSource:
        if not isinstance(self._environment, TaskSource):
            name = type(self._environment).__name__
            raise SandboxError(f"{name} brings no tasks of its own. Name the tasks yourself.")
        return self._environment


def describe(environment: Environment) -> Description:
    """The description of an environment before it is played."""
    return Description(
        capabilities=environment.capabilities,
        harness=environment.harness,
        games=environment.games() if isinstance(environment, TaskSource) else (),
        lists_actions=isinstance(environment, ListsActions),
        canonicalises=isinstance(environment, Canonicalises),
        takes_snapshots=isinstance(environment, Snapshots),
        generates_tasks=isinstance(environment, GeneratesTasks),
    )


def _task(request: Request) -> Task:
    if request.task is None:
        raise SandboxError(f"the request {request.op} came without a task")
    return request.task


def main() -> None:
    # What a simulator prints must not end up between the answers, and no program that it starts is to read the requests
    # or answer them: these descriptors are closed in what is executed, and below in what is forked.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    for each in (requests, answers):
        os.register_at_fork(after_in_child=partial(os.close, each.fileno()))
    start = Start.model_validate_json(requests.readline())
    serve(start, requests, answers)


if __name__ == "__main__":
    main()
