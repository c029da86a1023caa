"""A query without an end delays no other work: it is interrupted for any client, also one that reads slowly."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from learners.stored_rows import read_rows
from streams.errors import StoreError
from streams.intake.role import serve
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import free_port
from streams.store import limited_queries
from streams.store.api import build_api
from streams.store.client import StoreClient
from streams.store.limited_queries import LimitedQueries
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.served import served
from tests.waiting import eventually

ENDLESS = "SELECT count(*) FROM range(100000000000)"
ENDLESS_ROWS = "SELECT range AS n, repeat('x', 1000) AS text FROM range(100000000000)"


@dataclass(frozen=True)
class Limited(ServedStore):
    """A served store, and the limits it is served with."""

    queries: LimitedQueries


Serve = Callable[..., Limited]


@pytest.fixture
def serve_store(tmp_path: Path) -> Iterator[Serve]:
    """A store behind the query API, with limits of the test's own; one query at once unless the test says more."""
    with ExitStack() as stack:

        def open_(**limits: object) -> Limited:
            settings = StoreSettings.model_validate({"path": tmp_path / "store.duckdb", "queries": 1, **limits})
            store = Store.open(settings, HOLDOUT, KAFKA)
            queries = LimitedQueries(store, settings)
            return Limited(store, stack.enter_context(served(build_api(store, queries), lifespan="off")), queries)

        yield open_


@asynccontextmanager
async def asking(store: Limited, sql: str) -> AsyncIterator["asyncio.Task[httpx.Response]"]:
    """A query that is running meanwhile."""
    async with httpx.AsyncClient(base_url=store.url, timeout=60) as http:
        task = asyncio.create_task(http.post("/query", json={"sql": sql}))
        await eventually(lambda: store.queries.running, "the query runs")
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def answered(store: ServedStore, sql: str = "SELECT 1") -> bool:
    async with httpx.AsyncClient(base_url=store.url, timeout=60) as http:
        return (await http.post("/query", json={"sql": sql})).status_code == 200


async def test_a_query_that_takes_too_long_is_interrupted_and_told_the_limit_and_its_setting(
    serve_store: Serve,
) -> None:
    store = serve_store(query_timeout_s=0.5)
    async with httpx.AsyncClient(base_url=store.url, timeout=60) as http:
        answer = await http.post("/query", json={"sql": ENDLESS})
    assert answer.status_code == 504
    error = answer.json()["error"]
    assert error["code"] == "query_timeout"
    assert "0.5 s" in error["message"]
    assert "store.query_timeout_s" in error["message"]
    assert await answered(store)


async def test_a_query_is_interrupted_when_its_client_leaves(serve_store: Serve) -> None:
    store = serve_store(query_timeout_s=3600)
    async with httpx.AsyncClient(base_url=store.url, timeout=0.5) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/query", json={"sql": ENDLESS})
    await eventually(lambda: answered(store), "the only turn is free again")


async def test_a_query_is_interrupted_when_its_client_leaves_in_the_middle_of_its_rows(serve_store: Serve) -> None:
    store = serve_store(query_timeout_s=3600)
    async with (
        httpx.AsyncClient(base_url=store.url, timeout=60) as http,
        http.stream("POST", "/query", json={"sql": ENDLESS_ROWS}) as answer,
    ):
        await anext(answer.aiter_bytes())
    await eventually(lambda: answered(store), "the only turn is free again")


async def test_events_are_stored_while_a_query_runs(serve_store: Serve) -> None:
    store = serve_store(query_timeout_s=3600)
    async with asking(store, ENDLESS) as running:
        events = episode("meanwhile", TASKS[Split.TRAIN][0])
        await asyncio.to_thread(Log(store.store).publish, *events)
        async with StoreClient(store.url) as client:
            assert sum((await client.status()).events.values()) == len(events)
        assert not running.done()


async def test_more_queries_than_may_run_are_told_to_come_back(
    serve_store: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_queries, "LONGEST_WAIT_S", 0.2)
    store = serve_store(query_timeout_s=3600)
    async with asking(store, ENDLESS), httpx.AsyncClient(base_url=store.url, timeout=60) as http:
        answer = await http.post("/query", json={"sql": "SELECT 1"})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "store.queries" in answer.json()["error"]["message"]
    await eventually(lambda: answered(store))


async def test_a_result_larger_than_the_memory_is_streamed(serve_store: Serve) -> None:
    store = serve_store()
    process = psutil.Process(os.getpid())
    size = most = 0
    before = process.memory_info().rss
    async with (
        httpx.AsyncClient(base_url=store.url, timeout=60) as http,
        http.stream("POST", "/query", json={"sql": ENDLESS_ROWS.replace("100000000000", "400000")}) as answer,
    ):
        async for part in answer.aiter_bytes():
            size += len(part)
            most = max(most, process.memory_info().rss - before)
    assert size > 400_000_000
    assert most < 200_000_000
    assert await answered(store)


async def test_an_answer_larger_than_allowed_is_refused_or_cut_and_is_never_a_part_of_the_rows(
    serve_store: Serve,
) -> None:
    store = serve_store(query_bytes=20_000_000)
    async with httpx.AsyncClient(base_url=store.url, timeout=60) as http:
        wide = await http.post("/query", json={"sql": "SELECT repeat('x', 100000) FROM range(2000)"})
        assert (wide.status_code, wide.json()["error"]["code"]) == (413, "answer_too_large")
        assert "store.query_bytes" in wide.json()["error"]["message"]
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post("/query", json={"sql": ENDLESS_ROWS})
    assert await answered(store)


async def test_those_who_leave_while_they_wait_for_a_turn_keep_nobody_from_waiting(
    serve_store: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_queries, "MOST_WAITING", 3)
    store = serve_store(query_timeout_s=3600)
    async with asking(store, ENDLESS) as running:
        async with httpx.AsyncClient(base_url=store.url, timeout=0.5) as http:
            left = [http.post("/query", json={"sql": ENDLESS, "timeout_s": 3600}) for _ in range(3)]
            answers = await asyncio.gather(*left, return_exceptions=True)
        assert {type(answer) for answer in answers} == {httpx.ReadTimeout}
        async with httpx.AsyncClient(base_url=store.url, timeout=60) as http:
            tried: list[asyncio.Task[httpx.Response]] = []

            async def waits() -> bool:
                tried.append(asyncio.create_task(http.post("/query", json={"sql": "SELECT 1", "timeout_s": 50})))
                await asyncio.wait({tried[-1]}, timeout=1)
                return not tried[-1].done()

            await eventually(waits, "the store notices that they left")
            running.cancel()
            assert (await tried[-1]).status_code == 200


async def test_with_45_queries_without_an_end_events_are_stored_and_the_role_answers(serve_store: Serve) -> None:
    store = serve_store(queries=4, query_timeout_s=3600)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=store.url, timeout=120, limits=limits) as hostile:
        body = {"sql": ENDLESS, "timeout_s": 3600}
        asked = [asyncio.create_task(hostile.post("/query", json=body)) for _ in range(45)]
        await eventually(lambda: store.queries.running == 4, "as many run as may")
        events = episode("meanwhile", TASKS[Split.TRAIN][0])
        await asyncio.to_thread(Log(store.store).publish, *events)
        async with httpx.AsyncClient(base_url=store.url, timeout=60) as http, StoreClient(store.url) as client:
            assert (await http.get("/healthz")).status_code == 200
            assert sum((await client.status()).events.values()) == len(events)
        assert not any(task.done() for task in asked)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    await eventually(lambda: store.queries.running == 0, "all were interrupted when their clients left")
    assert await answered(store)


async def test_rows_that_are_sent_for_too_long_end_in_an_error_and_not_in_a_part_of_them(serve_store: Serve) -> None:
    store = serve_store(query_timeout_s=1)
    async with (
        httpx.AsyncClient(base_url=store.url, timeout=60) as http,
        http.stream("POST", "/query", json={"sql": ENDLESS_ROWS}) as answer,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(part async for part in answer.aiter_bytes() if not part)
    assert await answered(store)


async def test_a_client_that_does_not_read_its_rows_does_not_keep_its_turn(serve_store: Serve) -> None:
    store = serve_store(query_timeout_s=1)
    body = f'{{"sql": "{ENDLESS_ROWS}"}}'.encode()
    lines = (
        b"POST /query HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    )
    url = httpx.URL(store.url)
    with socket.create_connection((url.host, url.port or 0)) as silent:
        silent.sendall(b"\r\n".join((*lines, b"", body)))
        await eventually(lambda: store.queries.running, "the query runs")
        await eventually(lambda: answered(store), "the only turn is free again")


async def test_a_query_may_bring_a_longer_time_of_its_own(serve_store: Serve) -> None:
    store = serve_store(query_timeout_s=0.3)
    long = "SELECT count(*) AS n FROM range(400000000)"
    async with StoreClient(store.url) as client:
        with pytest.raises(StoreError, match=r"store\.query_timeout_s"):
            await client.query(ENDLESS)
        assert (await client.query(long, timeout_s=60))["n"].to_pylist() == [400_000_000]
        with pytest.raises(StoreError, match="timeout_s"):
            await client.query("SELECT 1", timeout_s=10**6)


async def test_what_a_snapshot_reads_waits_for_its_turn_and_has_its_own_time(
    serve_store: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_queries, "LONGEST_WAIT_S", 0.1)
    store = serve_store(query_timeout_s=2)
    Log(store.store).publish(*episode("one", TASKS[Split.TRAIN][0]))
    async with asking(store, ENDLESS), StoreClient(store.url) as client:
        assert (await read_rows(client, None, 100)).steps


@pytest.mark.slow
async def test_the_record_role_ends_while_a_query_runs(
    kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_queries, "LONGEST_WAIT_S", 0.1)
    settings = StoreSettings(path=tmp_path / "store.duckdb", port=free_port(), query_timeout_s=3600, queries=1)
    stop = asyncio.Event()
    role = asyncio.create_task(serve(kafka, settings, HoldoutSettings(), stop))
    url = f"http://127.0.0.1:{settings.port}"
    async with StoreClient(url) as client, httpx.AsyncClient(base_url=url, timeout=60) as http:
        await eventually(client.status, "the role answers", errors=(StoreError,))
        running = asyncio.create_task(http.post("/query", json={"sql": ENDLESS}))

        async def is_taken() -> bool:
            return (await http.post("/query", json={"sql": "SELECT 1"})).status_code == 503

        await eventually(is_taken, "the query runs")
        stop.set()
        async with asyncio.timeout(60):
            await role
        assert (await running).status_code == 503
