"""The body of `POST /v1/feedback`: the client sends it, and the gateway reads it."""

from typing import Any, Literal, Self, TypeAlias

from pydantic import Field, FiniteFloat, field_validator, model_validator

from ratchet_client.event_fields import Identity, Name
from ratchet_client.ids import uuid7
from ratchet_client.settings import FrozenModel

Rating: TypeAlias = Literal["up", "down"]


class FeedbackRequest(FrozenModel):
    """A verdict on a receipt or an episode, with at least one of `success`, `score` and `rating`.

    Without `success` a rating says it, and without both the score, by the setting `serving.success_score`. The same
    `feedback_id` again is the same feedback.
    """

    receipt: Identity | None = None
    episode: Identity | None = None
    success: bool | None = None
    score: FiniteFloat | None = Field(default=None, ge=0, le=1)
    rating: Rating | None = None
    verifier: Name = Field(default="feedback", min_length=1)
    evidence: dict[str, Any] = Field(default_factory=dict)
    comment: str | None = Field(default=None, max_length=100_000)
    feedback_id: Identity = Field(default_factory=uuid7)
    principal: Name | None = None

    @field_validator("success", mode="before")
    @classmethod
    def _is_boolean(cls, value: object) -> object:
        if value is not None and not isinstance(value, bool):
            raise ValueError("success is true or false")
        return value

    @field_validator("score", mode="before")
    @classmethod
    def _is_number(cls, value: object) -> object:
        if isinstance(value, bool | str):
            raise ValueError("score is a number")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.receipt is None) == (self.episode is None):
            raise ValueError("name either the receipt of a call or an episode")
        if self.success is None and self.score is None and self.rating is None:
            raise ValueError("send at least one of success, score and rating")
        return self


def fault_of(error: Any) -> str:
    """Return one fault of pydantic's list in words, with its field where it has one. It has nothing of the value."""
    place = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
