"""Topics on a cluster that several tests share."""

from ratchet_client.ids import uuid7
from streams.kafka.settings import KafkaSettings


def with_own_topics(kafka: KafkaSettings) -> KafkaSettings:
    """The settings with names of topics and consumer groups that no other process has."""
    name = uuid7()
    topics = (field for field in KafkaSettings.model_fields if field.endswith("_topic"))
    own = {field: f"{name}.{field.removesuffix('_topic').replace('_', '-')}" for field in topics}
    return kafka.model_copy(update={"group_prefix": name, **own})
