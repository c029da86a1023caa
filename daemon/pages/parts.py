"""The parts of the serve role that pages are made of, and what is known of who asks for one."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx
from starlette.requests import Request
from starlette.types import ASGIApp

from daemon.pages.sessions import Sessions
from daemon.registry.registry import Registry
from daemon.serving.control_client import ControlClient
from daemon.serving.store_watch import PATIENCE_S
from learners.adapters import AdapterStore
from ratchet_client.error_body import error_message
from ratchet_client.errors import RatchetError
from streams.access.access import Access
from streams.access.tokens import AccessRole, Caller
from streams.errors import RequestRefusedError, StoreError, UnknownEpisodeError
from streams.store.client import StoreClient
from streams.trust.groups import DEFAULT_GROUP, AdapterSettings, home_of

T = TypeVar("T")

LONGEST_PATIENCE_S = 30.0
NOBODY = "console without a token"
_VISIT = "ratchet.visit"
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Visit:
    """Who asks: the session's id, the token that it was signed in with (empty without), and whose that is."""

    session: str
    is_new: bool
    token: str
    caller: Caller | None

    @property
    def actor(self) -> str:
        """The actor that a change names. The control API takes the token's name instead, where there is one."""
        return NOBODY if self.caller is None else self.caller.name


class OwnControl(ControlClient):
    """A client of the control API of this very process: what it refuses keeps its status and its words."""

    def refusal(self, path: str, response: httpx.Response) -> RatchetError:
        return RequestRefusedError(response.status_code, "refused", error_message(response.content))


@dataclass(frozen=True, slots=True)
class Parts:
    """What pages are made of. `app` is the serve role's, `store` the record role's query API.

    `home` is the home of one `group` of agents and tenants of `settings`, whose registry and adapters these are.
    """

    app: ASGIApp
    access: Access
    sessions: Sessions
    store: StoreClient
    home: Path
    registry: Registry
    adapters: AdapterStore
    settings: AdapterSettings
    group: str = DEFAULT_GROUP

    def of_group(self, name: str) -> "Parts":
        """Those of another group, from those of the default one."""
        home = home_of(self.home, name)
        return replace(
            self, home=home, registry=Registry(home, name), adapters=AdapterStore(home / "adapters"), group=name
        )

    def control(self, request: Request) -> ControlClient:
        """The control API as who asks may use it. It is asked as over the network, guard and all, but within here."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return OwnControl("http://127.0.0.1", group=self.group, token=visit_of(request).token, transport=transport)

    def may(self, request: Request, role: AccessRole) -> bool:
        """Return whether who asks may do what needs `role`."""
        caller = visit_of(request).caller
        return caller.may(role) if caller is not None else not self.access.closes(role)


def enter(request_scope: dict[str, object], visit: Visit) -> None:
    """Keep in an ASGI request who asks."""
    request_scope[_VISIT] = visit


def visit_of(request: Request) -> Visit:
    visit = request.scope[_VISIT]
    assert isinstance(visit, Visit)
    return visit


def whole_number(text: str) -> int | None:
    """A number of a query, at most one that the store can hold; None for any other text.

    >>> whole_number("17"), whole_number("-1"), whole_number("9" * 19)
    (17, None, None)
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else None


async def within(request: Request, asked: Awaitable[T]) -> tuple[T | None, str]:
    """What the store answers within a second, or as many as the query `wait` allows; else None, and why.

    What takes longer is broken off, which interrupts the store's query. Raises `UnknownEpisodeError`.
    """
    try:
        patience = min(float(request.query_params.get("wait", "")), LONGEST_PATIENCE_S)
    except ValueError:
        patience = PATIENCE_S
    try:
        async with asyncio.timeout(patience):
            return await asked, ""
    except TimeoutError:
        return None, f"the store did not answer within {patience:g} s"
    except UnknownEpisodeError:
        raise
    except StoreError as error:
        return None, str(error)
