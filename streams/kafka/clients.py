"""Every client of kafka-python is made here: it knows where the cluster is, proves itself to it, and has a name there.

What the cluster does wrong is a `BrokerError` that says what to do. Workers are Faust's: `streams.kafka.worker`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, TypeVar, cast

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from streams.errors import BrokerError
from streams.kafka.remedies import CHECK_ADDRESS, remedy_for
from streams.kafka.security import client_options
from streams.kafka.settings import KafkaSecurity

BOOTSTRAP_TIMEOUT_MS = 15_000
FETCH_TIMEOUT_S = 15.0
_POLL_MS = 500

P = TypeVar("P")


@contextmanager
def admin(name: str, bootstrap: str, security: KafkaSecurity) -> Iterator[KafkaAdminClient]:
    """A client for topics and the cluster itself. Raises `BrokerError` for any error of the cluster inside."""
    with _broker_errors(bootstrap), closing(KafkaAdminClient(**_options(name, bootstrap, security, {}))) as client:
        yield client


@contextmanager
def consumer(
    name: str, bootstrap: str, security: KafkaSecurity, group: str | None = None, **settings: object
) -> Iterator[KafkaConsumer]:
    """A consumer that commits nothing. Raises `BrokerError` for any error of the cluster inside."""
    options = _options(name, bootstrap, security, {"group_id": group, "enable_auto_commit": False, **settings})
    with _broker_errors(bootstrap), closing(KafkaConsumer(**options)) as client:
        yield client


@contextmanager
def producer(
    name: str, bootstrap: str, security: KafkaSecurity, remedy: str = CHECK_ADDRESS, **settings: object
) -> Iterator[KafkaProducer]:
    """A producer that waits for all replicas in sync. Raises `BrokerError` for any error of the cluster inside."""
    options = _options(name, bootstrap, security, {"acks": "all", **settings})
    with _broker_errors(bootstrap, remedy), closing(KafkaProducer(**options)) as client:
        yield client


def connect_producer(
    kind: Callable[..., P], name: str, bootstrap: str, security: KafkaSecurity, **settings: object
) -> P:
    """A producer that the caller keeps and closes, made by `kind`. Raises `BrokerError` without a cluster."""
    with _broker_errors(bootstrap):
        return kind(**_options(name, bootstrap, security, settings))


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


@contextmanager
def _broker_errors(bootstrap: str, remedy: str = CHECK_ADDRESS) -> Iterator[None]:
    """Raise `BrokerError`, which ends with what to do about it, for any error of the cluster inside.

    `remedy` ends it where the error has none of its own, and follows on that if it is the caller's.
    """
    try:
        yield
    except KafkaError as error:
        own = remedy_for(error, remedy)
        ending = own if remedy in (own, CHECK_ADDRESS) else f"{own}; {remedy}"
        raise BrokerError(f"the Kafka cluster at {bootstrap} did not answer or refused: {error!r}; {ending}") from error


def _options(name: str, bootstrap: str, security: KafkaSecurity, settings: dict[str, object]) -> dict[str, object]:
    return {
        **client_options(bootstrap, security),
        "client_id": f"ratchet-{name}",
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        **settings,
    }
