"""The endpoint that production agents talk to: the APIs of OpenAI and Anthropic with one model name that never changes.

Which adapter answers is decided at the moment a request arrives, and the reply's headers say which one it was. Each
call is recorded off its path (`capture.py`).
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Counter as RequestCounter
from starlette.datastructures import URL
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Match, Route
from starlette.types import Receive, Scope
from structlog.contextvars import bind_contextvars

from daemon.serving.access import access_of, keeps_credentials, principal_of
from daemon.serving.alias import Alias
from daemon.serving.call_metrics import CallMetrics
from daemon.serving.canary import Canary
from daemon.serving.capture import Capture
from daemon.serving.endpoint import Answering, Endpoint, send_whole
from daemon.serving.feedback import PATH, FeedbackIntake
from daemon.serving.groups import Membership, ServedGroups
from daemon.serving.headers import find, own, to_upstream
from daemon.serving.limits import GatewayLimits, usage_of
from daemon.serving.passing import Recording, pass_on
from daemon.serving.refusals import Refused
from daemon.serving.reply import Reply, while_connected
from daemon.serving.requests import read_body, read_object
from daemon.serving.settings import ServingSettings
from daemon.serving.upstream import Question, Upstream
from daemon.serving.watch import Watch
from streams.access.access import Access, caller_of
from streams.calls.labels import ResponseKeys, call_key, read_labels
from streams.calls.records import CallLabels, Face, new_receipt

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"]
_REMEMBERED_RESPONSES = 10_000
_OFF = frozenset({"off", "false", "0", "no"})
_FACES = frozenset(Face)


@dataclass(slots=True, eq=False)
class Gateway:
    """The routes below `/v1`. `requests` counts them all but lists of models, by the status of the answer.

    Without a `capture` no call is recorded, and no reply has a receipt; without `feedback` none is taken; without
    `calls` nothing is measured. `access` is by default that of the tokens of `settings`, `limits` are those of it. With
    `groups`, `alias` and `canary` are those of calls that belong to no group.
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
    groups: ServedGroups | None = None
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
            endpoint = Endpoint(self.feedback.answer, self.requests, self._access, self._limits, from_pages=pages)
            methods = ["POST", "OPTIONS"] if self.settings.cors_origins else ["POST"]
            found.append(Route(PATH, self.feedback.with_cors(endpoint), methods=methods))
        missing = self._unrouted(found)
        return [*found, self._route("/v1", _METHODS, missing), self._route("/v1/{rest:path}", _METHODS, missing)]

    def _route(self, path: str, methods: list[str], answer: Answering, counted: bool = True) -> Route:
        requests = self.requests if counted else None
        return Route(path, Endpoint(answer, requests, self._access, self._limits, route=path), methods=methods)

    async def _models(self, scope: Scope, _: Receive, reply: Reply) -> None:
        names = self._names(self._side(scope, {}))
        cards = [self._card(name) for name in names]
        listed = {"object": "list", "data": cards, "has_more": False, "first_id": names[0], "last_id": names[-1]}
        await send_whole(JSONResponse(listed), scope, reply)

    async def _model(self, scope: Scope, _: Receive, reply: Reply) -> None:
        name = scope["path_params"]["name"]
        if not name:
            await send_whole(RedirectResponse(URL(scope=scope).replace(path="/v1/models")), scope, reply)
            return
        if name not in self._names(self._side(scope, {"model": name})):
            raise self._unknown(name)
        await send_whole(JSONResponse(self._card(name)), scope, reply)

    def _card(self, name: str) -> dict[str, object]:
        """An alias as OpenAI's clients and Anthropic's read it."""
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._created))
        return {
            **{"id": name, "object": "model", "created": self._created, "owned_by": "ratchet"},
            **{"type": "model", "display_name": name, "created_at": created},
        }

    async def _call(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        """A request that names the alias: it goes to the adapter that serves now, or to the candidate of a canary."""
        body = await self._body(scope, receive)
        asked = read_object(body)
        side = self._side(scope, asked)
        self._check_model(asked, side)
        with side.asked():
            if side.alias.is_cold:
                async with while_connected(receive, reply):
                    await side.have_loaded()
            await self._pass_on(scope, receive, reply, body, asked, side)

    async def _pass_on(
        self, scope: Scope, receive: Receive, reply: Reply, body: bytes, asked: dict[str, Any], side: "_Side"
    ) -> None:
        """Pass a call on to the adapter of its group. Nothing is awaited before the call counts as in flight."""
        if side.alias.served is None:
            raise Refused(503, "the serving adapter is not loaded yet; try again soon")
        champion, headers, principal = side.alias.served, scope["headers"], principal_of(scope)
        identity = self._identify(scope, asked, principal, side)
        candidate = self._candidate(identity, asked, side)
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
        if recording is not None:
            bind_contextvars(receipt=recording.receipt)
        watch = None
        if side.canary is not None and identity is not None:
            watch = Watch.of(side.canary, identity.face, question, principal, candidate=candidate is not None)
        side.alias.begin(served)
        try:
            async with while_connected(receive, reply):
                await pass_on(question, self.upstream, reply, recording, watch)
        finally:
            side.alias.end(served)
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

    def _side(self, scope: Scope, asked: Mapping[str, Any]) -> "_Side":
        """The part of the gateway that answers a call: that of its group."""
        if self.groups is None or not self.groups.settings.groups:
            return _Side(self.alias, self.canary)
        membership = self.groups.membership(scope, asked)
        return _Side(membership.group.alias, membership.group.canary, self.groups, membership)

    def _names(self, side: "_Side") -> tuple[str, ...]:
        """The names by which a call may ask for the model: the one for all, and its group's own."""
        return tuple(dict.fromkeys((self.alias.name, side.alias.name)))

    def _check_model(self, asked: dict[str, Any], side: "_Side") -> None:
        if "model" not in asked:
            raise Refused(400, "the request names no model")
        model = asked["model"]
        if model is not None and not isinstance(model, str):
            raise Refused(400, f"model must be a text: agents ask for {self.alias.name!r}")
        if model not in self._names(side):
            raise self._unknown(model)

    def _identify(
        self, scope: Scope, asked: dict[str, Any], principal: str | None, side: "_Side"
    ) -> "_Identity | None":
        """Whose call it is; None where nothing here asks for that."""
        looks = (side.canary is not None and side.canary.looks) or len(self.upstream.replicas.all) > 1
        if scope["path"] not in _FACES or not (looks or self.capture is not None):
            return None
        face, headers = Face(scope["path"]), own(scope["headers"])
        is_captured = headers.get("x-ratchet-capture", "").strip().lower() not in _OFF
        if not (looks or is_captured):
            return None
        labels = read_labels(headers, asked, principal) if side.membership is None else side.membership.labels
        return _Identity(face, labels, call_key(face, labels, asked, principal, self._keys), is_captured)

    def _candidate(self, identity: "_Identity | None", asked: dict[str, Any], side: "_Side") -> str | None:
        """The name of a canary's candidate, where it answers this call."""
        if side.canary is None or identity is None or not side.canary.looks:
            return None
        return side.canary.answering(identity.face, asked, identity.key)

    def _recording(self, body: bytes, identity: "_Identity | None", principal: str | None) -> Recording | None:
        if self.capture is None or identity is None or not identity.is_captured:
            return None
        receipt = new_receipt(identity.key)
        proved = principal is not None
        return Recording(self.capture, self._keys, receipt, identity.face, identity.labels, proved, body)

    def _unknown(self, model: str | None) -> Refused:
        message = f"model {model!r:.100} not found: agents ask for {self.alias.name!r}"
        return Refused(404, message, "model_not_found")

    def _unrouted(self, routes: Sequence[Route]) -> Answering:
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
                await send_whole(RedirectResponse(URL(scope=scope).replace(path=shorter)), scope, reply)
                return
            there = ", ".join(route.path for route in routes)
            raise Refused(404, f"{method} {path:.100} not found; there are {there}")

        return answer


@dataclass(frozen=True, slots=True)
class _Side:
    """The adapters that answer a call: those of its group, or the only ones there are."""

    alias: Alias
    canary: Canary | None
    groups: ServedGroups | None = None
    membership: Membership | None = None

    def asked(self) -> AbstractContextManager[None]:
        """Keep the champion loaded meanwhile."""
        seat = None if self.membership is None else self.membership.group.seat
        return nullcontext() if seat is None else seat.asked()

    async def have_loaded(self) -> None:
        if self.groups is not None and self.membership is not None:
            await self.groups.have_loaded(self.membership.group)


@dataclass(frozen=True, slots=True)
class _Identity:
    """Whose call it is: its labels, and the key that it shares with the other calls of its episode."""

    face: Face
    labels: CallLabels
    key: str
    is_captured: bool


def _target(scope: Scope) -> str:
    """The path and the query as they came."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return (path + b"?" + query if query else path).decode("latin-1")
