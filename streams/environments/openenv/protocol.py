"""The messages of OpenEnv's WebSocket protocol and of Ratchet's extension to it, as `docs/openenv.md` describes them.

`environment.py` asks and `server.py` answers. Unknown fields are ignored, so that either side may learn more.
"""

from enum import StrEnum
from typing import Annotated, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, PlainSerializer, model_validator

from ratchet_client.events import Action, Identity, Observed, Seed
from ratchet_client.messages import Message, Messages, Tools, assistant, user
from streams.environments.environment import Observation
from streams.environments.harness import ChatHarness

VERSION = 1
"""Of the extension. It changes when a message changes its meaning, and not when one is added."""

MESSAGE_BYTES = 4 * 2**20
"""The longest message that the adapter and the reference server take."""


class ErrorCode(StrEnum):
    """Error codes: the first seven are OpenEnv's, the others the extension's."""

    INVALID_JSON = "INVALID_JSON"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    VALIDATION_ERROR = "VALIDATION_ERROR"
    EXECUTION_ERROR = "EXECUTION_ERROR"
    CAPACITY_REACHED = "CAPACITY_REACHED"
    FACTORY_ERROR = "FACTORY_ERROR"
    SESSION_ERROR = "SESSION_ERROR"
    NO_EPISODE = "NO_EPISODE"
    UNKNOWN_SNAPSHOT = "UNKNOWN_SNAPSHOT"
    SNAPSHOT_LIMIT = "SNAPSHOT_LIMIT"
    RESTORE_DIVERGED = "RESTORE_DIVERGED"


class Offer(StrEnum):
    """The operations of a server beyond `capabilities` and `fingerprint`."""

    TEXT = "text"
    """Actions are `{"text"}`, and observations have `text`, `score`, `success` and `understood`."""
    MESSAGES = "messages"
    """Actions may be `{"message"}` too, and observations have `messages` and `tools` besides."""
    SNAPSHOTS = "snapshots"
    VALID_ACTIONS = "valid_actions"
    CANONICAL = "canonical"
    TASKS = "tasks"


# Neither of the two is a `FrozenModel`: servers of other versions of OpenEnv send more fields than these.
class Data(BaseModel):
    """The data of a message."""

    model_config = ConfigDict(frozen=True)


DataT = TypeVar("DataT", bound=Data)


class Frame(BaseModel):
    """A message of the protocol, of either direction. OpenEnv's own `state` and `close` have no data, not even `{}`."""

    model_config = ConfigDict(frozen=True)

    type: str
    data: dict[str, JsonValue] | None = None


class Nothing(Data):
    """The data of a message that has none."""


class ErrorDetail(Data):
    """One problem of one field of an action."""

    loc: tuple[str | int, ...] = ()
    msg: str = ""


class ErrorData(Data):
    message: str = ""
    code: str = ""
    errors: tuple[ErrorDetail, ...] = ()


class TaskData(Data):
    task_id: Identity
    seed: Seed = 0


def _compact(message: Message) -> dict[str, JsonValue]:
    return message.model_dump(mode="json", exclude_none=True)


def _all_compact(messages: Messages | None) -> list[dict[str, JsonValue]] | None:
    return None if messages is None else [_compact(message) for message in messages]


SentAction: TypeAlias = Annotated[Action, PlainSerializer(_compact)]
SentMessages: TypeAlias = Annotated[Observed | None, PlainSerializer(_all_compact)]


class ActionData(Data):
    """An action: the text of one that calls nothing, or the whole message."""

    text: str = ""
    message: SentAction | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if not self.model_fields_set & {"text", "message"}:
            raise ValueError("an action has a text or a message")
        return self

    @property
    def action(self) -> Message:
        return assistant(self.text) if self.message is None else self.message


class TextData(Data):
    """The key of an action."""

    text: str


class ObservationData(Data):
    """OpenEnv's answer to a reset and to a step. What is in `observation`, each environment says itself."""

    observation: dict[str, JsonValue]
    reward: FiniteFloat | None = None
    done: bool = False


class TextObservation(Data):
    """An observation in the extension's words, which are those of `Observation`. Without `messages` a user said it."""

    text: str = ""
    messages: SentMessages = None
    tools: Tools | None = None
    score: FiniteFloat = Field(ge=0, le=1)
    success: bool
    understood: bool = True

    @model_validator(mode="after")
    def _something_is_said(self) -> Self:
        if not self.model_fields_set & {"text", "messages"}:
            raise ValueError("an observation has a text or messages")
        return self


class TextObservationData(Data):
    """The same answer of a server that offers `text` or `messages`.

    The reward is what the last action added to the score.
    """

    observation: TextObservation
    reward: FiniteFloat | None = None
    done: bool = False

    @classmethod
    def of(cls, answer: Observation, before: float | None) -> "TextObservationData":
        """`before` is the score before the action; of a reset there is none."""
        text = TextObservation(
            text=answer.text,
            messages=answer.messages,
            tools=answer.tools,
            score=answer.score,
            success=answer.success,
            understood=answer.understood,
        )
        return cls(observation=text, reward=None if before is None else answer.score - before, done=answer.done)

    def observed(self) -> Observation:
        said = self.observation
        messages = (user(said.text),) if said.messages is None else said.messages
        return Observation(messages, said.score, self.done, said.success, said.understood, said.tools)


class StateData(Data):
    """OpenEnv's answer to `state`."""

    episode_id: str | None
    step_count: int


class CapabilitiesData(Data):
    """A server's own description. `offers` may name what this version does not know."""

    version: int
    environment: str
    deterministic: bool
    side_effects: bool
    complete_fingerprint: bool = False
    offers: tuple[str, ...] = ()
    harness: ChatHarness | None = None


class SnapshotData(Data):
    id: Identity


class ReleaseData(Data):
    ids: tuple[Identity, ...]


class FingerprintData(Data):
    fingerprint: Identity


class ActionsData(Data):
    """Actions that are texts."""

    actions: tuple[str, ...]


class DemonstrationData(Data):
    """A known solution of a task: the texts of its actions and, with the offer `messages`, the actions themselves."""

    actions: tuple[str, ...] = ()
    messages: tuple[SentAction, ...] | None = None

    @classmethod
    def of(cls, actions: list[Message]) -> Self:
        return cls(actions=tuple(action.text for action in actions), messages=tuple(actions))

    def demonstrated(self) -> list[Message]:
        return [assistant(text) for text in self.actions] if self.messages is None else list(self.messages)


class GamesData(Data):
    games: tuple[str, ...]


class FoldData(Data):
    game: str
    fold: str


class TasksData(Data):
    tasks: tuple[TaskData, ...]
