"""Passes one request on to the inference server and the answer back, and hands what passed to the capture."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from daemon.serving.call_metrics import Failure
from daemon.serving.capture import Capture, Taken
from daemon.serving.headers import RawHeaders
from daemon.serving.refusals import Refused, error_event
from daemon.serving.replicas import Replica
from daemon.serving.reply import Reply
from daemon.serving.response_ids import ResponseId
from daemon.serving.upstream import Answer, NoReplicaError, Question, Upstream, UpstreamError, UpstreamTimeoutError
from daemon.serving.upstream_errors import has_lost, is_json_object
from ratchet_client.error_body import error_message
from ratchet_client.receipts import RECEIPT_HEADER
from streams.calls.labels import ResponseKeys
from streams.calls.records import CallLabels, Face, key_of_receipt
from streams.runtime import tracing

log = structlog.get_logger()

_UNAUTHORIZED = 401
RECEIPT = RECEIPT_HEADER.encode()
ADAPTER = b"x-ratchet-adapter"
_UNREACHABLE = "the inference server is not reachable; try again soon"


class _LostError(Exception):
    """`replica` does not have the model that it was asked for."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica.url)
        self.replica = replica


@dataclass(slots=True)
class _Attempts:
    """The servers that a request is not sent to again: they have `lost` its model, or `broken` the connection."""

    lost: list[Replica] = field(default_factory=list)
    broken: list[Replica] = field(default_factory=list)

    @property
    def all(self) -> list[Replica]:
        return [*self.lost, *self.broken]


@dataclass(slots=True)
class Recording:
    """The record of a call while it passes; `most_bytes` of the reply at most."""

    capture: Capture
    keys: ResponseKeys
    receipt: str
    face: Face
    labels: CallLabels
    authenticated: bool
    request: bytes
    began_ns: int = field(default_factory=time.time_ns)
    trace: Mapping[str, str] = field(default_factory=tracing.context)
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0
    _cut: bool = False
    _id: ResponseId = field(default_factory=ResponseId)

    def add(self, part: bytes) -> None:
        if self.face is Face.RESPONSES and (found := self._id.find(part)) is not None:
            self.keys.remember(found, key_of_receipt(self.receipt) or "")
        if self._cut or self._size + len(part) > self.capture.settings.max_record_bytes:
            self._cut = True
            return
        self._parts.append(part)
        self._size += len(part)

    def take(self, answer: Answer, served: str, streamed: bool, complete: bool) -> None:
        self.capture.take(
            Taken(
                receipt=self.receipt,
                face=self.face,
                labels=self.labels,
                authenticated=self.authenticated,
                served=served,
                status=answer.status,
                streamed=streamed,
                complete=complete,
                encoding=answer.encoding,
                began_ns=self.began_ns,
                ended_ns=time.time_ns(),
                request=self.request,
                parts=self._parts,
                cut=self._cut,
                trace=self.trace,
            )
        )


class Watches(Protocol):
    """Is told the parts of a reply, and once at its end whether the inference server failed.

    It is not told the end of a call whose client left, nor that the server could not be reached or has lost the model.
    """

    def add(self, part: bytes) -> None: ...

    def end(self, *, failed: bool) -> None: ...


async def pass_on(
    question: Question, upstream: Upstream, reply: Reply, recording: Recording | None, watch: Watches | None = None
) -> None:
    """Answer with what an inference server answers; calls that succeed are recorded.

    A call whose server goes before the client has any of the answer is sent to one other server. Only one: it may be
    what ends them. Raises `Refused` where none answers at all, or has the model.
    """
    attempts = _Attempts()
    while not await _passed_on(question, upstream, reply, recording, watch, attempts):
        pass


async def _passed_on(
    question: Question,
    upstream: Upstream,
    reply: Reply,
    recording: Recording | None,
    watch: Watches | None,
    attempts: _Attempts,
) -> bool:
    """Do so at one of the servers but those of `attempts`; False where it is one more, so that others may be asked."""
    began = False
    try:
        async with upstream.ask(question, attempts.all) as answer:
            began = True
            is_stream = answer.media_type == "text/event-stream" or question.asks_for_stream
            if is_stream and answer.status < 300:
                await _stream(question, answer, reply, recording, watch)
            else:
                await _whole(question, answer, reply, recording, watch)
        return True
    except _LostError as error:
        log.warning("an inference server has lost an adapter", served=question.served, url=error.replica.url)
        upstream.replicas.lost(error.replica, question.served or "")
        attempts.lost.append(error.replica)
        return False
    except NoReplicaError as error:
        if attempts.lost or upstream.replicas.usable():
            reply.passage.failure = Failure.LOST_ADAPTER
            raise Refused(503, "the serving adapter is being loaded again; try again soon") from error
        reply.passage.failure = Failure.UNREACHABLE
        log.warning("no inference server answers", path=question.path, error=str(error))
        raise Refused(503, _UNREACHABLE) from error
    except UpstreamTimeoutError as error:
        if watch is not None:
            watch.end(failed=True)
        reply.passage.failure = Failure.TIMEOUT
        log.warning("the inference server did not answer in time", path=question.path, served=question.served)
        raise Refused(504, "the inference server did not answer in time; try again, or ask for less") from error
    except UpstreamError as error:
        if reply.status is None and _may_go_elsewhere(question, upstream, error.replica, attempts):
            log.warning("a request is sent to another inference server", path=question.path, error=str(error))
            return False
        if watch is not None and began:
            watch.end(failed=True)
        reply.passage.failure = Failure.BROKEN_OFF if began else Failure.UNREACHABLE
        log.warning("the inference server did not answer", path=question.path, error=str(error))
        raise Refused(503, _UNREACHABLE) from error


def _may_go_elsewhere(question: Question, upstream: Upstream, broke: Replica | None, attempts: _Attempts) -> bool:
    """Return whether a call can be sent to another server than the one that `broke` off; it is noted then.

    A request about an earlier response is for the server that has it.
    """
    if broke is None or attempts.broken or question.served is None:
        return False
    without = [*attempts.all, broke]
    if upstream.replicas.choose(question.served, question.key, without, pinned=question.pinned) is None:
        return False
    attempts.broken.append(broke)
    upstream.replicas.changed.set()
    return True


async def _whole(
    question: Question, answer: Answer, reply: Reply, recording: Recording | None, watch: Watches | None
) -> None:
    content = await answer.whole()
    try:
        await _whole_content(question, answer, content, reply, recording)
    finally:
        if watch is not None and not _is_lost(question, answer, content):
            if answer.status < 300:
                watch.add(content)
            watch.end(failed=answer.status >= 500)


async def _whole_content(
    question: Question, answer: Answer, content: bytes, reply: Reply, recording: Recording | None
) -> None:
    if answer.status >= 400:
        await _failed(question, answer, content, reply)
        return
    if not answer.encoding:
        reply.passage.add(content)
    if recording is None or answer.status >= 300:
        await reply.whole(answer.status, _marked(answer.headers, question.served, None), content)
        return
    recording.add(content)
    try:
        await reply.whole(answer.status, _marked(answer.headers, question.served, recording.receipt), content)
    finally:
        recording.take(answer, question.served or "", streamed=False, complete=True)


async def _stream(
    question: Question, answer: Answer, reply: Reply, recording: Recording | None, watch: Watches | None
) -> None:
    complete = False
    receipt = recording.receipt if recording else None
    try:
        await reply.begin(answer.status, _marked(answer.headers, question.served, receipt))
        async for part in answer.parts():
            reply.passage.begin()
            if not answer.encoding:
                reply.passage.add(part)
            if recording is not None:
                recording.add(part)
            if watch is not None:
                watch.add(part)
            await reply.part(part)
        complete = True
        if watch is not None:
            watch.end(failed=False)
        await reply.end()
    except UpstreamError as error:
        timed_out = isinstance(error, UpstreamTimeoutError)
        reply.passage.failure = Failure.TIMEOUT if timed_out else Failure.BROKEN_OFF
        log.warning("the inference server did not finish a reply", path=question.path, error=str(error))
        if watch is not None:
            watch.end(failed=True)
        # The status line has long been sent, so the error is an event.
        message = "the inference server did not finish its reply; try again soon"
        await reply.end(error_event(question.path, 503, message))
    finally:
        if recording is not None:
            recording.take(answer, question.served or "", streamed=True, complete=complete)


async def _failed(question: Question, answer: Answer, content: bytes, reply: Reply) -> None:
    if _is_lost(question, answer, content):
        raise _LostError(answer.replica)
    if answer.status == _UNAUTHORIZED:
        reply.passage.failure = Failure.SERVER_ERROR
        log.error("the inference server refuses the key", url=answer.replica.url, remedy="set engine.api_key")
        raise Refused(502, "the inference server refuses Ratchet's key: its operator must set engine.api_key")
    if answer.status >= 500:
        reply.passage.failure = Failure.SERVER_ERROR
    headers = _marked(answer.headers, question.served, None)
    if answer.encoding or is_json_object(content):
        await reply.whole(answer.status, headers, content)
        return
    log.warning("the inference server failed", path=question.path, served=question.served, status=answer.status)
    kept = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers
        if name not in (b"content-type", b"set-cookie")
    }
    raise Refused(answer.status, f"the inference server failed: {error_message(content)}", headers=kept)


def _is_lost(question: Question, answer: Answer, content: bytes) -> bool:
    served = question.served
    return answer.status == 404 and bool(served) and has_lost(answer.replica.name_there(served or ""), content)


def _marked(headers: RawHeaders, served: str | None, receipt: str | None) -> RawHeaders:
    if served is not None:
        headers = [*headers, (ADAPTER, served.encode())]
    return headers if receipt is None else [*headers, (RECEIPT, receipt.encode())]
