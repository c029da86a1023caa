"""Every route of every interface, with every role and without: who is let in is what docs/access.md says."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter

from daemon.registry.registry import Registry
from daemon.serving.access import GATEWAY, NEEDS
from daemon.serving.alias import Alias
from daemon.serving.control import control_router
from daemon.serving.feedback import FeedbackIntake
from daemon.serving.gateway import Gateway
from daemon.serving.settings import ServingSettings
from streams.access.access import Access
from streams.access.guard import HEALTH, guard
from streams.access.token_file import TokenFile
from streams.access.tokens import AccessRole
from streams.assembly.server import build_status_app
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState
from streams.assembly.status import AssemblyStatus
from streams.otlp.server import build_intake
from streams.otlp.settings import OtlpSettings
from streams.otlp.status import OtlpStatus
from streams.runtime.health import add_health, health_app
from streams.runtime.http_errors import answer_errors
from streams.runtime.tally import Tally
from streams.store.api import build_api
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from tests.builders.episodes import HOLDOUT, KAFKA
from tests.builders.grouped import alone
from tests.daemon.serving.upstream import Log

ADMITTED, ROLES = "admitted", tuple(AccessRole)
NOTHING = cast(Any, None)  # what is not admitted asks no part, and what is may fail
OPEN = {"/healthz", "/readyz", "/version"}
READ, OPERATE = AccessRole.READ, AccessRole.OPERATE
TABLE: dict[str, dict[str, AccessRole]] = {
    "record": {"/query": READ, "/status": READ, "/metrics": READ},
    "branch": {"/metrics": READ},
    "learn": {"/metrics": READ},
    "assemble": {"/status": READ, "/metrics": READ},
    "otlp": {"/v1/traces": AccessRole.RECORD, "/v1/logs": AccessRole.RECORD, "/status": READ, "/metrics": READ},
    "serve": {
        **dict.fromkeys(("/status", "/history", "/metrics"), READ),
        **dict.fromkeys(("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"), READ),
        **dict.fromkeys(("/promote", "/approve", "/reject", "/rollback", "/restore"), OPERATE),
        **dict.fromkeys(("/hold", "/resume", "/cycles", "/drill", "/load"), OPERATE),
        **dict.fromkeys(("/v1", "/v1/{rest:path}", "/v1/models", "/v1/models/{name:path}"), AccessRole.ASK),
        **dict.fromkeys(("/v1/chat/completions", "/v1/completions", "/v1/responses"), AccessRole.ASK),
        **dict.fromkeys(("/v1/responses/{rest:path}", "/v1/messages", "/v1/messages/count_tokens"), AccessRole.ASK),
        "/v1/feedback": AccessRole.ASK,
    },
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def apps(tmp_path: Path, home: Path) -> Iterator[dict[str, FastAPI]]:
    access, alias = Access(home=home), Alias("assistant")
    store = Store.open(StoreSettings(path=tmp_path / "store.duckdb"), HOLDOUT, KAFKA)
    state = AssemblyState.open(AssemblySettings(path=tmp_path / "assembly.sqlite"), 0)
    otlp = build_intake(OtlpSettings(), "spans", lambda messages: None, Tally(OtlpStatus()), access)
    serve = FastAPI(title="Ratchet")
    answer_errors(serve)
    guard(serve, access, NEEDS, asks_itself=GATEWAY)
    counter = Counter("requests", "Requests.", ["status"], registry=CollectorRegistry())
    feedback = FeedbackIntake(ServingSettings(), "calls", Log())
    serve.router.routes += Gateway(alias, NOTHING, counter, feedback=feedback, access=access).routes()
    serve.include_router(control_router(alone(Registry(home), alias), NOTHING, NOTHING, NOTHING, ""))
    for app in (otlp, serve):
        add_health(app, {})
    assemble = build_status_app(Tally(AssemblyStatus()), state, access=access)
    probes = {role: health_app(role, {}) for role in ("branch", "learn")}
    for app in probes.values():
        guard(app, access, HEALTH)
    yield probes | {"record": build_api(store, access=access), "assemble": assemble, "otlp": otlp, "serve": serve}
    feedback.close()
    state.close()
    store.close()


def routes(app: FastAPI) -> dict[str, str]:
    """A method of each path."""
    found: list[Any] = []
    for route in app.routes:
        included = getattr(route, "original_router", None)
        found += [route] if included is None else included.routes
    return {route.path: sorted(route.methods)[0] for route in found}


async def test_every_route_lets_in_whom_the_table_says(apps: dict[str, FastAPI], home: Path) -> None:
    file = TokenFile(home)
    tokens: dict[str, str] = {role: file.issue(f"its-{role}", [role]) for role in ROLES}
    tokens |= {"none": "", "wrong": "ratchet_wrong", "expired": file.issue("old", ROLES, timedelta(microseconds=1))}
    for name, app in apps.items():
        assert set(routes(app)) - OPEN == set(TABLE[name])
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for path, method in routes(app).items():
                needed = TABLE[name].get(path)
                for kind, token in tokens.items():
                    headers = {"authorization": f"Bearer {token}"} if token else {}
                    if name == "otlp":
                        headers["content-type"] = "application/json"
                    answer = await client.request(method, re.sub(r"\{.*\}", "x", path), headers=headers)
                    seen = answer.status_code if answer.status_code in (401, 403, 421) else ADMITTED
                    # The serve role lacks the parts here that its routes ask.
                    assert name == "serve" or answer.status_code < 500, (name, method, path, kind, answer.text)
                    expected: object = ADMITTED
                    if needed is not None and kind not in (needed, AccessRole.ADMIN):
                        expected = 403 if kind in ROLES else 401
                    assert seen == expected, (name, method, path, kind, answer.text)
                    assert ("www-authenticate" in answer.headers) == (seen == 401)
                    assert seen != 403 or f"the role {needed}" in answer.text


def test_the_document_has_the_same_table() -> None:
    text = (Path(__file__).parents[3] / "docs" / "access.md").read_text()
    for role in (AccessRole.RECORD, READ, OPERATE):
        (row,) = re.findall(rf"^\| `{role}` \|.*$", text, re.MULTILINE)
        for name, needs in TABLE.items():
            for part in row.split("|")[-2].split(";"):
                if re.search(rf"\b{name}\b", part.partition(":")[0]):
                    listed = set(re.findall(r"`(/[^`]*)`", part))
                    assert listed == {path for path, needed in needs.items() if needed is role}


async def test_tokens_change_without_a_restart(apps: dict[str, FastAPI], home: Path) -> None:
    file, transport = TokenFile(home), httpx.ASGITransport(apps["record"])
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

        async def status(token: str) -> int:
            Access._look(cast(Any, apps["record"].user_middleware[0].kwargs["access"]), at_once=True)
            return (await client.get("/status", headers={"authorization": f"Bearer {token}"})).status_code

        assert await status("") == 200
        old = file.issue("ann", [READ])
        new = file.issue("ann", [READ])
        assert (await status(""), await status(old), await status(new)) == (401, 200, 200)
        file.revoke("ann", only_older=True)
        assert (await status(old), await status(new)) == (401, 200)
        file.revoke("ann")
        assert (await status(new), await status("")) == (401, 401)


async def test_a_name_that_was_bound_to_loopback_and_a_foreign_page_are_refused(apps: dict[str, FastAPI]) -> None:
    for name, app in apps.items():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            assert (await client.get("/status", headers={"host": "evil.example:80"})).status_code == 421
            if name == "serve":
                origin = {"origin": "https://evil.example"}
                assert (await client.post("/rollback", headers=origin)).status_code == 403
