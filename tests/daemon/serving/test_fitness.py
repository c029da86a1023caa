"""What an inference server must be before it gets requests, and what becomes of those at one that is gone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI, Response

from daemon.registry.registry import Registry
from tests.builders.asking import CHAT, replicas
from tests.daemon.conftest import serve_role
from tests.served import served
from tests.waiting import eventually


def vllm(version: str, key: str = "", name: str = "base") -> FastAPI:
    """A double of a vLLM that is too old, is named otherwise, or asks for a key in the middle of its life."""
    app = FastAPI()

    @app.get("/version")
    def tell() -> dict[str, str]:
        return {"version": version}

    @app.get("/v1/models")
    def models() -> dict[str, object]:
        return {"data": [{"id": name, "root": name, "parent": None, "owned_by": "vllm"}]}

    @app.post("/v1/chat/completions")
    def refuse() -> Response:
        return Response(b'{"error":"Unauthorized"}', 401, media_type="application/json")

    return app


@pytest.fixture
def unauthorised() -> Iterator[str]:
    with served(vllm("0.32.0")) as address:
        yield address


async def test_a_401_of_the_server_is_not_the_agents_and_names_the_setting(
    unauthorised: str, registry: Registry
) -> None:
    async with serve_role(registry, unauthorised) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 502
        assert "engine.api_key" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("version", "name", "words"),
    [
        ("0.24.1", "base", "vLLM 0.24.1 gives requests in flight another adapter"),
        ("0.32.0", "my-model", "has no model 'base', there are: my-model; set engine.base_name"),
    ],
)
async def test_a_server_that_is_not_fit_serves_nothing_and_status_and_health_say_why(
    version: str, name: str, words: str, registry: Registry
) -> None:
    with served(vllm(version, name=name)) as address:
        async with serve_role(registry, address, waits=False) as client:

            async def is_told() -> bool:
                return words in (await replicas(client))[0]["reason"]

            await eventually(is_told)
            assert (await client.get("/status")).json()["served"] is None
            assert words in (await client.get("/readyz")).json()["reasons"]["engine"]
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


@asynccontextmanager
async def going() -> AsyncIterator[tuple[str, asyncio.Server]]:
    """A double of a server that is going down: it keeps its connections, and never answers what it was asked."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"POST"):
                begun = b"stream" in await reader.read(65536)
                kind = b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n"
                writer.write(b"HTTP/1.1 200 OK\r\n" + kind if begun else b"")
                await writer.drain()
                continue
            body = b'{"data": [{"id": "base"}]}'
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body)
            writer.close()
            return

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()), server
    finally:
        server.close()


async def test_requests_at_a_server_that_is_gone_do_not_wait_for_it(registry: Registry) -> None:
    async with going() as (address, server), serve_role(registry, address) as client:
        waiting = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        async with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as begun:
            parts = begun.aiter_raw()
            assert await anext(parts) == b"data:"

            async def both_wait() -> bool:
                return bool((await replicas(client))[0]["in_flight"] == 2)

            await eventually(both_wait)
            server.close()
            answer = await waiting
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(parts)
        assert "did not answer" in (await replicas(client))[0]["reason"]
