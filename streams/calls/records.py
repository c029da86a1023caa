"""The records that the gateway puts on `ratchet.calls`: each call as it went over the wire, and feedback. Pure.

A receipt is given with each reply. It ends with the key of the call's records in the log, so that feedback by receipt
reaches the partition, and so the worker, that has the call.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, model_validator

from ratchet_client.events import Identity, Name, Seed, StateReference
from ratchet_client.ids import content_id, uuid7
from ratchet_client.messages import Record
from streams.schema_versions import CALLS

Nanoseconds: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
_KEY_LENGTH = 16


class Face(StrEnum):
    """An API for asking a model; the value is the path of its requests."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"
    ANTHROPIC = "/v1/messages"


def record_key(*identity: str) -> str:
    """The key in the log of all records that share an identity, such as an episode's id or a chat's opening."""
    return content_id("calls", *identity)[:_KEY_LENGTH]


def new_receipt(key: str) -> str:
    """A receipt for a call whose records have the key `key`."""
    return f"{uuid7()}.{key}"


def key_of_receipt(receipt: str) -> str | None:
    """The key of the records of the call with this receipt; None for a text that is no receipt."""
    identity, dot, key = receipt.rpartition(".")
    return key if identity and dot and len(key) == _KEY_LENGTH else None


class CallLabels(Record):
    """A client's statements about a call beside the request itself, by headers and by the request's own fields.

    `episode` and `conversation` are ids of the client's; the first is the episode's id as it is stored. `environment`,
    `task`, `seed` and `state` name the task that the episode attempts.
    """

    principal: Name | None = None
    agent: Name | None = None
    episode: Identity | None = None
    conversation: Identity | None = None
    environment: Name | None = None
    task: Identity | None = None
    seed: Seed | None = None
    state: StateReference | None = None


class Captured(Record):
    """What waits to be assembled: on `ratchet.calls`, and by the OTLP receiver on `ratchet.spans`.

    A record without a number is of schema 1, also once there is a second one.
    """

    schema_version: Annotated[Literal[1], Field(alias="schema", exclude_if=lambda schema: schema == 1)] = CALLS

    model_config = ConfigDict(populate_by_name=True)


class CapturedCall(Captured):
    """One call: the request's body and the reply's, as text, as they went over the wire.

    `request` names the alias as its model, `served` is the adapter that answered. A streamed reply is the text of its
    events, and `complete` is false where it ended early: cut off by the engine, or the client left. `authenticated`
    says that a token of the principal came with the call. `cut_at` is set where a body was larger than is captured.
    """

    record: Literal["call"] = "call"
    receipt: Identity
    face: Face
    labels: CallLabels = CallLabels()
    authenticated: bool = False
    served: Name
    status: int = 200
    streamed: bool = False
    complete: bool = True
    cut_at: int | None = None
    began_ns: Nanoseconds
    ended_ns: Nanoseconds
    request: str
    reply: str

    @property
    def record_id(self) -> str:
        """The same for every repetition of the record."""
        return content_id("call", self.receipt)


class Feedback(Captured):
    """A verdict on a call or an episode, as somebody posted it to `/v1/feedback`.

    One of `receipt` and `episode` says what it is on. A later one by the same verifier replaces an earlier one.
    """

    record: Literal["feedback"] = "feedback"
    feedback_id: Identity = Field(default_factory=uuid7)
    receipt: Identity | None = None
    episode: Identity | None = None
    principal: Name | None = None
    authenticated: bool = False
    verifier: Name = "feedback"
    success: bool
    score: FiniteFloat
    evidence: dict[str, Any] = Field(default_factory=dict)
    given_ns: Nanoseconds

    @property
    def record_id(self) -> str:
        """The same for every repetition of the record."""
        return content_id("feedback", self.feedback_id)

    @model_validator(mode="after")
    def _on_something(self) -> Self:
        if (self.receipt is None) == (self.episode is None):
            raise ValueError("feedback is on a receipt or on an episode: name one of them")
        return self


AnyCallRecord: TypeAlias = Annotated[CapturedCall | Feedback, Field(discriminator="record")]
ANY_CALL_RECORD: TypeAdapter[AnyCallRecord] = TypeAdapter(AnyCallRecord)
