"""A real serve role with its pages, over a home that has something to show; and a browser's part of it."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from daemon.pages.site import add_pages
from daemon.registry.registry import Registry
from streams.access.access import Access
from streams.access.token_file import TokenFile
from streams.access.tokens import AccessRole
from tests.builders.consoles import Scene, episodes, scene
from tests.builders.stored import Log, ServedStore
from tests.daemon.conftest import serve_role


@dataclass(frozen=True, slots=True)
class Console:
    """A browser before a running serve role: it keeps cookies and follows redirects."""

    browser: httpx.AsyncClient
    registry: Registry
    scene: Scene

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
        return TokenFile(self.registry.home).issue(name, roles)


@asynccontextmanager
async def running(registry: Registry, inference_url: str, made: Scene, store_url: str) -> AsyncIterator[Console]:
    access = Access("127.0.0.1", "serving.host", home=registry.home)
    async with serve_role(registry, inference_url, store_url, add_pages=add_pages, access=access) as client:
        agents = {"accept": "text/html"}
        async with httpx.AsyncClient(
            base_url=client.base_url, timeout=60, follow_redirects=True, headers=agents
        ) as own:
            yield Console(own, registry, made)


@pytest.fixture
async def console(inference_url: str, registry: Registry, make_adapter: Callable[..., str]) -> AsyncIterator[Console]:
    """Without a store."""
    made = scene(registry, make_adapter)
    async with running(registry, inference_url, made, "http://127.0.0.1:9") as found:
        yield found


@pytest.fixture
async def console_with_store(
    inference_url: str, registry: Registry, make_adapter: Callable[..., str], served_store: ServedStore
) -> AsyncIterator[Console]:
    episodes(Log(served_store.store))
    made = scene(registry, make_adapter)
    async with running(registry, inference_url, made, served_store.url) as found:
        yield found
