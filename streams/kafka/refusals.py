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


# What a dead-letter record holds of a record at most. The producers' limit on one message is a little more.
MOST_BYTES = 15 * 2**20

# Made once: `Unreadable | RefusedEvent` in a call would be made for each record.
REFUSED = (Unreadable, RefusedEvent)


def dead_letter_record(received: Received, refused: Unreadable | RefusedEvent, topic: str) -> Outgoing:
    """The record for `topic`: its bytes, its key and its headers, with why and where it was refused added to these.

    One that is larger than the cluster takes says where it lies instead.
    """
    error = refused.reason if isinstance(refused, RefusedEvent) else refused.error
    key, value, headers = received.key, received.value, received.headers
    if (size := received.size) > MOST_BYTES:
        place = f"{received.topic}/{received.partition}/{received.offset}"
        error += f"; its {size} bytes are too many for {topic}: read it at {place} while the log keeps it"
        key, value, headers = None, None, ()
    notes = {
        VERDICT_HEADER: REFUSED_VERDICT if isinstance(refused, RefusedEvent) else DEAD_LETTER,
        ERROR_HEADER: error,
        TOPIC_HEADER: received.topic,
        PARTITION_HEADER: str(received.partition),
        OFFSET_HEADER: str(received.offset),
    }
    return Outgoing(topic, key, value, (*headers, *((name, text.encode()) for name, text in notes.items())))
