"""Refused records: each goes to the dead-letter topic as it came, marked for listing and replay."""

from dataclasses import dataclass

from streams.kafka.records import Outgoing, Received

VERDICT_HEADER = "ratchet-verdict"
ERROR_HEADER = "ratchet-error"
TOPIC_HEADER = "ratchet-topic"
PARTITION_HEADER = "ratchet-partition"
OFFSET_HEADER = "ratchet-offset"
DEAD_LETTER = "dead-letter"
REFUSED_VERDICT = "quarantine"  # as the header has said since the first version


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is not an event.

    `error` is fit for a header and for an operator, and free of the record's content.
    """

    error: str


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """A readable event that is not stored, and the principal that it names."""

    reason: str
    principal: str | None = None


# Made once: `Unreadable | RefusedEvent` in a call would be made for each record.
REFUSED = (Unreadable, RefusedEvent)


def dead_letter_record(received: Received, refused: Unreadable | RefusedEvent, topic: str) -> Outgoing:
    """The record for `topic`: its bytes, its key and its headers, with why and where it was refused added to these."""
    notes = {
        VERDICT_HEADER: REFUSED_VERDICT if isinstance(refused, RefusedEvent) else DEAD_LETTER,
        ERROR_HEADER: refused.reason if isinstance(refused, RefusedEvent) else refused.error,
        TOPIC_HEADER: received.topic,
        PARTITION_HEADER: str(received.partition),
        OFFSET_HEADER: str(received.offset),
    }
    headers = (*received.headers, *((name, text.encode()) for name, text in notes.items()))
    return Outgoing(topic, received.key, received.value, headers)
