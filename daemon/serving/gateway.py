"""The endpoint that production agents talk to: OpenAI's API with one model name, the alias, that never changes.

Which adapter answers is decided at the moment a request arrives, and the reply's `model` says which one it was.
"""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import Counter as RequestCounter
from starlette.types import Receive, Scope, Send

from daemon.registry.schemas import BASE
from streams.runtime.http_errors import error_response

log = structlog.get_logger()

RETRY_AFTER_S = 2


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
    """Routes that pass completions on to the inference server at the other end of `inference`."""
    router = APIRouter()

    @router.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": alias.name, "object": "model", "owned_by": "ratchet"}]})

    @router.post("/v1/chat/completions")
    @router.post("/v1/completions")
    async def complete(request: Request) -> Response:
        response = await _complete(request, alias, inference)
        requests.labels(status=str(response.status_code)).inc()
        return response

    return router


async def _complete(request: Request, alias: Alias, inference: httpx.AsyncClient) -> Response:
    try:
        body = json.loads(await request.body())
    except ValueError:
        return _refusal(400, "the request's body is not JSON")
    if not isinstance(body, dict) or "model" not in body:
        return _refusal(400, "the request names no model")
    if body["model"] != alias.name:
        return _refusal(404, f"model {body['model']!r} not found: agents ask for {alias.name!r}")
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
    return Response(content, upstream.status_code, media_type=upstream.headers.get("content-type"))


class _Stream(StreamingResponse):
    """A streamed reply. Its request is in flight until the last byte is sent or the client is gone."""

    def __init__(self, upstream: httpx.Response, alias: Alias, served: str) -> None:
        super().__init__(upstream.aiter_raw(), upstream.status_code, media_type=upstream.headers.get("content-type"))
        self._upstream, self._alias, self._served = upstream, alias, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._alias.end(self._served)
            await self._upstream.aclose()


def _refusal(status: int, message: str) -> Response:
    code = "model_not_found" if status == 404 else ""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return error_response(status, message, code, headers=headers)
