"""The end of records in Ratchet's topics: by their retention, or deleted once everyone has read them.

`ratchet forget --erase` deletes and `ratchet doctor` looks at the retention. A deleted record
cannot be read any more. Its bytes go with the file of Kafka's log that they are in: Kafka writes one for `segment.ms`,
and removes it once all its records are deleted, or its last one is older than `retention.ms`.
"""

from collections.abc import Iterable, Mapping

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import CoordinatorNotAvailableError

from ratchet_client.settings import FrozenModel
from streams.kafka.clients import admin, consumer
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets

FOREVER_MS = -1
_DELETE_TIMEOUT_MS = 30_000

Places = Mapping[tuple[str, int], int]


class TopicRetention(FrozenModel):
    """How long a topic keeps records. None is what the cluster does not say; -1 is permanently."""

    topic: str
    retention_ms: int | None = None
    segment_ms: int | None = None
    compacted: bool = False

    @property
    def longest_ms(self) -> int | None:
        """The most between a record's coming and the end of its bytes; None where there is no end, or it is unknown."""
        kept = self.retention_ms, self.segment_ms
        if self.compacted or None in kept or FOREVER_MS in kept:
            return None
        return sum(each for each in kept if each is not None)


def retention_of(kafka: KafkaSettings) -> list[TopicRetention]:
    """The retention of those of Ratchet's topics that there are. Raises `BrokerError`."""
    with admin("retention", kafka.bootstrap, kafka.security) as client:
        there = set(client.list_topics())
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in kafka.topics if name in there]
        found = client.describe_configs(asked, config_filter="all").get("topic", {}) if asked else {}
    return [_retention(name, values) for name, values in sorted(found.items())]


def _retention(topic: str, values: Mapping[str, Mapping[str, object]]) -> TopicRetention:
    told = {name: str(value["value"]) for name, value in values.items() if value.get("value") is not None}
    kept, segment = told.get("retention.ms"), told.get("segment.ms")
    return TopicRetention(
        topic=topic,
        retention_ms=None if kept is None else int(kept),
        segment_ms=None if segment is None else int(segment),
        compacted="compact" in told.get("cleanup.policy", ""),
    )


def ends_of(kafka: KafkaSettings) -> dict[tuple[str, int], int]:
    """The next offset to come in each partition of those of Ratchet's topics that there are."""
    with admin("retention", kafka.bootstrap, kafka.security) as client:
        there = set(client.list_topics())
    return {
        (topic, partition): end
        for topic in kafka.topics
        if topic in there
        for partition, end in end_offsets(kafka.bootstrap, topic, kafka.security).items()
    }


def first_of(kafka: KafkaSettings, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """The first offset of those partitions that can be read."""
    with consumer("retention", kafka.bootstrap, kafka.security) as client:
        found = client.beginning_offsets([TopicPartition(*place) for place in places])
    return {(place.topic, place.partition): first for place, first in found.items()}


def committed(kafka: KafkaSettings) -> dict[str, dict[tuple[str, int], int]]:
    """The offsets that each consumer group of the cluster has committed in Ratchet's topics."""
    with admin("retention", kafka.bootstrap, kafka.security) as client:
        groups = [group["group_id"] for group in client.list_groups()]
        found = {}
        for group in groups:
            try:
                offsets = client.list_group_offsets(group)[group]
            except CoordinatorNotAvailableError:
                continue  # no group has ever committed anything
            found[group] = {
                (place.topic, place.partition): told.offset
                for place, told in offsets.items()
                if place.topic in kafka.topics
            }
    return {group: offsets for group, offsets in found.items() if offsets}


def delete_before(kafka: KafkaSettings, ends: Places) -> None:
    """Delete the records before those offsets, for all consumers. Raises `BrokerError`, also where a broker cannot."""
    if not ends:
        return
    places = {TopicPartition(topic, partition): end for (topic, partition), end in ends.items()}
    with admin("retention", kafka.bootstrap, kafka.security) as client:
        client.delete_records(places, timeout_ms=_DELETE_TIMEOUT_MS)


def behind(
    ends: Places, read: Mapping[str, Places], expected: Mapping[str, Iterable[str]]
) -> dict[tuple[str, int], str]:
    """The partitions that may not be deleted up to `ends` yet, with the group that has not read that far.

    `read` is what each group has read, `expected` the groups that read a topic whether they have begun or not.

    >>> behind({("calls", 0): 5}, {"a": {("calls", 0): 5}, "b": {("calls", 0): 4}}, {"calls": ["a"]})
    {('calls', 0): 'b'}
    """
    found = {}
    for place, end in ends.items():
        groups = {group for group, offsets in read.items() if place in offsets} | set(expected.get(place[0], ()))
        late = sorted(group for group in groups if read.get(group, {}).get(place, 0) < end)
        if late and end:
            found[place] = late[0]
    return found


def check_retention(kafka: KafkaSettings, topics: Iterable[TopicRetention]) -> list[str]:
    """The sentences on topics that keep records longer than the settings say, each with the topic's name."""
    most = kafka.retention_ms
    found = []
    for each in topics:
        if each.compacted:
            found.append(f"{each.topic} is compacted, which keeps the last record of each key permanently")
        elif each.retention_ms is not None and (each.retention_ms == FOREVER_MS or each.retention_ms > most):
            kept = "permanently" if each.retention_ms == FOREVER_MS else f"{each.retention_ms / 3_600_000:g} h"
            found.append(f"{each.topic} keeps records {kept}, and kafka.raw_retention_h is {kafka.raw_retention_h}")
        elif each.segment_ms is not None and each.segment_ms > most:
            found.append(
                f"{each.topic} has segment.ms of {each.segment_ms / 3_600_000:g} h, so that a file of its log lies on "
                f"beyond kafka.raw_retention_h, {kafka.raw_retention_h}"
            )
    return found
