"""Records of the embedded broker that no role had read when it stopped: kept in a file, and published again.

Its log is memory, so the supervisor keeps them at its end and gives them to the next broker. What was read before and
comes again is known by its id. The file holds what agents said, as they said it, until the next start.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from streams.kafka.clients import batches_until, consumer, producer
from streams.kafka.retention import committed, ends_of
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import MAX_CALL_BYTES, create_topics
from streams.runtime.files import replacing


def keep_unread(kafka: KafkaSettings, path: Path) -> int:
    """Write the records to the file `path` that their roles have not acknowledged; how many. Without any, no file.

    Branch requests are not among them: the store publishes those again that were not answered. Raises `BrokerError`
    and `OSError`.
    """
    count, read, readers = 0, committed(kafka), _readers(kafka)
    with replacing(path) as file, consumer("unread", kafka.bootstrap, kafka.security) as client:
        for (topic, partition), end in ends_of(kafka).items():
            if topic not in readers:
                continue
            begin = read.get(f"{kafka.group_prefix}-{readers[topic]}", {}).get((topic, partition), 0)
            for record in _records(client, TopicPartition(topic, partition), begin, end):
                file.write(json.dumps(_document(record)).encode() + b"\n")
                count += 1
    if not count:
        path.unlink()
    return count


def publish_kept(kafka: KafkaSettings, path: Path) -> int:
    """Publish the records of the file `path`, if there is one, and remove it; how many. Raises `BrokerError`.

    A crash in between has them published twice.
    """
    if not path.is_file():
        return 0
    create_topics(kafka)
    count = 0
    with (
        path.open("rb") as lines,
        producer("unread", kafka.bootstrap, kafka.security, max_request_size=2 * MAX_CALL_BYTES) as client,
    ):
        sent = []
        for line in lines:
            document = json.loads(line)
            headers = [(name, base64.b64decode(value)) for name, value in document["headers"]]
            sent.append(
                client.send(
                    document["topic"], key=_bytes(document["key"]), value=_bytes(document["value"]), headers=headers
                )
            )
            count += 1
        for future in sent:
            future.get()
    path.unlink()
    return count


def _readers(kafka: KafkaSettings) -> dict[str, str]:
    """The role that reads each topic."""
    return {
        kafka.calls_topic: "assemble",
        kafka.spans_topic: "assemble",
        kafka.events_topic: "record",
        kafka.transitions_topic: "record",
    }


def _records(client: KafkaConsumer, place: TopicPartition, begin: int, end: int) -> Iterator[Any]:
    client.assign([place])
    client.seek(place, begin)
    for batch in batches_until(client, {place: end}):
        yield from batch


def _document(record: Any) -> dict[str, object]:
    return {
        "topic": record.topic,
        "key": _text(record.key),
        "value": _text(record.value),
        "headers": [(name, _text(value)) for name, value in record.headers],
    }


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
