"""Queries of the query API: a few at once, each for a limited time, and no longer than its client listens.

A query that ends for one of these reasons is interrupted in DuckDB. Its rows are streamed, so that a result may be
larger than the memory; the store's writer is not held up by any of it.
"""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import pyarrow as pa
import structlog
from fastapi import HTTPException, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from streams.access.tokens import RowFilter
from streams.errors import RequestRefusedError, StoreError
from streams.store.database import Parameter, RunningQuery
from streams.store.filtered_queries import FilteredQuery
from streams.store.settings import StoreSettings
from streams.store.writer import Store

log = structlog.get_logger()

T = TypeVar("T")

ARROW_STREAM = "application/vnd.apache.arrow.stream"
# A query waits this long for its turn, unless it brought a time of its own; so many may wait.
LONGEST_WAIT_S = 5.0
MOST_WAITING = 64
RETRY_AFTER_S = 5
_LOOK_EVERY_S = 0.1
_CLIENT_LEFT = 499


class LimitedQueries:
    """Answers queries over HTTP within the limits of the settings. `stop` ends those that run."""

    def __init__(self, store: Store, settings: StoreSettings) -> None:
        self._store = store
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.queries)
        self._waiting = 0
        self.running = 0
        # The writer's threads are others: it must not wait for a thread that runs a query.
        self._threads = ThreadPoolExecutor(settings.queries, thread_name_prefix="query")
        self._stopped = asyncio.Event()

    async def stop(self) -> None:
        """Interrupt what runs, and refuse what comes; return when nothing runs any more."""
        self._stopped.set()
        for _ in range(self._settings.queries):
            await self._turns.acquire()
        self._threads.shutdown(wait=False)

    async def answer(
        self,
        request: Request,
        sql: str,
        parameters: Mapping[str, Parameter],
        timeout_s: float | None,
        rows: RowFilter | None = None,
    ) -> Response:
        """The rows of one SELECT as an Arrow stream. `timeout_s` takes the place of the setting.

        Of the tables it sees the `rows` alone that its client may read.

        Raises `HTTPException` for a query that is refused or fails, and `RequestRefusedError` for one that takes too
        long; behind its first rows the connection is cut instead.
        """
        deadline = time.monotonic() + (timeout_s or self._settings.query_timeout_s)
        try:
            await self._take_turn(request, time.monotonic() + (timeout_s or LONGEST_WAIT_S))
        except _ClientLeftError:
            return Response(status_code=_CLIENT_LEFT)
        query = self._store.begin_query()
        own = query if rows is None else FilteredQuery(query, rows, self._settings.memory)
        running = _Running(own, self._threads, self._give_turn)
        try:
            watch = _Watch(request, deadline, self._stopped)
            schema = await running.call(lambda query: query.start(sql, parameters), watch)
            first = await running.call(RunningQuery.next_rows, watch)
            second = await running.call(RunningQuery.next_rows, watch)
        except BaseException as error:
            await running.end()
            if isinstance(error, _TooLongError):
                raise self._took_too_long(timeout_s) from error
            if isinstance(error, StoreError):
                raise HTTPException(400, str(error)) from error
            if isinstance(error, _ClientLeftError):
                return Response(status_code=_CLIENT_LEFT)
            raise
        encoder = _Encoder(schema, self._settings.query_bytes)
        try:
            beginning = b"".join(encoder.encode(rows) for rows in (first, second) if rows is not None)
        except StoreError as error:
            await running.end()
            raise RequestRefusedError(413, "answer_too_large", str(error)) from error
        if second is None:
            await running.end()
            return Response(beginning + encoder.end(), media_type=ARROW_STREAM)

        async def body() -> AsyncIterator[bytes]:
            yield beginning
            while (rows := await running.call(RunningQuery.next_rows)) is not None:
                yield encoder.encode(rows)
            yield encoder.end()

        return _LimitedStream(body(), running, deadline, self._stopped)

    async def _take_turn(self, request: Request, deadline: float) -> None:
        """Return when fewer queries run than may.

        Raises `HTTPException` when that takes too long, and `_ClientLeftError` when nobody waits for it any more.
        """
        if self._stopped.is_set() or (self._turns.locked() and self._waiting >= MOST_WAITING):
            raise self._busy()
        if not self._turns.locked():
            await self._turns.acquire()  # without waiting
            self.running += 1
            return
        self._waiting += 1
        turn = asyncio.ensure_future(self._turns.acquire())
        try:
            watch = _Watch(request, deadline, self._stopped)
            while not (await asyncio.wait({turn}, timeout=_LOOK_EVERY_S))[0]:
                await watch.check()
        except BaseException as error:
            if not turn.cancel() and not turn.cancelled():
                self._turns.release()
            if isinstance(error, _TooLongError):
                raise self._busy() from error
            raise
        finally:
            self._waiting -= 1
        self.running += 1

    def _give_turn(self) -> None:
        self.running -= 1
        self._turns.release()

    def _busy(self) -> HTTPException:
        text = f"{self._settings.queries} queries run, as many as store.queries allows; ask again in a few seconds"
        return HTTPException(503, text, headers={"Retry-After": str(RETRY_AFTER_S)})

    def _took_too_long(self, timeout_s: float | None) -> RequestRefusedError:
        limit = f"the {timeout_s:g} s that it asked for" if timeout_s else f"{self._settings.query_timeout_s:g} s"
        return RequestRefusedError(
            504,
            "query_timeout",
            f"the query took longer than {limit} and was interrupted: ask for less, or raise store.query_timeout_s "
            "(RATCHET_STORE__QUERY_TIMEOUT_S)",
        )


class _TooLongError(StoreError):
    """The time of a query is over."""


class _ClientLeftError(StoreError):
    """Nobody waits for the answer."""


class _Watch:
    """Says when a query must end."""

    def __init__(self, request: Request, deadline: float, stopped: asyncio.Event) -> None:
        self._request = request
        self._deadline = deadline
        self._stopped = stopped

    async def check(self) -> None:
        if self._stopped.is_set():
            raise HTTPException(503, "the record role is ending; ask again once it is back")
        if time.monotonic() > self._deadline:
            raise _TooLongError("the query took too long")
        if await self._request.is_disconnected():
            raise _ClientLeftError("the client left")


class _Running:
    """A query in DuckDB, worked by one thread at a time. `end` must be called, once."""

    def __init__(self, query: RunningQuery, threads: ThreadPoolExecutor, ended: Callable[[], None]) -> None:
        self._query = query
        self._threads = threads
        self._ended = ended
        self._work: asyncio.Future[Any] | None = None

    async def call(self, do: Callable[[RunningQuery], T], watch: _Watch | None = None) -> T:
        """Have a thread do something with the query; `watch` is asked meanwhile if it is to go on."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, do, self._query)
        self._work = work
        while watch is not None and not (await asyncio.wait({work}, timeout=_LOOK_EVERY_S))[0]:
            await watch.check()
        return await asyncio.shield(work)

    async def end(self) -> None:
        """Interrupt what still runs, and make room for the next query."""
        await asyncio.shield(asyncio.ensure_future(self._end()))

    async def _end(self) -> None:
        try:
            while self._work is not None and not self._work.done():
                # One that comes just before a statement begins does nothing.
                self._query.interrupt()
                await asyncio.wait({self._work}, timeout=_LOOK_EVERY_S)
            if self._work is not None and not self._work.cancelled():
                self._work.exception()  # its reader has it, or has left
            await asyncio.get_running_loop().run_in_executor(self._threads, self._query.close)
        finally:
            self._ended()


class _LimitedStream(StreamingResponse):
    """Rows as they come. The connection is cut when the time is over, so that nobody takes a part for the whole."""

    def __init__(self, body: AsyncIterator[bytes], running: _Running, deadline: float, stopped: asyncio.Event) -> None:
        super().__init__(body, media_type=ARROW_STREAM)
        self._running = running
        self._deadline = deadline
        self._stopped = stopped

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(super().__call__(scope, receive, send))
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            left = max(0.0, self._deadline - time.monotonic())
            done, _ = await asyncio.wait({sending, stopped}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if sending not in done:
                log.warning("a query was interrupted while its rows were sent", took_too_long=stopped not in done)
                raise StoreError("the rows of a query took longer to send than store.query_timeout_s allows")
            sending.result()
        finally:
            for each in (sending, stopped):
                each.cancel()
                with suppress(asyncio.CancelledError, StoreError):
                    await each
            await self._running.end()


class _Encoder:
    """Record batches as the bytes of one Arrow stream. Raises `StoreError` when these are more than `limit`."""

    def __init__(self, schema: pa.Schema, limit: int) -> None:
        self._left = limit
        self._limit = limit
        self._sink = io.BytesIO()
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def encode(self, rows: pa.RecordBatch) -> bytes:
        """The bytes that follow on those that were given before; the first begin with the schema."""
        self._writer.write_batch(rows)
        return self._taken()

    def end(self) -> bytes:
        """The last bytes of the stream."""
        self._writer.close()
        return self._taken()

    def _taken(self) -> bytes:
        taken = self._sink.getvalue()
        self._left -= len(taken)
        if self._left < 0:
            raise StoreError(
                f"the answer is larger than {self._limit} bytes: ask for less, or raise store.query_bytes "
                "(RATCHET_STORE__QUERY_BYTES)"
            )
        self._sink.seek(0)
        self._sink.truncate()
        return taken
