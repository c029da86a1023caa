"""Lets in who may see a page, by the one decision that every interface of Ratchet asks; sends the others to sign in."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from daemon.pages.forms import read_form
from daemon.pages.parts import Parts, Visit, enter, visit_of
from daemon.pages.rendering import HEADERS, page, problem, url
from daemon.pages.sessions import cookie, new_id, session_of
from streams.access.access import given_tokens
from streams.access.tokens import AccessRole
from streams.errors import RequestRefusedError

SIGN_IN = "/pages/sign-in"
_GONE = "Max-Age=0"


class RequireSignIn:
    """ASGI middleware before the pages. `needs` are the roles by path, None for what anybody may see.

    A session's token is put into the request as if it had come with it, so that one that is revoked, or lacks a role,
    is refused as everywhere else.
    """

    def __init__(self, app: ASGIApp, parts: Parts, needs: Mapping[str, AccessRole | None]) -> None:
        self._app, self._parts, self._needs = app, parts, needs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = session_of(scope)
        token = self._parts.sessions.token(session)
        headers = [*scope["headers"], (b"authorization", f"Bearer {token}".encode())] if token else scope["headers"]
        asked = {**scope, "headers": headers}
        enter(asked, Visit(session or new_id(), not session, token, None))
        request = Request(asked, receive)
        try:
            role = self._needs.get(scope["path"], AccessRole.READ)
            # Also where no role is needed: each page names the person who is signed in.
            caller = None if role is None and not token else self._parts.access.admit(asked, role or AccessRole.READ)
            # Who sends a token with each request needs no session.
            sent = token or next(iter(given_tokens(scope["headers"])), "")
            enter(asked, Visit(session or new_id(), not session, sent, caller))
        except RequestRefusedError as error:
            if self._needs.get(scope["path"], AccessRole.READ) is not None:
                await self._refusal(request, error)(asked, receive, send)
                return
        await self._app(asked, receive, send)

    def _refusal(self, request: Request, error: RequestRefusedError) -> Response:
        if error.status != 401:
            return problem(request, self._parts, error.status, str(error))
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(url(SIGN_IN, next=target), 303, HEADERS)
        return PlainTextResponse(str(error), 401, {**HEADERS, **(error.headers or {})})


async def sign_in_page(request: Request, parts: Parts) -> Response:
    """The form that takes a token."""
    target = own_address(request.query_params.get("next", ""))
    return page(request, parts, "sign_in.html", title="Sign in", next=target, error="")


async def sign_in(request: Request, parts: Parts) -> Response:
    """Begin a session for a token that may read, under a new id, so that nobody else can know it."""
    fields = await read_form(request, parts)
    token, target = fields.get("token", "").strip(), own_address(fields.get("next", ""))
    headers = [(b"host", request.headers.get("host", "").encode()), (b"authorization", f"Bearer {token}".encode())]
    try:
        asked = {"type": "http", "method": "GET", "path": "/", "headers": headers}
        caller = parts.access.admit(asked, AccessRole.READ)
        if caller is None:
            raise RequestRefusedError(401, "invalid_api_key", "this token is not known")
    except RequestRefusedError as error:
        return page(request, parts, "sign_in.html", error.status, title="Sign in", next=target, error=str(error))
    parts.sessions.end(visit_of(request).session)
    begun = parts.sessions.begin(token)
    return RedirectResponse(target, 303, {**HEADERS, "Set-Cookie": cookie(request.scope, begun)})


async def sign_out(request: Request, parts: Parts) -> Response:
    """End the session, here and in the browser."""
    await read_form(request, parts)
    session = visit_of(request).session
    parts.sessions.end(session)
    gone = {**HEADERS, "Set-Cookie": f"{cookie(request.scope, session)}; {_GONE}"}
    return RedirectResponse(SIGN_IN, 303, gone)


def own_address(target: str) -> str:
    r"""A page of ours, to go to next; the first one where `target` is any other address.

    >>> own_address("/pages/audit?action=hold"), own_address("//evil.example/pages/"), own_address("/\\evil.example")
    ('/pages/audit?action=hold', '/', '/')
    """
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    is_ours = not parts.scheme and not parts.netloc and parts.path.startswith("/pages/") and parts.path != SIGN_IN
    if not is_ours:
        return "/"
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
