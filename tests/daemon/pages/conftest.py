"""A real serve role with its pages, over a home that has something to show; and a browser's part of it."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest

from daemon.pages.site import add_pages
from daemon.registry.registry import Registry
from streams.access.access import Access
from streams.access.token_file import TokenFile
from streams.access.tokens import AccessRole
from streams.trust.groups import AdapterSettings
from tests.builders.consoles import Scene, adapters_without_weights, episodes, scene
from tests.builders.stored import Log, ServedStore
from tests.daemon.conftest import serve_role

NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class Console:
    """A browser before a running serve role: it keeps cookies and follows redirects."""

    browser: httpx.AsyncClient
    registry: Registry
    scene: Scene
    access: Access

    async def page(self, path: str, status: int = 200) -> str:
        answer = await self.browser.get(path)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return answer.text

    async def send(self, path: str, fields: dict[str, str], on: str = "/pages/queue", **headers: str) -> httpx.Response:
        """Send a form of the page `on`, with its CSRF token unless `fields` have one."""
        token = re.search(r'name="csrf" value="(\w+)"', await self.page(on))
        assert token is not None
        origin = str(self.browser.base_url).rstrip("/")
        return await self.browser.post(path, data={"csrf": token[1], **fields}, headers={"origin": origin, **headers})

    async def sign_in(self, token: str, then: str = "/pages/queue") -> httpx.Response:
        return await self.send("/pages/sign-in", {"token": token, "next": then}, on="/pages/sign-in")

    def token(self, name: str, *roles: AccessRole) -> str:
        made = TokenFile(self.registry.home).issue(name, roles)
        self._look()
        return made

    def revoke(self, name: str) -> None:
        TokenFile(self.registry.home).revoke(name)
        self._look()

    def _look(self) -> None:
        Access._look(cast(Any, self.access), at_once=True)  # it does by itself, within a second


@asynccontextmanager
async def running(
    made: Scene,
    registry: Registry,
    store_url: str = NOWHERE,
    engine: str = "",
    adapters: AdapterSettings = AdapterSettings(),  # noqa: B008 - frozen
) -> AsyncIterator[Console]:
    """A console, by default without a store and an engine."""
    access = Access("127.0.0.1", "serving.host", home=registry.home)
    role = serve_role(
        *(registry, engine or NOWHERE, store_url),
        waits=bool(engine),
        adapters=adapters,
        add_pages=add_pages,
        access=access,
    )
    agents = {"accept": "text/html"}
    async with (
        role as client,
        httpx.AsyncClient(base_url=client.base_url, timeout=60, follow_redirects=True, headers=agents) as browser,
    ):
        yield Console(browser, registry, made, access)


@pytest.fixture
async def console(registry: Registry) -> AsyncIterator[Console]:
    made = scene(registry, *adapters_without_weights(registry.home))
    async with running(made, registry) as found:
        yield found


@pytest.fixture
async def console_with_store(registry: Registry, served_store: ServedStore) -> AsyncIterator[Console]:
    episodes(Log(served_store.store))
    made = scene(registry, *adapters_without_weights(registry.home))
    async with running(made, registry, served_store.url) as found:
        yield found


@pytest.fixture
async def console_with_engine(
    registry: Registry, inference_url: str, make_adapter: Callable[..., str]
) -> AsyncIterator[Console]:
    made = scene(registry, make_adapter(1, approved=False), make_adapter(2, approved=False))
    async with running(made, registry, engine=inference_url) as found:
        yield found
