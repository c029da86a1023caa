"""Connects a client of kafka-python: it knows where the cluster is, proves itself to it, and has a name there.

What the cluster does wrong is a `BrokerError` that says what to do. The producer and Ratchet's own clients use it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from kafka.errors import KafkaError

from ratchet_client.errors import BrokerError
from ratchet_client.kafka.remedies import CHECK_ADDRESS, remedy_for
from ratchet_client.kafka.security import KafkaSecurity, client_options

BOOTSTRAP_TIMEOUT_MS = 15_000

P = TypeVar("P")


def connect_producer(
    kind: Callable[..., P], name: str, bootstrap: str, security: KafkaSecurity, **settings: object
) -> P:
    """A producer that the caller keeps and closes, made by `kind`. Raises `BrokerError` without a cluster."""
    with broker_errors(bootstrap):
        return kind(**connection_options(name, bootstrap, security, settings))


@contextmanager
def broker_errors(bootstrap: str, remedy: str = CHECK_ADDRESS) -> Iterator[None]:
    """Raise `BrokerError`, which ends with what to do about it, for any error of the cluster inside.

    `remedy` ends it where the error has none of its own, and follows on that if it is the caller's.
    """
    try:
        yield
    except KafkaError as error:
        own = remedy_for(error, remedy)
        ending = own if remedy in (own, CHECK_ADDRESS) else f"{own}; {remedy}"
        raise BrokerError(f"the Kafka cluster at {bootstrap} did not answer or refused: {error!r}; {ending}") from error


def connection_options(
    name: str, bootstrap: str, security: KafkaSecurity, settings: dict[str, object]
) -> dict[str, object]:
    return {
        **client_options(bootstrap, security),
        "client_id": f"ratchet-{name}",
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        **settings,
    }
