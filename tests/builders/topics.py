"""Topics on a cluster that several tests share."""

from streams.ids import uuid7
from streams.kafka.settings import KafkaSettings


def with_own_topics(kafka: KafkaSettings) -> KafkaSettings:
    """The settings with names of topics and consumer groups that no other process has."""
    name = uuid7()
    topics = ("events", "branches", "transitions", "dead_letters", "spans")
    return kafka.model_copy(
        update={"group_prefix": name, **{f"{topic}_topic": f"{name}.{topic.replace('_', '-')}" for topic in topics}}
    )
