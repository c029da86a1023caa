"""One body for every error over HTTP, from the server that answers it to the client that reads it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Response

from streams.errors import LifecycleError, RequestRefusedError, StoreError
from streams.runtime.http_client import HttpClient
from streams.runtime.http_errors import ErrorReply, answer_errors
from streams.runtime.http_server import HttpServer, listen
from streams.runtime.processes import free_port


class Client(HttpClient):
    server = "the test's server"
    remedy = "start it"
    error = StoreError

    async def get(self, path: str) -> Response:
        return Response((await self._call("GET", path)).content)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = FastAPI()
    answer_errors(app, conflicts=(LifecycleError,), invalid=400)
    raised = {
        "store": StoreError("the disk is full"),
        "lifecycle": LifecycleError("it is retired"),
        "refused": RequestRefusedError(429, "queue_full", "ask later"),
        "http": HTTPException(400, "no SELECT", {"Retry-After": "2"}),
    }

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        raise raised[name]

    @app.get("/count")
    async def count(n: int) -> int:
        return n

    @app.get("/foreign")
    async def foreign() -> Response:
        return Response("Bad Gateway" + "!" * 1000, 502)

    port = free_port()
    server = HttpServer(uvicorn.Config(app, log_level="critical", lifespan="off"))
    running = asyncio.create_task(server.serve([listen("127.0.0.1", port, "the test's server", "nothing")]))
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await running


@pytest.mark.parametrize(
    ("path", "status", "kind", "code", "message"),
    [
        ("/raise/store", 503, "server_error", "service_unavailable", "the disk is full"),
        ("/raise/lifecycle", 409, "invalid_request_error", "conflict", "it is retired"),
        ("/raise/refused", 429, "rate_limit_error", "queue_full", "ask later"),
        ("/raise/http", 400, "invalid_request_error", "bad_request", "no SELECT"),
        ("/count?n=many", 400, "invalid_request_error", "invalid_request", "n: Input should be a valid integer"),
        ("/nowhere", 404, "invalid_request_error", "not_found", "Not Found"),
    ],
)
async def test_every_error_has_the_same_body_and_the_client_tells_its_message(
    path: str, status: int, kind: str, code: str, message: str, url: str
) -> None:
    async with Client(url, 5.0) as client:
        response = await client._http.get(path)
        error = ErrorReply.model_validate_json(response.content).error
        assert (response.status_code, error.type, error.code) == (status, kind, code)
        assert error.message.startswith(message)
        with pytest.raises(StoreError, match=f"the test's server at .* refused .* with {status}: {message}"):
            await client.get(path)


async def test_the_headers_of_an_error_are_kept(url: str) -> None:
    async with Client(url, 5.0) as client:
        assert (await client._http.get("/raise/http")).headers["Retry-After"] == "2"


async def test_the_body_of_another_server_is_told_as_far_as_it_is_short(url: str) -> None:
    async with Client(url, 5.0) as client:
        with pytest.raises(StoreError, match=r"with 502: Bad Gateway!+$") as raised:
            await client.get("/foreign")
    assert len(str(raised.value)) < 600
    assert raised.value.refused


async def test_a_server_that_is_away_is_an_error_that_says_what_to_do() -> None:
    async with Client(f"http://127.0.0.1:{free_port()}", 5.0) as client:
        words = r"the test's server at http://127.* did not answer /count: .*; start it"
        with pytest.raises(StoreError, match=words) as raised:
            await client.get("/count")
    assert not raised.value.refused


async def test_a_client_gives_up_an_idle_connection_before_any_server_closes_it() -> None:
    servers_of_others_s = 5
    server = HttpServer(uvicorn.Config(FastAPI()))
    async with Client("http://127.0.0.1:1", 5.0) as client:
        kept_s = client._http._transport._pool._keepalive_expiry  # type: ignore[attr-defined]
    assert kept_s < servers_of_others_s < server.config.timeout_keep_alive
