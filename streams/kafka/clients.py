"""Every client of kafka-python is made here: it knows where the cluster is, proves itself to it, and has a name there.

What the cluster does wrong is a `BrokerError` that says what to do. Workers are Faust's: `streams.kafka.worker`.
"""

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
