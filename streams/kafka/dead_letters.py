"""The dead-letter topic as an operator sees it: what was refused, why, and how it goes back to where it came from.

`ratchet dead-letters` uses it. The same refusal may lie there twice, after a crash: a dead-letter record is one
position of one topic. A replay leaves a mark on the topic, so that dead-letter records that were replayed can be told
from those that wait.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, Self

import structlog
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from ratchet_client.errors import BrokerError
from streams.kafka.clients import FETCH_TIMEOUT_S, batches_until, consumer, producer
from streams.kafka.records import Outgoing
from streams.kafka.refusals import ERROR_HEADER, OFFSET_HEADER, PARTITION_HEADER, TOPIC_HEADER, VERDICT_HEADER
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import MAX_DEAD_LETTER_BYTES, end_offsets

log = structlog.get_logger()

REPLAYED = "replayed"
REPLAYED_FROM_HEADER = "ratchet-replayed-from"
_NOTES = (VERDICT_HEADER, ERROR_HEADER, TOPIC_HEADER, PARTITION_HEADER, OFFSET_HEADER)
_POSITION = re.compile(r"(.+)/(\d+)/(\d+)")
_CHUNK = 100

Headers = tuple[tuple[str, bytes], ...]
Watch = Callable[[int, int], None]


class Position(NamedTuple):
    """Position of a record in the log. Written TOPIC/PARTITION/OFFSET."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` writes. Raises `ValueError` for anything else."""
        found = _POSITION.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a position: write TOPIC/PARTITION/OFFSET")
        return cls(found[1], int(found[2]), int(found[3]))

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused record, without its content.

    `position` is where it was refused, `place` where the dead-letter record itself lies. `size` is that of its value
    in bytes, `at` when it was refused. `replay_of` is the dead-letter record whose replay this is, `replayed` whether
    it was replayed itself.
    """

    position: Position
    place: Position
    verdict: str
    error: str
    key: bytes | None
    size: int
    at: datetime
    replay_of: Position | None
    replayed: bool = False


def read_dead_letters(kafka: KafkaSettings, watch: Watch) -> list[DeadLetter]:
    """Every dead-letter record up to where the topic ends now, oldest first. `watch` is told how many records of how
    many are read.

    Raises `BrokerError` when the cluster cannot be reached or has no such topic.
    """
    ends = end_offsets(kafka.bootstrap, kafka.dead_letters_topic, kafka.security)
    dead_letters: dict[Position, DeadLetter] = {}
    replayed: set[Position] = set()
    strange = 0
    for record in _records(kafka, {}, ends, watch):
        notes, headers = _split(record.headers)
        position = _position(notes)
        if position is None:
            strange += 1
        elif notes.get(VERDICT_HEADER) == REPLAYED:
            replayed.add(position)
        elif position not in dead_letters:
            dead_letters[position] = DeadLetter(
                position=position,
                place=Position(record.topic, record.partition, record.offset),
                verdict=notes.get(VERDICT_HEADER, ""),
                error=notes.get(ERROR_HEADER, ""),
                key=record.key,
                size=len(record.value or b""),
                at=_moment(record.timestamp),
                replay_of=_replayed_from(headers),
            )
    if strange:
        log.warning(
            "records without a position are not dead-letter records of Ratchet",
            topic=kafka.dead_letters_topic,
            n=strange,
        )
    found = (replace(dead_letter, replayed=dead_letter.position in replayed) for dead_letter in dead_letters.values())
    return sorted(found, key=lambda dead_letter: (dead_letter.at, dead_letter.position))


def originals(kafka: KafkaSettings, dead_letters: Sequence[DeadLetter]) -> Iterator[tuple[DeadLetter, Outgoing]]:
    """The refused records as they came, each with its dead-letter record, in the order in which the topic gives them.

    Raises `BrokerError` as `read_letters` does.
    """
    wanted = {dead_letter.place: dead_letter for dead_letter in dead_letters}
    begin: dict[int, int] = {}
    ends: dict[int, int] = {}
    for place in wanted:
        begin[place.partition] = min(begin.get(place.partition, place.offset), place.offset)
        ends[place.partition] = max(ends.get(place.partition, 0), place.offset + 1)
    for record in _records(kafka, begin, ends, lambda _, __: None):
        dead_letter = wanted.get(Position(record.topic, record.partition, record.offset))
        if dead_letter is not None:
            _, headers = _split(record.headers)
            # A dead-letter record cannot tell an empty value from none; neither is an event.
            yield dead_letter, Outgoing(dead_letter.position.topic, record.key, record.value, headers)


def replay(kafka: KafkaSettings, dead_letters: Sequence[DeadLetter], watch: Watch) -> int:
    """Publish the refused records again, to the topics they came from; how many.

    A record is marked as replayed once the cluster has acknowledged it; a crash in between has it published twice, and
    the store recognises an event that it has. What is refused again comes back as another dead-letter record.

    Raises `BrokerError` when a dead-letter record names a topic that is not Ratchet's, or the cluster refuses; what
    was published until then is marked.
    """
    foreign = sorted({dead_letter.position.topic for dead_letter in dead_letters} - set(kafka.topics))
    if foreign:
        raise BrokerError(
            f"dead-letter records name the topic {foreign[0]}, which is not one of {', '.join(kafka.topics)}"
        )
    done = 0
    with producer("dead-letters", kafka.bootstrap, kafka.security, max_request_size=MAX_DEAD_LETTER_BYTES) as client:
        source = originals(kafka, dead_letters)
        try:
            while chunk := list(islice(source, _CHUNK)):
                _publish(client, [_again(dead_letter, original) for dead_letter, original in chunk])
                _publish(client, [_mark(dead_letter, kafka.dead_letters_topic) for dead_letter, _ in chunk])
                done += len(chunk)
                watch(done, len(dead_letters))
        except KafkaError as error:
            raise BrokerError(
                f"{done} of {len(dead_letters)} dead-letter records were replayed, then the cluster failed: {error!r}"
            ) from error
    return done


def put_behind(kafka: KafkaSettings, ends: Mapping[int, int], is_kept: Callable[[Any], bool]) -> int:
    """Publish the records before `ends` that are kept once more, unchanged, so that those can be deleted; how many.

    `is_kept` is asked of each record as kafka-python has it. A record that lies there twice is known by its position.
    """
    kept = 0
    with producer("dead-letters", kafka.bootstrap, kafka.security, max_request_size=MAX_DEAD_LETTER_BYTES) as client:
        for record in _records(kafka, {}, ends, lambda _, __: None):
            if is_kept(record):
                sent = client.send(
                    record.topic,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                    partition=record.partition,
                    timestamp_ms=record.timestamp,
                )
                sent.get(timeout=FETCH_TIMEOUT_S)
                kept += 1
    return kept


def _again(dead_letter: DeadLetter, original: Outgoing) -> Outgoing:
    kept = tuple(header for header in original.headers if header[0] != REPLAYED_FROM_HEADER)
    return replace(original, headers=(*kept, (REPLAYED_FROM_HEADER, str(dead_letter.position).encode())))


def _mark(dead_letter: DeadLetter, topic: str) -> Outgoing:
    notes = {
        VERDICT_HEADER: REPLAYED,
        TOPIC_HEADER: dead_letter.position.topic,
        PARTITION_HEADER: str(dead_letter.position.partition),
        OFFSET_HEADER: str(dead_letter.position.offset),
    }
    return Outgoing(topic, dead_letter.key, None, tuple((name, text.encode()) for name, text in notes.items()))


def _publish(client: KafkaProducer, messages: Sequence[Outgoing]) -> None:
    sent = [
        client.send(message.topic, key=message.key, value=message.body, headers=list(message.headers))
        for message in messages
    ]
    client.flush()
    for future in sent:
        future.get(timeout=FETCH_TIMEOUT_S)


def _records(kafka: KafkaSettings, begin: Mapping[int, int], ends: Mapping[int, int], watch: Watch) -> Iterator[Any]:
    """The records of each partition from `begin`, else from its beginning, up to its end."""
    topic = kafka.dead_letters_topic
    partitions = {partition: TopicPartition(topic, partition) for partition, end in ends.items() if end}
    if not partitions:
        return
    with consumer(
        "dead-letters", kafka.bootstrap, kafka.security, max_partition_fetch_bytes=MAX_DEAD_LETTER_BYTES
    ) as client:
        client.assign(list(partitions.values()))
        client.seek_to_beginning(*partitions.values())
        for partition, offset in begin.items():
            client.seek(partitions[partition], offset)
        first = {partition: client.position(place) for partition, place in partitions.items()}
        total = sum(max(0, ends[partition] - offset) for partition, offset in first.items())
        for batch in batches_until(client, {place: ends[partition] for partition, place in partitions.items()}):
            yield from batch
            watch(min(total, sum(client.position(partitions[p]) - at for p, at in first.items())), total)


def _split(headers: Sequence[tuple[str, bytes]]) -> tuple[dict[str, str], Headers]:
    """The notes of the role that refused the record, and the headers it came with.

    The notes stand last: one of the same name before them came with the record, and may say anything.
    """
    notes: dict[str, str] = {}
    own: list[tuple[str, bytes]] = []
    for name, value in reversed(headers):
        if name in _NOTES and name not in notes:
            notes[name] = value.decode(errors="replace")
        else:
            own.append((name, value))
    return notes, tuple(reversed(own))


def _moment(milliseconds: int) -> datetime:
    """The time of a record; the last one that there is for what lies beyond it, as a producer may claim."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)


def _position(notes: Mapping[str, str]) -> Position | None:
    try:
        return Position(notes[TOPIC_HEADER], int(notes[PARTITION_HEADER]), int(notes[OFFSET_HEADER]))
    except (KeyError, ValueError):
        return None


def _replayed_from(headers: Headers) -> Position | None:
    for name, value in headers:
        if name == REPLAYED_FROM_HEADER:
            try:
                return Position.parse(value.decode())
            except ValueError:
                return None
    return None
