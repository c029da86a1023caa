"""Every client of kafka-python is made here: it knows where the cluster is, proves itself to it, and has a name there.

What the cluster does wrong is a `BrokerError` that says what to do. Workers are Faust's: `streams.kafka.worker`.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from streams.errors import BrokerError
from streams.kafka.security import client_options
from streams.kafka.settings import KafkaSecurity

BOOTSTRAP_TIMEOUT_MS = 15_000
_REMEDY = "check RATCHET_KAFKA__BOOTSTRAP"

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
    name: str, bootstrap: str, security: KafkaSecurity, remedy: str = _REMEDY, **settings: object
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


@contextmanager
def _broker_errors(bootstrap: str, remedy: str = _REMEDY) -> Iterator[None]:
    """Raise `BrokerError`, which ends with `remedy`, for any error of the cluster inside."""
    try:
        yield
    except KafkaError as error:
        raise BrokerError(f"the Kafka cluster at {bootstrap} did not answer or refused: {error!r}; {remedy}") from error


def _options(name: str, bootstrap: str, security: KafkaSecurity, settings: dict[str, object]) -> dict[str, object]:
    return {
        **client_options(bootstrap, security),
        "client_id": f"ratchet-{name}",
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        **settings,
    }
