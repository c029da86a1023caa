"""Any OpenEnv server as an environment, over its WebSocket. Loaded by the sandbox worker through its entry point.

A server that speaks Ratchet's extension (`docs/openenv.md`) can offer all that an environment may. Of a plain one the
operator's settings say how to read it, and its states can be brought back only if they say that it is deterministic.
"""

import json
import weakref
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, JsonValue

from streams.environments.environment import Capabilities, Network, Observation, Restore, Tool
from streams.environments.openenv.connection import Connection
from streams.environments.openenv.protocol import (
    VERSION,
    ActionsData,
    CapabilitiesData,
    ErrorCode,
    FingerprintData,
    GamesData,
    Nothing,
    ObservationData,
    Offer,
    SnapshotData,
    TasksData,
    TextData,
    TextObservationData,
    ToolsData,
)
from streams.environments.openenv.reading import mapped_action, mapped_observation
from streams.environments.openenv.settings import OpenEnvSettings
from streams.errors import DivergedError, SandboxError, ServerRefusedError
from streams.events import Task
from streams.ids import content_id

ENVIRONMENT = "openenv"

_METHODS = {
    Offer.SNAPSHOTS: ("snapshot", "restore"),
    Offer.VALID_ACTIONS: ("valid_actions",),
    Offer.TOOLS: ("tools",),
    Offer.CANONICAL: ("canonical",),
    Offer.TASKS: ("games", "task_list", "demonstration"),
}


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class _Snapshot:
    """A state that the server keeps, and the observation that the session was in it with."""

    id: str
    observed: Observation


class OpenEnv:
    """One session, which is one connection. Which server it is, the operator alone says: no task can.

    Besides the methods below it has those of `Snapshots`, `ListsActions`, `Tools`, `Canonicalises` and `TaskSource`
    that its server offers. Every one raises `SandboxError` when the server does not do what it should.
    """

    settings: ClassVar[type[BaseModel]] = OpenEnvSettings
    # Until its server has said what it can do.
    capabilities = Capabilities((), deterministic=False, side_effects=True, network=Network.REMOTE)

    def __init__(self, settings: OpenEnvSettings) -> None:
        self._settings = settings
        self._server = Connection(settings)
        self._observed: Observation | None = None
        self._history = ""
        self._unneeded: list[str] = []
        try:
            said = self._introduction()
        except SandboxError:
            self._server.close()
            raise
        self._extended = said is not None
        offers = frozenset(said.offers if said else ())
        self._speaks_text = Offer.TEXT in offers
        self.harness = (said and said.harness) or settings.harness
        self.capabilities = _capabilities(said, settings)
        for offer, methods in _METHODS.items():
            # To have a protocol's methods is to satisfy it, so a session must not have those that could only fail.
            for method in methods if offer in offers else ():
                setattr(self, method, getattr(self, f"_{method}"))

    def reset(self, task: Task) -> Observation:
        _refuse_reserved(*task.task_id.split("/")[1:2])
        self._observed, self._history = None, ""
        field = "task_id" if self._extended else self._settings.task_field
        return self._observe("reset", {field: task.task_id, "seed": task.seed})

    def step(self, action: str) -> Observation:
        before = self._now()
        data = TextData(text=action).model_dump() if self._speaks_text else mapped_action(action, self._settings)
        if data is None:
            return _not_understood("the action is no JSON object", before)
        try:
            return self._observe("step", data)
        except ServerRefusedError as error:
            if error.code != ErrorCode.VALIDATION_ERROR:
                raise
            return _not_understood(str(error), before)

    def fingerprint(self) -> str:
        """The server's; or, of a plain one, a hash of all that was done and seen since the reset."""
        self._now()
        return self._server.ask("fingerprint", FingerprintData).fingerprint if self._extended else self._history

    def close(self) -> None:
        self._server.close()

    def _introduction(self) -> CapabilitiesData | None:
        """The server's own description; None for a plain server."""
        try:
            said = self._server.ask("capabilities", CapabilitiesData)
        except ServerRefusedError as error:
            if error.code == ErrorCode.UNKNOWN_TYPE:
                return None
            raise
        if said.version != VERSION:
            raise SandboxError(
                f"the server speaks version {said.version} of the extension, and this is version {VERSION}. "
                "Install the Ratchet that its version belongs to."
            )
        return said

    def _observe(self, kind: str, data: dict[str, JsonValue]) -> Observation:
        if self._speaks_text:
            observed = self._server.ask(kind, TextObservationData, data, answered_by="observation").observed()
        else:
            answer = self._server.ask(kind, ObservationData, data, answered_by="observation")
            observed = mapped_observation(answer, self._observed.score if self._observed else 0.0, self._settings)
            self._history = content_id(self._history, json.dumps(data, sort_keys=True), repr(observed))
        self._observed = observed
        return observed

    def _now(self) -> Observation:
        if self._observed is None:
            raise SandboxError("this was asked of a session that has no task. Reset it first.")
        return self._observed

    def _snapshot(self) -> object:
        if self._unneeded:
            self._server.ask("release", Nothing, {"ids": [self._unneeded.pop() for _ in range(len(self._unneeded))]})
        snapshot = _Snapshot(self._server.ask("snapshot", SnapshotData).id, self._now())
        # The contract keeps a snapshot for as long as somebody has it, and the server keeps only so many.
        weakref.finalize(snapshot, self._unneeded.append, snapshot.id)
        return snapshot

    def _restore(self, snapshot: object) -> None:
        if not isinstance(snapshot, _Snapshot):
            raise SandboxError(f"{snapshot!r} is not a snapshot of this session. Restore what `snapshot` returned.")
        try:
            self._server.ask("restore", SnapshotData, {"id": snapshot.id})
        except ServerRefusedError as error:
            if error.code == ErrorCode.RESTORE_DIVERGED:
                raise DivergedError(str(error)) from error
            raise
        self._observed = snapshot.observed

    def _valid_actions(self) -> list[str]:
        return sorted(self._server.ask("valid_actions", ActionsData).actions)

    def _tools(self) -> tuple[Tool, ...]:
        return self._server.ask("tools", ToolsData).tools

    def _canonical(self, action: str) -> str:
        return self._server.ask("canonical", TextData, {"text": action}).text

    def _games(self) -> tuple[str, ...]:
        return self._server.ask("games", GamesData).games

    def _task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        _refuse_reserved(fold)
        self._observed = None
        tasks = self._server.ask("tasks", TasksData, {"game": game, "fold": fold}).tasks
        return tuple(Task(environment=ENVIRONMENT, task_id=task.task_id, seed=task.seed) for task in tasks)

    def _demonstration(self, task: Task) -> list[str]:
        self._observed = None
        asked: dict[str, JsonValue] = {"task_id": task.task_id, "seed": task.seed}
        return list(self._server.ask("demonstration", ActionsData, asked).actions)


def _capabilities(said: CapabilitiesData | None, settings: OpenEnvSettings) -> Capabilities:
    deterministic = said.deterministic if said else settings.deterministic
    by_snapshot = (Restore.SNAPSHOT,) if said and Offer.SNAPSHOTS in said.offers else ()
    return Capabilities(
        restores=(*by_snapshot, *((Restore.REPLAY,) if deterministic else ())),
        deterministic=deterministic,
        side_effects=said.side_effects if said else settings.side_effects,
        complete_fingerprint=said is not None and said.complete_fingerprint,
        network=Network.REMOTE,
    )


def _refuse_reserved(*folds: str) -> None:
    # A server that others wrote may not know that this fold is unowned to play.
    if "test" in folds:
        raise SandboxError("the fold 'test' is reserved. Use train or dev.")


def _not_understood(reason: str, before: Observation) -> Observation:
    return Observation(reason, before.score, before.done, success=before.success, understood=False)
