"""The clients of kafka-python that Ratchet itself uses, and reading a topic with them.

What the cluster does wrong is a `BrokerError` that says what to do. Workers are Faust's: `streams.kafka.worker`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, cast

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from ratchet_client.errors import BrokerError
from ratchet_client.kafka.connection import broker_errors, connection_options
from ratchet_client.kafka.remedies import CHECK_ADDRESS, remedy_for
from ratchet_client.kafka.security import KafkaSecurity

FETCH_TIMEOUT_S = 15.0
_POLL_MS = 500


@contextmanager
def admin(name: str, bootstrap: str, security: KafkaSecurity) -> Iterator[KafkaAdminClient]:
    """A client for topics and the cluster itself. Raises `BrokerError` for any error of the cluster inside."""
    with (
        broker_errors(bootstrap),
        closing(KafkaAdminClient(**connection_options(name, bootstrap, security, {}))) as client,
    ):
        yield client


@contextmanager
def consumer(
    name: str, bootstrap: str, security: KafkaSecurity, group: str | None = None, **settings: object
) -> Iterator[KafkaConsumer]:
    """A consumer that commits nothing. Raises `BrokerError` for any error of the cluster inside."""
    options = connection_options(
        name, bootstrap, security, {"group_id": group, "enable_auto_commit": False, **settings}
    )
    with broker_errors(bootstrap), closing(KafkaConsumer(**options)) as client:
        yield client


@contextmanager
def producer(
    name: str, bootstrap: str, security: KafkaSecurity, remedy: str = CHECK_ADDRESS, **settings: object
) -> Iterator[KafkaProducer]:
    """A producer that waits for all replicas in sync. Raises `BrokerError` for any error of the cluster inside."""
    options = connection_options(name, bootstrap, security, {"acks": "all", **settings})
    with broker_errors(bootstrap, remedy), closing(KafkaProducer(**options)) as client:
        yield client


def poll(client: KafkaConsumer, timeout_ms: int, most: int | None = None) -> Mapping[TopicPartition, Sequence[Any]]:
    """The records of the next fetch, `most` at most. Raises `BrokerError` for a batch that cannot be read."""
    try:
        return cast(Mapping[TopicPartition, Sequence[Any]], client.poll(timeout_ms=timeout_ms, max_records=most))
    except Exception as error:  # each codec has exceptions of its own
        if isinstance(error, KafkaError) and remedy_for(error) == CHECK_ADDRESS:
            raise
        places = ", ".join(f"{p.topic}/{p.partition}/{client.position(p)}" for p in client.assignment())
        remedy = remedy_for(error, "look at the brokers' disks and at what the producers send: the batch is damaged")
        raise BrokerError(f"a batch at one of {places} cannot be read: {error!r}; {remedy}") from error


def batches_until(
    client: KafkaConsumer, ends: Mapping[TopicPartition, int], patience_s: float = FETCH_TIMEOUT_S
) -> Iterator[list[Any]]:
    """The records from where the client stands to `ends`, fetch by fetch; a batch may be empty.

    Raises `BrokerError` for what cannot be read, and where nothing comes for `patience_s` seconds.
    """
    silent_s = 0.0
    while behind := [place for place, end in ends.items() if client.position(place) < end]:
        if silent_s > patience_s:
            where = f"{behind[0].topic}/{behind[0].partition}"
            raise BrokerError(f"{where} gives nothing for {patience_s:.0f} s; is the cluster healthy?")
        began = time.monotonic()
        fetched = poll(client, _POLL_MS)
        silent_s = 0.0 if fetched else silent_s + time.monotonic() - began
        yield [record for place, records in fetched.items() for record in records if record.offset < ends[place]]
