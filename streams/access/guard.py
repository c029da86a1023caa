"""Asks `Access` before an application is asked; `guard` puts it before every application of Ratchet."""

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from streams.access.access import Access, remember
from streams.access.tokens import AccessRole
from streams.errors import RequestRefusedError
from streams.runtime.http_errors import error_response

# For supervisors, containers and load balancers, which have no token (`streams/runtime/health.py`).
OPEN = frozenset({"/healthz", "/readyz", "/version"})
# Of a role that has no other interface.
HEALTH = {"/metrics": AccessRole.READ}
_POLICY_VIOLATION = 1008


class Guard:
    """ASGI middleware: lets a request through to `app` if its caller has the role that its path needs.

    `needs` are the roles by path; a path that is not there needs `ADMIN`. Those below `asks_itself` are let through:
    they ask `Access` themselves, since their errors are counted, or have a body of their own. The path `filters_rows`
    shows a caller the rows alone that it may read.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        needs: Mapping[str, AccessRole],
        asks_itself: str = "",
        filters_rows: str = "",
    ) -> None:
        self._app, self._access, self._needs, self._asks_itself = app, access, needs, asks_itself
        self._filters_rows = filters_rows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})  # no interface has one
            return
        if scope["type"] == "http" and not self._is_passed_on(scope["path"]):
            try:
                path = scope["path"]
                role, filters_rows = self._needs.get(path, AccessRole.ADMIN), path == self._filters_rows
                remember(scope, self._access.admit(scope, role, filters_rows=filters_rows))
            except RequestRefusedError as error:
                answer = error_response(error.status, str(error), error.code, headers=error.headers)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_passed_on(self, path: str) -> bool:
        own = self._asks_itself
        return path in OPEN or bool(own and (path == own or path.startswith(f"{own}/")))


def guard(
    app: FastAPI, access: Access, needs: Mapping[str, AccessRole], asks_itself: str = "", filters_rows: str = ""
) -> None:
    """Put a `Guard` before `app`."""
    app.add_middleware(Guard, access=access, needs=needs, asks_itself=asks_itself, filters_rows=filters_rows)
