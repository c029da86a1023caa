"""The endpoint that production agents talk to: the APIs of OpenAI and Anthropic with one model name that never changes.

Which adapter answers is decided at the moment a request arrives, and the reply's headers say which one it was. Each
call is recorded off its path (`capture.py`).
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client import Counter as RequestCounter
from starlette.datastructures import URL
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from daemon.serving.access import access_of, keeps_credentials, principal_of
from daemon.serving.alias import Alias
from daemon.serving.call_metrics import CallMetrics
from daemon.serving.canary import Canary
from daemon.serving.capture import Capture
from daemon.serving.feedback import PATH, FeedbackIntake
from daemon.serving.headers import find, own, to_upstream
from daemon.serving.limits import GatewayLimits, usage_of
from daemon.serving.passing import Recording, pass_on
from daemon.serving.refusals import Refused, refusal
from daemon.serving.reply import Reply, while_connected
from daemon.serving.requests import read_body, read_object
from daemon.serving.settings import ServingSettings
from daemon.serving.upstream import Question, Upstream
from daemon.serving.watch import Watch
from streams.access.access import Access, caller_of, remember
from streams.access.tokens import AccessRole
from streams.calls.labels import ResponseKeys, call_key, read_labels
from streams.calls.records import CallLabels, Face, new_receipt
from streams.errors import RequestRefusedError
from streams.runtime.http_errors import UNEXPECTED
from streams.runtime.tracebacks import where_raised

log = structlog.get_logger()

_CLIENT_CLOSED_REQUEST = 499  # nginx's code; the client is gone
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"]
_REMEMBERED_RESPONSES = 10_000
_OFF = frozenset({"off", "false", "0", "no"})
_FACES = frozenset(Face)

_Answer = Callable[[Scope, Receive, Reply], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Gateway:
    """The routes below `/v1`. `requests` counts them all but lists of models, by the status of the answer.

    Without a `capture` no call is recorded, and no reply has a receipt; without `feedback` none is taken; without
    `calls` nothing is measured. `access` is by default that of the tokens of `settings`, `limits` are those of it.
    """

    alias: Alias
    upstream: Upstream
    requests: RequestCounter
    settings: ServingSettings = field(default_factory=ServingSettings)
    capture: Capture | None = None
    feedback: FeedbackIntake | None = None
    canary: Canary | None = None
    calls: CallMetrics | None = None
    access: Access | None = None
    limits: GatewayLimits | None = None
    _created: int = field(default_factory=lambda: int(time.time()))
    _keys: ResponseKeys = field(default_factory=lambda: ResponseKeys(_REMEMBERED_RESPONSES))
    _access: Access = field(init=False)
    _limits: GatewayLimits = field(init=False)

    def __post_init__(self) -> None:
        self._access = self.access or access_of(self.settings)
        self._limits = self.limits or GatewayLimits(self._access.limits, self.settings.max_request_bytes)

    def routes(self) -> list[Route]:
        """All routes; the last ones answer to what is not there."""
        found = [
            self._route("/v1/models", ["GET"], self._models, counted=False),
            self._route("/v1/models/{name:path}", ["GET"], self._model),
            *(self._route(face.value, ["POST"], self._call) for face in Face),
            self._route("/v1/messages/count_tokens", ["POST"], self._call),
            self._route("/v1/responses/{rest:path}", ["GET", "POST", "DELETE"], self._other),
        ]
        if self.feedback is not None:
            pages = bool(self.settings.cors_origins)
            endpoint = _Endpoint(self.feedback.answer, self.requests, self._access, self._limits, from_pages=pages)
            methods = ["POST", "OPTIONS"] if self.settings.cors_origins else ["POST"]
            found.append(Route(PATH, self.feedback.with_cors(endpoint), methods=methods))
        missing = self._unrouted(found)
        return [*found, self._route("/v1", _METHODS, missing), self._route("/v1/{rest:path}", _METHODS, missing)]

    def _route(self, path: str, methods: list[str], answer: _Answer, counted: bool = True) -> Route:
        requests = self.requests if counted else None
        return Route(path, _Endpoint(answer, requests, self._access, self._limits), methods=methods)

    async def _models(self, scope: Scope, _: Receive, reply: Reply) -> None:
        name = self.alias.name
        listed = {"object": "list", "data": [self._card()], "has_more": False, "first_id": name, "last_id": name}
        await _send(JSONResponse(listed), scope, reply)

    async def _model(self, scope: Scope, _: Receive, reply: Reply) -> None:
        name = scope["path_params"]["name"]
        if not name:
            await _send(RedirectResponse(URL(scope=scope).replace(path="/v1/models")), scope, reply)
            return
        if name != self.alias.name:
            raise self._unknown(name)
        await _send(JSONResponse(self._card()), scope, reply)

    def _card(self) -> dict[str, object]:
        """The alias as OpenAI's clients and Anthropic's read it."""
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._created))
        return {
            **{"id": self.alias.name, "object": "model", "created": self._created, "owned_by": "ratchet"},
            **{"type": "model", "display_name": self.alias.name, "created_at": created},
        }

    async def _call(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        """A request that names the alias: it goes to the adapter that serves now, or to the candidate of a canary."""
        headers = scope["headers"]
        principal = principal_of(scope)
        body = await self._body(scope, receive)
        asked = read_object(body)
        champion = self._served(asked)
        identity = self._identify(scope, asked, principal)
        candidate = self._candidate(identity, asked)
        served = candidate or champion
        question = Question(
            scope["method"],
            scope["path"],
            _target(scope),
            to_upstream(headers, keeps_credentials(self._access, scope)),
            body,
            served,
            bool(asked.get("stream")),
            identity.key if identity else None,
            # Its server keeps the responses that the next ones continue.
            pinned=identity is not None and identity.face is Face.RESPONSES,
        )
        recording = self._recording(body, identity, principal)
        watch = None
        if self.canary is not None and identity is not None:
            watch = Watch.of(self.canary, identity.face, question, principal, candidate=candidate is not None)
        self.alias.begin(served)
        try:
            async with while_connected(receive, reply):
                await pass_on(question, self.upstream, reply, recording, watch)
        finally:
            self.alias.end(served)
            if scope["path"] in _FACES:
                usage_of(scope).note(reply.passage, body)
            if self.calls is not None:
                self.calls.observe(served, reply.passage)

    async def _other(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        """A request about an earlier response: it names no model, and is passed on."""
        headers = scope["headers"]
        body = await self._body(scope, receive)
        passed = to_upstream(headers, keeps_credentials(self._access, scope))
        key = self._keys.get(scope["path_params"]["rest"].partition("/")[0])
        question = Question(
            scope["method"], scope["path"], _target(scope), passed, body or None, key=key, pinned=key is not None
        )
        async with while_connected(receive, reply):
            await pass_on(question, self.upstream, reply, None)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        encoding = find(scope["headers"], b"content-encoding") or ""
        return await read_body(receive, encoding, self._limits.bytes_of(caller_of(scope)))

    def _served(self, asked: dict[str, Any]) -> str:
        if "model" not in asked:
            raise Refused(400, "the request names no model")
        model = asked["model"]
        if model != self.alias.name:
            if model is not None and not isinstance(model, str):
                raise Refused(400, f"model must be a text: agents ask for {self.alias.name!r}")
            raise self._unknown(model)
        if self.alias.served is None:
            raise Refused(503, "the serving adapter is not loaded yet; try again soon")
        return self.alias.served

    def _identify(self, scope: Scope, asked: dict[str, Any], principal: str | None) -> "_Identity | None":
        """Whose call it is; None where nothing here asks for that."""
        looks = (self.canary is not None and self.canary.looks) or len(self.upstream.replicas.all) > 1
        if scope["path"] not in _FACES or not (looks or self.capture is not None):
            return None
        face, headers = Face(scope["path"]), own(scope["headers"])
        is_captured = headers.get("x-ratchet-capture", "").strip().lower() not in _OFF
        if not (looks or is_captured):
            return None
        labels = read_labels(headers, asked, principal)
        return _Identity(face, labels, call_key(face, labels, asked, principal, self._keys), is_captured)

    def _candidate(self, identity: "_Identity | None", asked: dict[str, Any]) -> str | None:
        """The name of a canary's candidate, where it answers this call."""
        if self.canary is None or identity is None or not self.canary.looks:
            return None
        return self.canary.answering(identity.face, asked, identity.key)

    def _recording(self, body: bytes, identity: "_Identity | None", principal: str | None) -> Recording | None:
        if self.capture is None or identity is None or not identity.is_captured:
            return None
        receipt = new_receipt(identity.key)
        proved = principal is not None
        return Recording(self.capture, self._keys, receipt, identity.face, identity.labels, proved, body)

    def _unknown(self, model: str | None) -> Refused:
        message = f"model {model!r:.100} not found: agents ask for {self.alias.name!r}"
        return Refused(404, message, "model_not_found")

    def _unrouted(self, routes: Sequence[Route]) -> _Answer:
        """The answer to a path or a method that is none of `routes`."""

        async def answer(scope: Scope, _: Receive, reply: Reply) -> None:
            method, path = scope["method"], scope["path"]
            allowed = sorted(
                name for route in routes if route.matches(scope)[0] is Match.PARTIAL for name in route.methods or ()
            )
            if allowed:
                names = ", ".join(allowed)
                raise Refused(405, f"{path} does not take {method}; use {names}", headers={"Allow": names})
            shorter = path.rstrip("/")
            if shorter in {route.path for route in routes}:
                await _send(RedirectResponse(URL(scope=scope).replace(path=shorter)), scope, reply)
                return
            there = ", ".join(route.path for route in routes)
            raise Refused(404, f"{method} {path:.100} not found; there are {there}")

        return answer


@dataclass(frozen=True, slots=True)
class _Identity:
    """Whose call it is: its labels, and the key that it shares with the other calls of its episode."""

    face: Face
    labels: CallLabels
    key: str
    is_captured: bool


class _Endpoint:
    """One route as an ASGI application: who asks must have the role `ask` and keep within limits; answers are counted.

    Errors get the body that the path's clients read. `from_pages` as in `Access.admit`.

    Not FastAPI's routes, which take as long as all else that the gateway does.
    """

    def __init__(
        self,
        answer: _Answer,
        requests: RequestCounter | None,
        access: Access,
        limits: GatewayLimits,
        *,
        from_pages: bool = False,
    ) -> None:
        self._answer = answer
        self._requests = requests
        self._access = access
        self._limits = limits
        self._from_pages = from_pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = Reply(scope["path"], scope["headers"], send)
        try:
            await self._refusing(scope, receive, reply)
        except ClientDisconnect:
            reply.status = _CLIENT_CLOSED_REQUEST  # for the count
        finally:
            if self._requests is not None:
                self._requests.labels(status=str(reply.status or _CLIENT_CLOSED_REQUEST)).inc()

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
        await _send(refusal(scope["path"], refused), scope, reply)


async def _send(response: JSONResponse | RedirectResponse, scope: Scope, reply: Reply) -> None:
    await response(scope, _nothing, reply)


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def _target(scope: Scope) -> str:
    """The path and the query as they came."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return (path + b"?" + query if query else path).decode("latin-1")
