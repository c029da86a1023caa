"""The endpoint that production agents talk to: OpenAI's API with one model name, the alias, that never changes.

Which adapter answers is decided at the moment a request arrives, and the reply's `model` says which one it was.
"""

import asyncio
import json
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import httpx
import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import Counter as RequestCounter
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from daemon.registry.schemas import BASE
from streams.errors import RequestRefusedError
from streams.runtime.http_bodies import read_json
from streams.runtime.http_client import error_message
from streams.runtime.http_errors import UNEXPECTED, error_reply, error_response

log = structlog.get_logger()

RETRY_AFTER_S = 2
_CLIENT_CLOSED_REQUEST = 499  # nginx's code; the client is gone
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"]


class Alias:
    """The name agents use, what stands behind it, and the requests in flight. Belongs to one event loop.

    `served` is the name at the inference server; None until the champion was brought up.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.adapter = BASE
        self.served: str | None = None
        self._in_flight: Counter[str] = Counter()
        self._draining: dict[str, asyncio.Event] = {}

    def point_to(self, adapter: str, served: str) -> None:
        """From now on requests go to `served`. Those in flight end where they began."""
        self.adapter, self.served = adapter, served

    def begin(self, served: str) -> None:
        self._in_flight[served] += 1

    def end(self, served: str) -> None:
        self._in_flight[served] -= 1
        if not self._in_flight[served] and served in self._draining:
            self._draining.pop(served).set()

    def in_flight(self, served: str) -> int:
        return self._in_flight[served]

    async def drained(self, served: str, timeout_s: float) -> bool:
        """Wait until no request is in flight to `served`, which must get no new ones; False when the time ran out."""
        if not self._in_flight[served]:
            return True
        empty = self._draining.setdefault(served, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await empty.wait()
        except TimeoutError:
            return False
        return True


def gateway_router(alias: Alias, inference: httpx.AsyncClient, requests: RequestCounter) -> APIRouter:
    """Routes that pass completions on to the inference server at the other end of `inference`.

    `requests` counts every completion and every request below `/v1` that has no route, by the status of its answer.
    """
    router = APIRouter()
    card = {"id": alias.name, "object": "model", "created": int(time.time()), "owned_by": "ratchet"}

    async def counted(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            response = await answer(request)
        except ClientDisconnect:
            response = Response(status_code=_CLIENT_CLOSED_REQUEST)  # for the count; its client has left
        except RequestRefusedError as error:
            response = error_response(error.status, str(error), error.code)
        except Exception:  # noqa: BLE001 - whatever it is, it is logged, answered and counted
            # Not `log.exception`, which would show local variables: what agents say.
            trace = traceback.format_exc()
            log.error("a request failed unexpectedly", path=request.url.path, exception=trace)
            response = error_response(500, UNEXPECTED)
        requests.labels(status=str(response.status_code)).inc()
        return response

    async def not_served(request: Request) -> Response:
        return _unknown(request.path_params["name"], alias)

    @router.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [card]})

    @router.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        if not name:
            return RedirectResponse(request.url.replace(path="/v1/models"))
        return JSONResponse(card) if name == alias.name else await counted(request, not_served)

    @router.post("/v1/chat/completions")
    @router.post("/v1/completions")
    async def complete(request: Request) -> Response:
        return await counted(request, lambda each: _complete(each, alias, inference))

    routes = [route for route in router.routes if isinstance(route, APIRoute)]

    @router.api_route("/v1", methods=_METHODS)
    @router.api_route("/v1/{rest:path}", methods=_METHODS)
    async def unrouted(request: Request) -> Response:
        return await counted(request, lambda each: _unrouted(each, routes))

    return router


async def _unrouted(request: Request, routes: Sequence[APIRoute]) -> Response:
    """The answer to a path or a method that is none of `routes`."""
    method, path = request.method, request.url.path
    allowed = sorted(
        name for route in routes if route.matches(request.scope)[0] is Match.PARTIAL for name in route.methods or ()
    )
    if allowed:
        names = ", ".join(allowed)
        return error_response(405, f"{path} does not take {method}; use {names}", headers={"Allow": names})
    shorter = request.url.replace(path=path.rstrip("/"))
    if shorter.path in {route.path for route in routes}:
        return RedirectResponse(shorter)
    return error_response(404, f"{method} {path:.100} not found; there are {', '.join(route.path for route in routes)}")


async def _complete(request: Request, alias: Alias, inference: httpx.AsyncClient) -> Response:
    body = read_json(await request.body())
    if not isinstance(body, dict):
        return _refusal(400, "the request's body is not a JSON object; send one")
    if "model" not in body:
        return _refusal(400, "the request names no model")
    model = body["model"]
    if model != alias.name:
        if model is not None and not isinstance(model, str):
            return _refusal(400, f"model must be a text: agents ask for {alias.name!r}")
        return _unknown(model, alias)
    served = alias.served
    if served is None:
        return _refusal(503, "the serving adapter is not loaded yet; try again soon")
    alias.begin(served)
    passed_on = False
    try:
        response = await _pass_on(request.url.path, body | {"model": served}, alias, served, inference)
        passed_on = isinstance(response, _Stream)
        return response
    finally:
        if not passed_on:
            alias.end(served)


async def _pass_on(
    path: str, body: dict[str, Any], alias: Alias, served: str, inference: httpx.AsyncClient
) -> Response:
    try:
        upstream = await inference.send(inference.build_request("POST", path, json=body), stream=True)
        if body.get("stream") and upstream.is_success:
            return _Stream(upstream, alias, served)
        content = await upstream.aread()
    except httpx.HTTPError as error:
        log.warning("the inference server did not answer", path=path, served=served, error=repr(error))
        return _refusal(503, "the inference server is not reachable; try again soon")
    if upstream.status_code == 404:
        # The server was restarted and knows the adapter no more; it is loaded again within seconds.
        log.warning("the inference server has lost the serving adapter", served=served)
        return _refusal(503, "the serving adapter is being loaded again; try again soon")
    if upstream.is_error and not _has_error_body(content):
        log.warning("the inference server failed", path=path, served=served, status=upstream.status_code)
        return _refusal(upstream.status_code, f"the inference server failed: {error_message(content)}")
    return Response(content, upstream.status_code, media_type=upstream.headers.get("content-type"))


class _Stream(StreamingResponse):
    """A streamed reply. Its request is in flight until the last byte is sent or the client is gone."""

    def __init__(self, upstream: httpx.Response, alias: Alias, served: str) -> None:
        super().__init__(_to_the_end(upstream), upstream.status_code, media_type=upstream.headers.get("content-type"))
        self._upstream, self._alias, self._served = upstream, alias, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._alias.end(self._served)
            await self._upstream.aclose()


async def _to_the_end(upstream: httpx.Response) -> AsyncIterator[bytes]:
    """The bytes of a streamed reply; an event that is an error, if the inference server does not finish it."""
    try:
        async for part in upstream.aiter_raw():
            yield part
    except httpx.HTTPError as error:
        log.warning("the inference server did not finish a reply", error=repr(error))
        # The status line has long been sent, so the error is an event.
        reply = error_reply(503, "the inference server did not finish its reply; try again soon")
        yield f"\n\ndata: {reply.model_dump_json()}\n\n".encode()


def _has_error_body(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content)["error"]["message"], str)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _unknown(model: str | None, alias: Alias) -> Response:
    return _refusal(404, f"model {model!r:.100} not found: agents ask for {alias.name!r}")


def _refusal(status: int, message: str) -> Response:
    code = "model_not_found" if status == 404 else ""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return error_response(status, message, code, headers=headers)
