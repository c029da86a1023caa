"""Puts messages into the log from worker threads, and says within seconds whether the log has them."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaError

from ratchet_client.errors import BrokerError
from ratchet_client.kafka.connection import connect_producer
from ratchet_client.kafka.remedies import remedy_for
from streams.kafka.records import Outgoing
from streams.kafka.settings import KafkaSettings

_RECONNECT_S = 1.0
# Longest that `close` waits for the lock, which a thread that connects holds until the cluster answers.
_CLOSE_S = 0.2


class Publisher:
    """One kafka-python producer, connected when it is first needed and replaced after a failure. Thread-safe.

    `name` is what the cluster knows it by.
    """

    def __init__(self, kafka: KafkaSettings, timeout_s: float, max_message_bytes: int, name: str = "otlp") -> None:
        self._kafka = kafka
        self._name = name
        self._timeout_s = timeout_s
        self._max_message_bytes = max_message_bytes
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._not_before = 0.0
        self._closed = False

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Return when every message is acknowledged by all replicas in sync.

        Raises `BrokerError` when that takes too long or fails; some of the messages may then be published.
        """
        if not messages:
            return
        producer = self._connected()
        deadline = time.monotonic() + self._timeout_s
        try:
            sent = [
                producer.send(message.topic, key=message.key, value=message.body, headers=list(message.headers))
                for message in messages
            ]
            for future in sent:
                future.get(timeout=max(0.01, deadline - time.monotonic()))
        except KafkaError as error:
            # An idempotent producer may be unable to go on after an error: the next request gets a new one.
            self._discard(producer)
            raise BrokerError(
                f"the Kafka cluster at {self._kafka.bootstrap} did not take the messages: {error!r}; "
                f"{remedy_for(error, 'is it healthy?')}"
            ) from error

    def close(self) -> None:
        """Nothing is published afterwards. A connection that is being made is not waited for: it ends when it is."""
        self._closed = True
        if not self._lock.acquire(timeout=_CLOSE_S):
            return
        try:
            self._end_own()
        finally:
            self._lock.release()

    def _connected(self) -> KafkaProducer:
        with self._lock:
            if self._producer is None and not self._closed:
                if time.monotonic() < self._not_before:
                    raise BrokerError(f"the Kafka cluster at {self._kafka.bootstrap} did not answer a moment ago")
                try:
                    self._producer = self._connect()
                except BrokerError:
                    self._not_before = time.monotonic() + _RECONNECT_S
                    raise
            if self._producer is None or self._closed:
                self._end_own()
                raise BrokerError(f"the publisher to the Kafka cluster at {self._kafka.bootstrap} is closed")
            return self._producer

    def _connect(self) -> KafkaProducer:
        timeout_ms = int(self._timeout_s * 1000)
        return connect_producer(
            KafkaProducer,
            self._name,
            self._kafka.bootstrap,
            self._kafka.security,
            bootstrap_timeout_ms=timeout_ms,
            max_block_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
            delivery_timeout_ms=timeout_ms,
            linger_ms=0,
            acks="all",
            max_request_size=2 * self._max_message_bytes,
        )

    def _discard(self, producer: KafkaProducer) -> None:
        with self._lock:
            if self._producer is producer:
                self._producer = None
                self._not_before = time.monotonic() + _RECONNECT_S
        # Its batches must expire before it ends, and the request must be answered now.
        threading.Thread(target=self._end, args=(producer,), daemon=True).start()

    def _end_own(self) -> None:
        if self._producer is not None:
            self._end(self._producer)
            self._producer = None

    def _end(self, producer: KafkaProducer) -> None:
        # What it could not send was reported to those who sent it.
        with suppress(KafkaError):
            producer.close(timeout=2 * self._timeout_s)
