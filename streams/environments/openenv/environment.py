"""Any OpenEnv server as an environment, over its WebSocket. Loaded by the sandbox worker through its entry point.

A server that speaks Ratchet's extension (`docs/openenv.md`) can offer all that an environment may. Of a plain one the
operator's settings say how to read it, and its states can be brought back only if they say that it is deterministic.
"""

import json
import weakref
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import BaseModel, JsonValue

from ratchet_client.events import Task
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, ToolCall, Tools, tool_result
from streams.environments import harness
from streams.environments.environment import Capabilities, Network, Observation, Restore
from streams.environments.openenv.connection import Connection
from streams.environments.openenv.protocol import (
    VERSION,
    ActionData,
    ActionsData,
    CapabilitiesData,
    DemonstrationData,
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
)
from streams.environments.openenv.reading import (
    LIST_TOOLS,
    RESERVED_FOLD,
    call_action,
    mapped_action,
    mapped_observation,
    mapped_reset,
    mapped_result,
    mapped_score,
    mapped_tools,
)
from streams.environments.openenv.settings import OpenEnvSettings
from streams.environments.tool_calls import read
from streams.errors import DivergedError, SandboxError, ServerRefusedError, ToolCallError

ENVIRONMENT = "openenv"

_METHODS = {
    Offer.SNAPSHOTS: ("snapshot", "restore"),
    Offer.VALID_ACTIONS: ("valid_actions",),
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

    Besides the methods below it has those of `Snapshots`, `ListsActions`, `Canonicalises` and `TaskSource` that
    its server offers. Every one raises `SandboxError` when the server does not do what it should.
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
        self._speaks_messages = Offer.MESSAGES in offers
        self._speaks_text = Offer.TEXT in offers or self._speaks_messages
        self._calls_tools = settings.tools and not self._speaks_text
        self._tools: Tools | None = None
        self.harness = (said and said.harness) or settings.harness
        self.capabilities = _capabilities(said, settings)
        for offer, methods in _METHODS.items():
            # To have a protocol's methods is to satisfy it, so a session must not have those that could only fail.
            for method in methods if offer in offers else ():
                setattr(self, method, getattr(self, f"_{method}"))

    def reset(self, task: Task) -> Observation:
        _refuse_reserved(*task.task_id.split("/")[1:2])
        self._observed, self._history = None, ""
        asked: dict[str, JsonValue] = {"task_id": task.task_id, "seed": task.seed}
        first = self._observe("reset", asked if self._extended else mapped_reset(task, self._settings))
        return replace(first, tools=self._listed_tools()) if self._calls_tools else first

    def step(self, action: Message) -> Observation:
        before = self._now()
        if action.calls and self._calls_tools:
            return self._call(action, before)
        data = self._data(action)
        if data is None:
            reason = "the server's tools cannot be called" if action.calls else "the action is not a JSON object"
            return _not_understood(action, reason, before)
        try:
            return self._observe("step", data)
        except ServerRefusedError as error:
            if error.code != ErrorCode.VALIDATION_ERROR:
                raise
            return _not_understood(action, str(error), before)

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

    def _data(self, action: Message) -> dict[str, JsonValue] | None:
        """The action in the words of the server, or None where it has none for it."""
        if self._speaks_messages:
            return _message(action)
        if action.calls:
            return None
        return {"text": action.text} if self._speaks_text else mapped_action(action.text, self._settings)

    def _listed_tools(self) -> Tools:
        """The tools of a plain server; asked once."""
        if self._tools is None:
            self._tools = mapped_tools(self._server.ask("step", ObservationData, LIST_TOOLS, answered_by="observation"))
        return self._tools

    def _call(self, action: Message, before: Observation) -> Observation:
        """The calls of an action, one after the other: each is a step of the server."""
        answers: list[Message] = []
        after = replace(before, understood=True)
        for call in action.calls:
            text, after = self._call_one(call, after)
            answers.append(tool_result(text, call.id))
        self._observed = replace(after, messages=tuple(answers), tools=None)
        return self._observed

    def _call_one(self, called: ToolCall, before: Observation) -> tuple[str, Observation]:
        """The answer to a call; the observation after it has no messages of its own."""
        if before.done:
            return "the episode is over", replace(before, understood=False)
        try:
            data = call_action(read(called))
            answer = self._server.ask("step", ObservationData, data, answered_by="observation")
        except ToolCallError as error:
            return str(error), replace(before, understood=False)
        except ServerRefusedError as error:
            if error.code != ErrorCode.VALIDATION_ERROR:
                raise
            return str(error), replace(before, understood=False)
        text, understood = mapped_result(answer)
        score = mapped_score(answer, before.score, self._settings)
        self._history = content_id(self._history, json.dumps(data, sort_keys=True), text, str(score), str(answer.done))
        return text, Observation((), score, answer.done, score >= 1.0, before.understood and understood)

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

    def _canonical(self, action: Message) -> str:
        if action.calls and not self._speaks_messages:
            return harness.canonical(action)
        data = _message(action) if self._speaks_messages else TextData(text=action.text).model_dump()
        return self._server.ask("canonical", TextData, data).text

    def _games(self) -> tuple[str, ...]:
        return self._server.ask("games", GamesData).games

    def _task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        _refuse_reserved(fold)
        self._observed = None
        tasks = self._server.ask("tasks", TasksData, {"game": game, "fold": fold}).tasks
        return tuple(Task(environment=ENVIRONMENT, task_id=task.task_id, seed=task.seed) for task in tasks)

    def _demonstration(self, task: Task) -> list[Message]:
        self._observed = None
        asked: dict[str, JsonValue] = {"task_id": task.task_id, "seed": task.seed}
        return self._server.ask("demonstration", DemonstrationData, asked).demonstrated()


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


def _message(action: Message) -> dict[str, JsonValue]:
    return ActionData(message=action).model_dump(mode="json", include={"message"})


def _refuse_reserved(*folds: str) -> None:
    # A server that others wrote may not know that this fold is unowned to play.
    if RESERVED_FOLD in folds:
        raise SandboxError(f"the fold {RESERVED_FOLD!r} is reserved. Use train or dev.")


def _not_understood(action: Message, reason: str, before: Observation) -> Observation:
    return Observation.answering(action, reason, before.score, before.done, before.success, understood=False)
