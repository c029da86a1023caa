"""One route of the gateway as an ASGI application: admits, keeps limits, counts, and answers errors."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import structlog
from opentelemetry.trace import Span, SpanKind
from prometheus_client import Counter as RequestCounter
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from daemon.serving.headers import decoded
from daemon.serving.limits import GatewayLimits
from daemon.serving.refusals import Refused, refusal
from daemon.serving.reply import Reply
from streams.access.access import Access, remember
from streams.access.tokens import AccessRole
from streams.errors import RequestRefusedError
from streams.runtime import tracing
from streams.runtime.http_errors import UNEXPECTED
from streams.runtime.tracebacks import where_raised

log = structlog.get_logger()

_SERVER_ERROR = 500
_CLIENT_CLOSED_REQUEST = 499  # nginx's code; the client is gone

Answering = Callable[[Scope, Receive, Reply], Awaitable[None]]


class Endpoint:
    """One route as an ASGI application: who asks must have the role `ask` and keep within limits; answers are counted.

    Errors get the body that the path's clients read. `from_pages` as in `Access.admit`; `route` is the
    path in traces, with names for what differs.

    Not FastAPI's routes, which take as long as all else that the gateway does.
    """

    def __init__(
        self,
        answer: Answering,
        requests: RequestCounter | None,
        access: Access,
        limits: GatewayLimits,
        *,
        from_pages: bool = False,
        route: str = "",
    ) -> None:
        self._answer = answer
        self._requests = requests
        self._access = access
        self._limits = limits
        self._from_pages = from_pages
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = Reply(scope["path"], scope["headers"], send)
        with bound_contextvars(request_id=reply.request_id), self._span(scope, reply) as span:
            try:
                await self._refusing(scope, receive, reply)
            except ClientDisconnect:
                reply.status = _CLIENT_CLOSED_REQUEST  # for the count
            finally:
                status = reply.status or _CLIENT_CLOSED_REQUEST
                if self._requests is not None:
                    self._requests.labels(status=str(status)).inc()
                span.set_attribute("http.response.status_code", status)
                if status >= _SERVER_ERROR:
                    tracing.failed(span, str(status))

    def _span(self, scope: Scope, reply: Reply) -> AbstractContextManager[Span]:
        """The span of the request, below its client's where that is traced too."""
        if not tracing.is_on():
            return tracing.UNTRACED
        route = self._route or scope["path"]
        attributes = {
            "http.request.method": scope["method"],
            "http.route": route,
            "ratchet.request_id": reply.request_id,
        }
        caller = {name.decode(): decoded(value) for name, value in scope["headers"] if name in tracing.CONTEXT_HEADERS}
        return tracing.span(f"{scope['method']} {route}", SpanKind.SERVER, attributes, caller)

    async def _refusing(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        try:
            caller = self._access.admit(scope, AccessRole.ASK, from_pages=self._from_pages)
            remember(scope, caller)
            with self._limits.within(caller, scope):
                await self._answer(scope, receive, reply)
            return
        except ClientDisconnect:
            raise
        except Refused as error:
            refused = error
        except RequestRefusedError as error:
            refused = Refused(error.status, str(error), error.code, error.headers)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is logged, answered and counted
            log.error("a request failed unexpectedly", path=scope["path"], exception=where_raised(error))
            refused = Refused(500, UNEXPECTED)
        if reply.status is not None:
            raise refused  # its reply has begun: Uvicorn breaks it off
        await send_whole(refusal(scope["path"], refused), scope, reply)


async def send_whole(response: JSONResponse | RedirectResponse, scope: Scope, reply: Reply) -> None:
    await response(scope, _nothing, reply)


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}
