"""All pages, with the role that each needs, as one application before the serve role's. `daemon/roles.py` adds it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from daemon.pages import adapters, audit, changes, episode, episodes, gates, live, match, now, queue, sign_in
from daemon.pages.parts import Parts
from daemon.pages.rendering import FOLDER, HEADERS, problem
from daemon.pages.sessions import Sessions
from daemon.registry.registry import Registry
from daemon.serving.groups import check_group
from daemon.serving.settings import ServingSettings
from learners.adapters import AdapterStore
from ratchet_client.errors import RatchetError
from streams.access.access import Access
from streams.access.tokens import AccessRole
from streams.errors import RequestRefusedError, UnknownAdapterError, UnknownEpisodeError
from streams.runtime.http_errors import UNEXPECTED
from streams.runtime.tracebacks import where_raised
from streams.store.client import StoreClient
from streams.trust.groups import DEFAULT_GROUP, AdapterSettings

log = structlog.get_logger()

Handler = Callable[[Request, Parts], Awaitable[Response]]

READ, OPERATE = AccessRole.READ, AccessRole.OPERATE


@dataclass(frozen=True, slots=True)
class Page:
    """An address, who may ask for it (None: anybody), and what answers."""

    path: str
    role: AccessRole | None
    answer: Handler
    method: str = "GET"


def _file(name: str) -> Handler:
    async def answer(request: Request, parts: Parts) -> Response:
        return FileResponse(FOLDER / "static" / name, headers={**HEADERS, "Cache-Control": "max-age=300"})

    return answer


PAGES = (
    Page("/", READ, now.now),
    Page("/pages/live", READ, live.events),
    Page("/pages/queue", READ, queue.queue),
    Page("/pages/gates", READ, gates.gates),
    Page("/pages/gate", READ, gates.gate),
    Page("/pages/match", READ, match.match),
    Page("/pages/match/text", READ, match.text),
    Page("/pages/adapters", READ, adapters.adapters),
    Page("/pages/adapter", READ, adapters.adapter),
    Page("/pages/compare", READ, adapters.compare),
    Page("/pages/episodes", READ, episodes.episodes),
    Page("/pages/episode", READ, episode.episode),
    Page("/pages/episode/text", READ, episode.text),
    Page("/pages/audit", READ, audit.audit),
    *(Page(f"/pages/{name}", OPERATE, changes.handler(name), "POST") for name in changes.CHANGES),
    Page("/pages/sign-in", None, sign_in.sign_in_page),
    Page("/pages/sign-in", None, sign_in.sign_in, "POST"),
    Page("/pages/sign-out", None, sign_in.sign_out, "POST"),
    *(Page(f"/pages/{name}", None, _file(name)) for name in ("style.css", "script.js", "icon.svg")),
)
NEEDS = {page.path: page.role for page in PAGES}


def add_pages(
    app: FastAPI, access: Access, store: StoreClient, settings: ServingSettings, adapters: AdapterSettings
) -> None:
    """Put the pages before `app`, whose control API they use."""
    home = settings.home
    parts = Parts(app, access, Sessions(), store, home, Registry(home), AdapterStore(home / "adapters"), adapters)
    app.add_middleware(Before, site=site(parts))


def site(parts: Parts) -> ASGIApp:
    """The pages as an application of their own."""
    groups = {name: parts.of_group(name) for name in (DEFAULT_GROUP, *parts.settings.groups)}
    routes = [Route(page.path, _endpoint(page, groups), methods=[page.method]) for page in PAGES]

    async def missing(request: Request, error: Exception) -> Response:
        return problem(request, parts, 404, f"there is no page {request.url.path[:200]}")

    async def wrong_method(request: Request, error: Exception) -> Response:
        return problem(request, parts, 405, f"this page does not take {request.method}")

    guarded = [Middleware(sign_in.RequireSignIn, parts=parts, needs=NEEDS)]
    return Starlette(routes=routes, middleware=guarded, exception_handlers={404: missing, 405: wrong_method})


class Before:
    """ASGI middleware: the paths of pages go to `site`, all others to `app`."""

    def __init__(self, app: ASGIApp, site: ASGIApp) -> None:
        self._app, self._site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and (scope["path"] == "/" or scope["path"].startswith("/pages/"))
        await (self._site if is_page else self._app)(scope, receive, send)


def _endpoint(page: Page, groups: Mapping[str, Parts]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        parts, name = groups[DEFAULT_GROUP], request.query_params.get("group", DEFAULT_GROUP)
        try:
            check_group(name, parts.settings)
            parts = groups[name]
            return await page.answer(request, parts)
        except RequestRefusedError as error:
            return problem(request, parts, error.status, str(error))
        except (UnknownAdapterError, UnknownEpisodeError) as error:
            return problem(request, parts, 404, str(error))
        except (RatchetError, OSError) as error:
            return problem(request, parts, 503, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is logged and answered
            log.error("a page failed unexpectedly", path=page.path, exception=where_raised(error))
            return problem(request, parts, 500, UNEXPECTED)

    return answer
