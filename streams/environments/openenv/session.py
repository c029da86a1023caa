"""One session of the reference server: an environment that is spoken to in OpenEnv's words and the extension's.

`server.py` holds one for each connection. It knows nothing of sockets.
"""

from dataclasses import dataclass

from pydantic import JsonValue, ValidationError

from ratchet_client.events import Task
from ratchet_client.ids import uuid7
from ratchet_client.messages import Message
from streams.environments.environment import (
    Canonicalises,
    Environment,
    ListsActions,
    Observation,
    Restore,
    Snapshots,
    TaskSource,
)
from streams.environments.openenv.protocol import (
    VERSION,
    ActionData,
    ActionsData,
    CapabilitiesData,
    Data,
    DataT,
    DemonstrationData,
    ErrorCode,
    FingerprintData,
    FoldData,
    Frame,
    GamesData,
    Nothing,
    Offer,
    ReleaseData,
    SnapshotData,
    StateData,
    TaskData,
    TasksData,
    TextData,
    TextObservationData,
)
from streams.errors import ServerRefusedError


@dataclass(frozen=True, slots=True)
class _Episode:
    """The history of the present state: one observation for the reset and one for each action."""

    id: str
    task: Task
    actions: tuple[Message, ...]
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A snapshot. `copy` is the environment's own, if it makes any; else the episode is played again."""

    episode: _Episode
    fingerprint: str
    copy: object


class OpenEnvSession:
    """Raises `ServerRefusedError` for what cannot be answered; the session goes on after it.

    Snapshots outlive resets. There are at most `most_snapshots` of them, until some are released.
    """

    def __init__(self, environment: Environment, name: str, most_snapshots: int) -> None:
        self._environment = environment
        self._name = name
        self._most_snapshots = most_snapshots
        restores = environment.capabilities.restores
        self._copies = Restore.SNAPSHOT in restores
        self._restorable = self._copies or Restore.REPLAY in restores
        self._episode: _Episode | None = None
        self._snapshots: dict[str, _Kept] = {}

    def answer(self, message: Frame) -> Frame:
        """Raises `SandboxError` when the environment refuses."""
        kind, data = message.type, message.data or {}
        match kind:
            case "reset":
                return _message("observation", self._reset(self._task(data)))
            case "step":
                return _message("observation", self._step(_read(ActionData, data).action))
            case "state":
                return _message(kind, self._state())
            case "capabilities":
                return _message(kind, self._capabilities())
            case "fingerprint":
                self._present()
                return _message(kind, FingerprintData(fingerprint=self._environment.fingerprint()))
            case "snapshot" if self._restorable:
                return _message(kind, self._snapshot())
            case "restore" if self._restorable:
                return _message(kind, self._restore(_read(SnapshotData, data)))
            case "release" if self._restorable:
                return _message(kind, self._release(_read(ReleaseData, data)))
        return _message(kind, self._optional(kind, data))

    def close(self) -> None:
        self._snapshots.clear()
        self._environment.close()

    def _optional(self, kind: str, data: dict[str, JsonValue]) -> Data:
        environment = self._environment
        if kind == "valid_actions" and isinstance(environment, ListsActions):
            self._present()
            return ActionsData(actions=tuple(environment.valid_actions()))
        if kind == "canonical" and isinstance(environment, Canonicalises):
            return TextData(text=environment.canonical(_read(ActionData, data).action))
        if isinstance(environment, TaskSource):
            if kind == "games":
                return GamesData(games=environment.games())
            if kind == "tasks":
                asked = _read(FoldData, data)
                self._episode = None
                tasks = environment.task_list(asked.game, asked.fold)
                return TasksData(tasks=tuple(TaskData(task_id=task.task_id, seed=task.seed) for task in tasks))
            if kind == "demonstration":
                task = self._task(data)
                self._episode = None
                return DemonstrationData.of(environment.demonstration(task))
        raise ServerRefusedError(ErrorCode.UNKNOWN_TYPE, f"the server of {self._name} knows no message {kind[:50]!r}")

    def _task(self, data: dict[str, JsonValue]) -> Task:
        asked = _read(TaskData, data)
        return Task(environment=self._name, task_id=asked.task_id, seed=asked.seed)

    def _reset(self, task: Task) -> TextObservationData:
        self._episode = None
        first = self._environment.reset(task)
        self._episode = _Episode(uuid7(), task, (), (first,))
        return TextObservationData.of(first, None)

    def _step(self, action: Message) -> TextObservationData:
        episode = self._present()
        answer = self._environment.step(action)
        before = episode.observations[-1].score
        self._episode = _Episode(episode.id, episode.task, (*episode.actions, action), (*episode.observations, answer))
        return TextObservationData.of(answer, before)

    def _state(self) -> StateData:
        if self._episode is None:
            return StateData(episode_id=None, step_count=0)
        return StateData(episode_id=self._episode.id, step_count=len(self._episode.actions))

    def _capabilities(self) -> CapabilitiesData:
        promised = self._environment.capabilities
        offered = {
            Offer.TEXT: True,
            Offer.MESSAGES: True,
            Offer.SNAPSHOTS: self._restorable,
            Offer.VALID_ACTIONS: isinstance(self._environment, ListsActions),
            Offer.CANONICAL: isinstance(self._environment, Canonicalises),
            Offer.TASKS: isinstance(self._environment, TaskSource),
        }
        return CapabilitiesData(
            version=VERSION,
            environment=self._name,
            deterministic=promised.deterministic,
            side_effects=promised.side_effects,
            complete_fingerprint=promised.complete_fingerprint,
            offers=tuple(offer for offer, able in offered.items() if able),
            harness=self._environment.harness,
        )

    def _snapshot(self) -> SnapshotData:
        episode = self._present()
        if len(self._snapshots) >= self._most_snapshots:
            raise ServerRefusedError(
                ErrorCode.SNAPSHOT_LIMIT,
                f"the session keeps {self._most_snapshots} snapshots, which is the most. Release some.",
            )
        environment = self._environment
        copy = environment.snapshot() if self._copies and isinstance(environment, Snapshots) else None
        # An id that no other session could have given is never taken for one of them.
        kept = SnapshotData(id=uuid7())
        self._snapshots[kept.id] = _Kept(episode, environment.fingerprint(), copy)
        return kept

    def _restore(self, asked: SnapshotData) -> SnapshotData:
        kept = self._snapshots.get(asked.id)
        if kept is None:
            raise ServerRefusedError(
                ErrorCode.UNKNOWN_SNAPSHOT,
                f"this session has no snapshot {asked.id!r}. Restore one that it took and did not release.",
            )
        self._episode = None
        if not self._bring_back(kept) or self._environment.fingerprint() != kept.fingerprint:
            raise ServerRefusedError(
                ErrorCode.RESTORE_DIVERGED,
                f"{self._name} did not come back to the state of snapshot {asked.id!r}. Reset the session, and "
                "do not declare the environment restorable.",
            )
        self._episode = kept.episode
        return asked

    def _bring_back(self, kept: _Kept) -> bool:
        """Return whether all that was seen on the way is what was seen before."""
        environment, episode = self._environment, kept.episode
        if self._copies and isinstance(environment, Snapshots):
            environment.restore(kept.copy)
            return True
        again = (environment.reset(episode.task), *(environment.step(action) for action in episode.actions))
        return again == episode.observations

    def _release(self, asked: ReleaseData) -> Nothing:
        for number in asked.ids:
            self._snapshots.pop(number, None)
        return Nothing()

    def _present(self) -> _Episode:
        if self._episode is None:
            raise ServerRefusedError(ErrorCode.NO_EPISODE, "the session is in no episode. Reset it to a task.")
        return self._episode


def _read(model: type[DataT], data: dict[str, JsonValue]) -> DataT:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ServerRefusedError(
            ErrorCode.VALIDATION_ERROR, f"the message's data is not as it should be: {wrong}"
        ) from error


def _message(kind: str, data: Data) -> Frame:
    return Frame(type=kind, data=data.model_dump(mode="json"))
