"""Sends entries to the cluster in waves that cannot overtake each other. The producer's sender calls it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from kafka import KafkaProducer
from kafka.errors import (
    InvalidRecordError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from ratchet_client.errors import RatchetError
from ratchet_client.kafka.connection import connect_producer
from ratchet_client.kafka.security import KafkaSecurity
from ratchet_client.kafka.signatures import SIGNATURE_HEADER
from ratchet_client.producer.spool_file import Entry

WAVE_BYTES = 512 * 2**10
_MAX_REQUEST_BYTES = 20 * 2**20
_BOOTSTRAP_TIMEOUT_MS = 5_000
_METADATA_TIMEOUT_MS = 5_000
_LINGER_MS = 5_000
_REQUEST_TIMEOUT_MS = 10_000
_DELIVERY_TIMEOUT_MS = 20_000
_LOOK_UP_S = 0.5
# The cluster will never take such a record; anything else may pass.
_REFUSALS = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The result of sending one batch: how many entries were acknowledged or rejected, which to send again, and why."""

    acknowledged: int = 0
    refused: int = 0
    failed: tuple[Entry, ...] = ()
    error: Exception | None = None


class _Connection(KafkaProducer):  # type: ignore[misc]  # the package has no types
    """It ends when it is told to: its own hook at exit would send nothing more, and complain about that."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self._unregister_cleanup()

    def abort(self) -> None:
        """End without waiting for what is under way."""
        self._sender.force_close()
        self._closed = True

    def forget(self) -> None:
        """Send nothing when it is collected, since the sockets are another process's as well."""
        self._closed = True


class Delivery:
    """At most one connection, made when it is needed and replaced after every failure. For one thread."""

    def __init__(self, bootstrap: str, security: KafkaSecurity, topic: str, compression: str | None = None) -> None:
        """`compression` is the codec of batches; it must be installed."""
        self._compression = compression
        self._bootstrap = bootstrap
        self._security = security
        self._topic = topic
        self._connection: _Connection | None = None

    def send(self, entries: Sequence[Entry], go_on: Callable[[], bool], within_s: float) -> Delivered:
        """Send `entries`, of about `WAVE_BYTES` at most, and return when it is known what became of each.

        `go_on` is asked every half second whether to wait on; connecting takes no longer than `within_s`. Entries of
        one key are in the log in their order, each once or, when some have failed, all of them perhaps in part.
        """
        fates = self._attempt(entries, go_on, within_s)
        failed = [(entry, error) for entry, error in fates if error is not None]
        acknowledged, refused = len(entries) - len(failed), 0
        if failed:
            self.drop_connection()
        if not any(isinstance(error, _REFUSALS) for _, error in failed):
            return Delivered(acknowledged, 0, tuple(entry for entry, _ in failed), failed[0][1] if failed else None)
        if len(entries) == 1:
            return Delivered(refused=1)
        # After one refusal kafka-python fails whatever the connection has with the same error: judge each alone.
        for position, (entry, _) in enumerate(failed):
            alone = self.send([entry], go_on, within_s)
            acknowledged += alone.acknowledged
            refused += alone.refused
            if alone.failed:
                return Delivered(acknowledged, refused, tuple(entry for entry, _ in failed[position:]), alone.error)
        return Delivered(acknowledged, refused)

    def drop_connection(self) -> None:
        """Give up what is under way, without waiting."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def leave_to_parent(self) -> None:
        """In a forked child: the connection is not this process's."""
        if self._connection is not None:
            self._connection.forget()
            self._connection = None

    def _attempt(
        self, entries: Sequence[Entry], go_on: Callable[[], bool], within_s: float
    ) -> list[tuple[Entry, Exception | None]]:
        """Each entry with what kept it from being acknowledged, or None."""
        try:
            connection = self._connection = self._connection or self._connect(within_s)
            sent = [(entry, connection.send(self._topic, entry.value, entry.key, _headers(entry))) for entry in entries]
        except (KafkaError, RatchetError, OSError, ValueError) as error:  # a file, an address, a topic's name
            return [(entry, error) for entry in entries]
        while not all(future.is_done for _, future in sent):
            with suppress(KafkaError):
                connection.flush(_LOOK_UP_S)
                continue
            if not go_on():
                break
        return [
            (entry, future.exception if future.is_done else KafkaTimeoutError("not acknowledged in time"))
            for entry, future in sent
        ]

    def _connect(self, within_s: float) -> _Connection:
        return connect_producer(
            _Connection,
            "producer",
            self._bootstrap,
            self._security,
            bootstrap_timeout_ms=max(100, min(1000 * within_s, _BOOTSTRAP_TIMEOUT_MS)),
            # A topic that is made by chance has the wrong number of partitions.
            allow_auto_create_topics=False,
            # One wave is one batch per partition: behind a batch that fails there is none that could succeed.
            batch_size=2 * WAVE_BYTES,
            linger_ms=_LINGER_MS,
            compression_type=self._compression,
            max_request_size=_MAX_REQUEST_BYTES,
            max_block_ms=_METADATA_TIMEOUT_MS,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=_DELIVERY_TIMEOUT_MS,
            reconnect_backoff_max_ms=1000,
            metrics_enabled=False,
        )


def _headers(entry: Entry) -> list[tuple[str, bytes]]:
    return [(SIGNATURE_HEADER, entry.signature)] if entry.signature else []
