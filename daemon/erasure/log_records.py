"""Deleting what Ratchet's topics still hold of what was erased, and telling when the last bytes of it are gone.

`ratchet forget --erase` deletes once the store has erased. Kafka deletes from the beginning of a partition on: all that
it held then, once every consumer group has read it. Of dead-letter records those of others are kept.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, Field

from ratchet_client.errors import BrokerError
from ratchet_client.settings import FrozenModel
from streams.assembly.assembler import ROLE as ASSEMBLE
from streams.branching.role import ROLE as BRANCH
from streams.kafka.dead_letters import put_behind
from streams.kafka.refusals import OFFSET_HEADER, PARTITION_HEADER, TOPIC_HEADER
from streams.kafka.retention import behind, committed, delete_before, ends_of, first_of, retention_of
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import cluster_id
from streams.runtime.files import write_atomically
from streams.store.client import StoreClient
from streams.store.queries.erasure import ERASED_NAMES

_FOLDER, _SUFFIX = "erasures", "-log.json"
_POLL_S = 1.0
# Kafka looks for files to delete every five minutes, and deletes them a minute later.
_LATE = timedelta(minutes=15)
_RECORD = "record"
_CANNOT_DELETE = "the embedded broker deletes no records; its log is memory, and ends with it"

Place = tuple[str, int]


class LeftInLog(FrozenModel):
    """A partition as it was when something was erased: `end` is the offset before which records of that may lie.

    `waits_for` says why they were not deleted; None where they were. `longest_ms` is the most that bytes lie there
    after their deletion, None without an end.
    """

    topic: str
    partition: int
    end: int
    waits_for: str | None = None
    longest_ms: int | None = None


class LogErasure(FrozenModel):
    """What became of the log in the course of an erasure. `embedded` where it was the embedded broker's."""

    erasure_id: str
    cluster: str
    embedded: bool
    at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    partitions: tuple[LeftInLog, ...]
    kept_dead_letters: int = 0

    @property
    def gone_at(self) -> datetime | None:
        """The time by which Kafka has removed the last bytes from its files; None where nothing says when."""
        longest = [each.longest_ms for each in self.partitions]
        if self.embedded or None in longest:
            return None
        return self.at + timedelta(milliseconds=max((each for each in longest if each is not None), default=0)) + _LATE


async def erase_from_log(
    kafka: KafkaSettings, embedded: bool, home: Path, store: StoreClient, erasure_id: str, wait_s: float
) -> LogErasure:
    """Delete the records of all of Ratchet's topics up to now that everyone has read within `wait_s`, and note it.

    Raises `BrokerError` where the cluster does not answer; asked again, it goes on.
    """
    cluster = await asyncio.to_thread(cluster_id, kafka.bootstrap, kafka.security)
    ends = {place: end for place, end in (await asyncio.to_thread(ends_of, kafka)).items() if end}
    longest = {each.topic: each.longest_ms for each in await asyncio.to_thread(retention_of, kafka)}
    late, kept = dict.fromkeys(ends, _CANNOT_DELETE), 0
    if not embedded:
        late = await _late(kafka, store, ends, wait_s)
        read = {place: end for place, end in ends.items() if place not in late}
        try:
            kept = await _keep_others(kafka, store, read)
            await asyncio.to_thread(delete_before, kafka, read)
        except BrokerError as error:
            late |= dict.fromkeys(read, str(error))
    found = []
    for (topic, partition), end in sorted(ends.items()):
        waits_for = late.get((topic, partition))
        found.append(
            LeftInLog(topic=topic, partition=partition, end=end, waits_for=waits_for, longest_ms=longest.get(topic))
        )
    done = LogErasure(
        erasure_id=erasure_id, cluster=cluster, embedded=embedded, partitions=tuple(found), kept_dead_letters=kept
    )
    path = home / _FOLDER / f"{erasure_id}{_SUFFIX}"
    await asyncio.to_thread(write_atomically, path, done.model_dump_json(indent=1).encode() + b"\n")
    return done


def log_erasures(home: Path) -> list[LogErasure]:
    """What became of the log in the course of each erasure, the oldest first."""
    found = [LogErasure.model_validate_json(path.read_bytes()) for path in (home / _FOLDER).glob(f"*{_SUFFIX}")]
    return sorted(found, key=lambda each: each.at)


def readable(kafka: KafkaSettings, erasure: LogErasure) -> list[LeftInLog]:
    """The partitions of which records can still be read that lay there when something was erased.

    None can where another cluster answers: that of the embedded broker is another one at each start. Raises
    `BrokerError`.
    """
    if erasure.embedded and cluster_id(kafka.bootstrap, kafka.security) != erasure.cluster:
        return []
    first = first_of(kafka, [(each.topic, each.partition) for each in erasure.partitions])
    return [each for each in erasure.partitions if first[each.topic, each.partition] < each.end]


async def _late(kafka: KafkaSettings, store: StoreClient, ends: Mapping[Place, int], wait_s: float) -> dict[Place, str]:
    """The partitions that somebody has not read up to `ends` after `wait_s`, and who."""
    recorder, brancher, assembler = (f"{kafka.group_prefix}-{role}" for role in (_RECORD, BRANCH, ASSEMBLE))
    expected = {
        kafka.events_topic: [recorder],
        kafka.transitions_topic: [recorder],
        kafka.branches_topic: [brancher],
        kafka.calls_topic: [assembler],
        kafka.spans_topic: [assembler],
    }
    deadline = time.monotonic() + wait_s
    while True:
        read = await asyncio.to_thread(committed, kafka)
        # The record role reads on at the store's positions, whatever it has committed.
        positions = (await store.status()).positions
        read[recorder] = {
            (topic, partition): offset for topic, of in positions.items() for partition, offset in of.items()
        }
        late = behind(ends, read, expected)
        if not late or time.monotonic() > deadline:
            return {place: f"the consumer group {name} has not read it" for place, name in late.items()}
        await asyncio.sleep(_POLL_S)


async def _keep_others(kafka: KafkaSettings, store: StoreClient, ends: Mapping[Place, int]) -> int:
    """Put the dead-letter records before `ends` that are not of what was erased behind these; how many."""
    rows = (await store.query(ERASED_NAMES)).to_pylist()
    names = {row[column] for row in rows for column in ("principal", "episode_id") if row[column]}
    places = {(row["topic"], row["partition"], row["offset"]) for row in rows if row["topic"]}
    quoted = {form.encode() for name in names for form in (json.dumps(name), json.dumps(name, ensure_ascii=False))}
    refused = {partition: end for (topic, partition), end in ends.items() if topic == kafka.dead_letters_topic}
    return await asyncio.to_thread(put_behind, kafka, refused, partial(_is_of_others, places, quoted))


def _is_of_others(places: set[tuple[str, int, int]], quoted: set[bytes], record: Any) -> bool:
    """Return whether a dead-letter record neither was refused at one of `places` nor names what was erased."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    try:
        place = (headers[TOPIC_HEADER], int(headers[PARTITION_HEADER]), int(headers[OFFSET_HEADER]))
    except (KeyError, ValueError):
        return True  # not one of Ratchet's
    content, key = record.value or b"", record.key or b""
    return place not in places and not any(name in content or name == b'"%s"' % key for name in quoted)
