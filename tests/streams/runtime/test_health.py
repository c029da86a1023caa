"""The health of a role over HTTP: alive at once, ready with reasons, also while what it asks hangs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import httpx
import pytest

from streams.runtime import health
from streams.runtime.health import Check, Readiness, Version, answers, health_app, health_listener, reachable
from streams.runtime.http_server import listen
from streams.runtime.processes import free_port
from streams.store.migrations import SCHEMA


@asynccontextmanager
async def listening(**checks: Check) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a listener with these checks."""
    port = free_port()
    async with (
        health_listener("branch", health_app("branch", checks), "127.0.0.1", port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield client


async def readiness(client: httpx.AsyncClient) -> tuple[int, Readiness]:
    answer = await client.get("/readyz")
    return answer.status_code, Readiness.model_validate(answer.json())


async def good() -> str:
    return ""


async def bad() -> str:
    return "it is full"


async def broken() -> str:
    raise OSError("the disk is gone")


async def test_a_role_is_ready_when_every_component_is() -> None:
    async with listening(store=good, log=good) as client:
        assert await readiness(client) == (200, Readiness(ready=True, reasons={}))


async def test_each_component_that_is_not_ready_is_named_with_its_reason() -> None:
    async with listening(store=bad, log=good, disk=broken) as client:
        expected = Readiness(ready=False, reasons={"store": "it is full", "disk": "the disk is gone"})
        assert await readiness(client) == (503, expected)


@pytest.mark.slow
async def test_what_hangs_is_named_and_asked_once_and_found_ready_when_it_goes_on() -> None:
    asked, goes_on = 0, asyncio.Event()

    async def hanging() -> str:
        nonlocal asked
        asked += 1
        await goes_on.wait()
        return ""

    async with listening(store=hanging, log=good) as client:
        for _ in range(2):
            status, found = await readiness(client)
            assert (status, list(found.reasons)) == (503, ["store"])
            assert f"within {health.PATIENCE_S:g} s" in found.reasons["store"]
            assert (await client.get("/healthz")).status_code == 200
        assert asked == 1
        goes_on.set()
        assert await readiness(client) == (200, Readiness(ready=True, reasons={}))


async def test_the_version_is_that_of_the_package_and_of_its_formats() -> None:
    async with listening() as client:
        told = Version.model_validate((await client.get("/version")).json())
    assert told.version == version("ratchetd")
    assert told.schemas == {
        "events": 2,
        "calls": 1,
        "store": SCHEMA,
        "assembly": 1,
        "snapshots": 4,
        "tokens": 1,
        "backups": 1,
    }


async def test_a_role_goes_on_where_the_port_of_its_health_is_taken() -> None:
    port = free_port()
    with listen("127.0.0.1", port, "another worker", "NONE"):
        async with health_listener("branch", health_app("branch", {}), "127.0.0.1", port):
            pass


async def test_another_role_that_is_not_ready_passes_its_reasons_on() -> None:
    async with listening(log=bad) as client:
        url = str(client.base_url)
        assert await answers(f"{url}/healthz")() == ""
        assert "it is full" in await answers(f"{url}/readyz")()
    assert "did not answer" in await answers(f"{url}/healthz")()


async def test_a_cluster_is_reachable_when_one_of_its_brokers_is() -> None:
    there, away = free_port(), free_port()
    with listen("127.0.0.1", there, "a broker", "NONE"):
        assert await reachable(f"127.0.0.1:{away}, 127.0.0.1:{there}")() == ""
    assert f"127.0.0.1:{away}" in await reachable(f"127.0.0.1:{away}")()
    assert "no broker" in await reachable("")()
