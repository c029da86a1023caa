"""Spans and log records in a JSON form of our own: what the spans topic holds, and what is assembled into episodes."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue, TypeAdapter

from ratchet_client.ids import content_id
from ratchet_client.messages import Record
from streams.calls.records import Captured

Attributes: TypeAlias = dict[str, JsonValue]
Nanoseconds: TypeAlias = Annotated[int, Field(ge=0, lt=2**64)]


def _is_zero(value: int) -> bool:
    return value == 0


Dropped: TypeAlias = Annotated[int, Field(ge=0, exclude_if=_is_zero)]


class SpanEvent(Record):
    """Something that happened within a span."""

    name: str
    time_ns: Nanoseconds
    attributes: Attributes = Field(default_factory=dict)


class Telemetry(Captured):
    """The fields that spans and log records share. Ids are lower-case hex, times Unix nanoseconds.

    `principal` is the one that the sender's token belongs to, None where no tokens are configured.
    """

    trace_id: str
    span_id: str
    name: str
    attributes: Attributes = Field(default_factory=dict)
    resource: Attributes = Field(default_factory=dict)
    scope: str = ""
    principal: str | None = None

    @property
    def trace_key(self) -> str:
        """The trace, apart from equal ids of other principals."""
        return content_id(self.principal or "", self.trace_id)


class Span(Telemetry):
    """A finished span; `parent_id` is empty for a root. `dropped_*` is how many its exporter's limits left out.

    `failed` if its status is an error.
    """

    record: Literal["span"] = "span"
    parent_id: str = ""
    start_ns: Nanoseconds
    end_ns: Nanoseconds
    events: tuple[SpanEvent, ...] = ()
    dropped_attributes: Dropped = 0
    dropped_events: Dropped = 0
    failed: Annotated[bool, Field(exclude_if=_is_zero)] = False

    @property
    def record_id(self) -> str:
        """The same for every repetition of the span, whatever it says."""
        return content_id("otlp", self.principal or "", self.trace_id, self.span_id)


class LogRecord(Telemetry):
    """A log record with an event name, which `name` is. Either time may be the only one that was set."""

    record: Literal["log"] = "log"
    time_ns: Nanoseconds
    body: JsonValue = None

    @property
    def record_id(self) -> str:
        """Log records have no id: the same content at the same instant is the same record, whatever its schema."""
        content = self.model_copy(update={"schema_version": 1}).to_json().decode()
        return content_id("otlp-log", self.principal or "", content)


AnyRecord: TypeAlias = Annotated[Span | LogRecord, Field(discriminator="record")]
ANY_RECORD: TypeAdapter[AnyRecord] = TypeAdapter(AnyRecord)
