"""Records calls off their path: a bounded queue, and a thread that makes records of them and publishes them.

`take` never waits. While the log is away calls queue up; what finds the queue full is dropped and counted.
"""

import threading
import time
import zlib
from collections import Counter as Tally
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import structlog
from kafka.errors import MessageSizeTooLargeError, RecordListTooLargeError
from opentelemetry.trace import SpanKind

from daemon.registry.schemas import CaptureStatus
from daemon.serving.settings import CaptureSettings
from ratchet_client.errors import BrokerError
from streams.calls.records import CallLabels, CapturedCall, Face, key_of_receipt
from streams.kafka.records import Outgoing
from streams.runtime import tracing
from streams.runtime.http_bodies import WINDOW_BITS

log = structlog.get_logger()

_BATCH_CALLS = 500
_BATCH_BYTES = 4 * 2**20
_LONGEST_PAUSE_S = 10.0
_WARN_EVERY_S = 60.0
_LINGER_S = 0.25
_FLUSH_PAUSE_S = 0.1
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
# About what a call takes beside its bodies.
_OVERHEAD_BYTES = 1000


class Result(StrEnum):
    """The fate of captured calls: `published` is in the log, the others are lost.

    `dropped` found the queue full or the role stopped before the log had it, `refused` is what the log does not take.
    """

    PUBLISHED = "published"
    DROPPED = "dropped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Taken:
    """A call as it went over the wire. `parts` are the bytes of the reply, as they were sent on; not all if `cut`.

    `trace` are the headers that tell the span it was made in, if it was traced.
    """

    receipt: str
    face: Face
    labels: CallLabels
    authenticated: bool
    served: str
    status: int
    streamed: bool
    complete: bool
    encoding: str
    began_ns: int
    ended_ns: int
    request: bytes
    parts: Sequence[bytes]
    cut: bool = False
    trace: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.request) + sum(map(len, self.parts)) + _OVERHEAD_BYTES


class Publishes(Protocol):
    """Puts messages into the log; returns when it has them. Raises `BrokerError`."""

    def publish(self, messages: Sequence[Outgoing]) -> None: ...


class Capture:
    """The queue and its thread, which runs from `start` to `stop`. `take` may be called from any thread."""

    def __init__(self, settings: CaptureSettings, topic: str, log_: Publishes) -> None:
        self.settings = settings
        self._topic = topic
        self._log = log_
        self._changed = threading.Condition()
        self._queue: deque[tuple[Taken, int]] = deque()
        self._bytes = 0
        self._results: Tally[Result] = Tally()
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._warned = float("-inf")
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Publish what waits, for `flush_s` at most, and end. What is left then is dropped."""
        self._deadline = time.monotonic() + self.settings.flush_s
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(self.settings.flush_s)
        with self._changed:
            left = len(self._queue)
            self._results[Result.DROPPED] += left
            self._ended = True
        if left:
            log.warning("the role stops before the log has these calls; they are lost", calls=left)

    def take(self, call: Taken) -> bool:
        """Have the call recorded. False, at once, when the queue is full."""
        size = call.size
        with self._changed:
            taken = (
                not self._ended
                and len(self._queue) < self.settings.queue_calls
                and self._bytes + size <= self.settings.queue_bytes
            )
            if taken:
                self._queue.append((call, size))
                self._bytes += size
                if len(self._queue) == 1:
                    self._changed.notify()
            else:
                self._results[Result.DROPPED] += 1
        if not taken:
            self._warn("the queue of captured calls is full; calls are not recorded: is the Kafka cluster up?")
        return taken

    @property
    def status(self) -> CaptureStatus:
        with self._changed:
            counts = {result.value: self._results[result] for result in Result}
            return CaptureStatus(waiting=len(self._queue), waiting_bytes=self._bytes, **counts)

    def _work(self) -> None:
        pause = 0.0
        while (batch := self._next()) is not None:
            try:
                refused = self._publish(batch)
            except BrokerError as error:
                self._warn(f"captured calls wait for the log: {error}")
                pause = min(max(2 * pause, 0.1), _LONGEST_PAUSE_S)
                self._stopping.wait(pause)
                if time.monotonic() > self._deadline:
                    return
                if self._stopping.is_set():
                    time.sleep(_FLUSH_PAUSE_S)
                continue
            except Exception as error:  # noqa: BLE001 - a call that cannot be recorded must not end the recording
                # Not its text, which may be what agents say.
                log.error("captured calls could not be recorded", calls=len(batch), error=type(error).__name__)
                self._done(len(batch), refused=len(batch))
            else:
                self._done(len(batch), refused)
            pause = 0.0
            # Each publication costs the processor as much as many calls, and the replies need it.
            self._stopping.wait(_LINGER_S)

    def _next(self) -> list[Taken] | None:
        """The first calls of the queue, which stay in it until they are done; None when the role stops."""
        with self._changed:
            while not self._queue:
                if self._stopping.is_set():
                    return None
                self._changed.wait()
            batch, size = list[Taken](), 0
            for call, its_size in self._queue:
                if batch and (len(batch) == _BATCH_CALLS or size + its_size > _BATCH_BYTES):
                    break
                batch.append(call)
                size += its_size
            return batch

    def _done(self, calls: int, refused: int) -> None:
        with self._changed:
            if self._ended:
                return  # they were counted as lost
            self._results[Result.REFUSED] += refused
            self._results[Result.PUBLISHED] += calls - refused
            for _ in range(calls):
                _, size = self._queue.popleft()
                self._bytes -= size

    def _publish(self, batch: Sequence[Taken]) -> int:
        """Return when the log has the batch, but for as many as are too large for it. Raises `BrokerError`."""
        records = [as_record(call, self.settings.max_record_bytes) for call in batch]
        messages = [
            Outgoing(self._topic, (key_of_receipt(record.receipt) or "").encode(), record.to_json(), _headers(call))
            for record, call in zip(records, batch, strict=True)
        ]
        try:
            self._log.publish(messages)
            for call in batch:
                tracing.past_span("capture", SpanKind.PRODUCER, call.trace, call.ended_ns, time.time_ns())
            return 0
        except BrokerError as error:
            if not isinstance(error.__cause__, _TOO_LARGE):
                raise
        # One by one, since one alone would keep all others waiting.
        return sum(not self._fits(message) for message in messages)

    def _fits(self, message: Outgoing) -> bool:
        """Publish one; False if it is too large for the log."""
        try:
            self._log.publish([message])
        except BrokerError as error:
            if not isinstance(error.__cause__, _TOO_LARGE):
                raise
            self._warn(f"a captured call is larger than the topic {self._topic} takes: raise its max.message.bytes")
            return False
        return True

    def _warn(self, message: str) -> None:
        now = time.monotonic()
        if now - self._warned >= _WARN_EVERY_S:
            self._warned = now
            log.warning(message, **self.status.model_dump())


def _headers(call: Taken) -> tuple[tuple[str, bytes], ...]:
    """The headers of its record, by which consumers can go on with its trace."""
    return tuple((name, value.encode()) for name, value in call.trace.items())


def as_record(call: Taken, most_bytes: int) -> CapturedCall:
    """The call as a record of at most `most_bytes`; its longer body is cut where it would be larger."""
    request = call.request.decode(errors="replace")
    reply = _text(b"".join(call.parts), call.encoding, most_bytes)
    record = CapturedCall(
        receipt=call.receipt,
        face=call.face,
        labels=call.labels,
        authenticated=call.authenticated,
        served=call.served,
        status=call.status,
        streamed=call.streamed,
        complete=call.complete,
        cut_at=len(reply) if call.cut else None,
        began_ns=call.began_ns,
        ended_ns=max(call.began_ns, call.ended_ns),
        request=request,
        reply=reply,
    )
    while len(record.to_json()) > most_bytes:
        # Half of the longer one, so that this ends soon whatever JSON makes of the text.
        cut_at = max(len(record.request), len(record.reply)) // 2
        cut = {"request": record.request[:cut_at], "reply": record.reply[:cut_at], "cut_at": cut_at}
        record = record.model_copy(update=cut)
    return record


def _text(reply: bytes, encoding: str, most_bytes: int) -> str:
    if encoding.lower() in WINDOW_BITS:
        # Asked not to, the inference server compressed its reply. One that ends early is read as far as it goes.
        reply = zlib.decompressobj(wbits=WINDOW_BITS[encoding.lower()]).decompress(reply, 2 * most_bytes)
    return reply.decode(errors="replace")
