"""What a topic of events holds, as a consumer of it sees it."""

from kafka import KafkaConsumer

from ratchet_client.events import EVENT, StepEvent
from streams.kafka.topics import end_offsets


def read(bootstrap: str, topic: str) -> list[tuple[bytes, bytes, dict[str, bytes]]]:
    """Key, value and headers of every record, in the order of each partition."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=15_000
    )
    wanted = sum(end_offsets(bootstrap, topic).values())
    records = [next(consumer) for _ in range(wanted)]
    consumer.close()
    return [(record.key, record.value, dict(record.headers)) for record in records]


def steps_read(bootstrap: str, topic: str) -> dict[str, list[int]]:
    """The steps of each episode in the order of their first arrival."""
    found: dict[str, list[int]] = {}
    for _, value, _ in read(bootstrap, topic):
        event = EVENT.validate_json(value)
        if isinstance(event, StepEvent) and event.step not in found.setdefault(event.episode_id, []):
            found[event.episode_id].append(event.step)
    return found
