"""Templates become answers here, with the headers that keep a page from running or loading anything of others.

Whatever a template shows goes through `shown` and is then escaped: agents wrote most of it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from daemon.console import duration
from daemon.pages.parts import Parts, visit_of
from daemon.pages.sessions import cookie
from daemon.printable import printable
from streams.access.tokens import AccessRole

FOLDER = Path(__file__).parent
CUT_AT = 2000
"""Characters of a text that a page shows; the whole of a longer one is a link away."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not `no-referrer`: forms would then come without their origin.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
NAVIGATION: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("/", "Now", ()),
    ("/pages/queue", "Decisions", ()),
    ("/pages/gates", "Cycles and gates", ("/pages/gate", "/pages/match")),
    ("/pages/adapters", "Adapters", ("/pages/adapter", "/pages/compare")),
    ("/pages/episodes", "Episodes", ("/pages/episode",)),
    ("/pages/audit", "Audit log", ()),
)
"""The pages to go to, each with those that lie below it."""
OF_GROUPS = frozenset({"/", "/pages/queue", "/pages/gates", "/pages/adapters", "/pages/audit"})
"""The pages that show one group of agents and tenants, and on which another can be chosen."""


def shown(value: object) -> object:
    """Anybody's text without what would command a terminal or turn the reading direction; all else as it is.

    >>> shown("a\\u202eb"), shown(3)
    ('a\\\\u202eb', 3)
    """
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return "" if value is None else value


def short(digest: str | None) -> str:
    """The beginning of an adapter's digest; `base` is a word."""
    return (digest or "")[:12]


def when(at: datetime | None) -> str:
    """A time in UTC, to the second."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def ago(at: datetime | None) -> str:
    """How long ago that was."""
    return "" if at is None else f"{duration(datetime.now(UTC) - at.astimezone(UTC))} ago"


def percent(share: float | None) -> str:
    return "not known" if share is None else f"{share:.1%}"


def figure(value: object) -> str:
    """A gate's figure: numbers with the digits that tell something."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def cut(text: str) -> str:
    return text if len(text) <= CUT_AT else text[:CUT_AT] + " …"


def url(path: str, **query: object) -> str:
    """An address of these pages; values of None are left out."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, errors='backslashreplace')}" if given else path


_templates = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    finalize=shown,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(short=short, when=when, ago=ago, percent=percent, figure=figure, cut=cut)
_templates.globals.update(navigation=NAVIGATION, of_groups=OF_GROUPS, cut_at=CUT_AT)


def fragment(template: str, **values: Any) -> str:
    """A piece of a page."""
    return _templates.get_template(template).render(**values)


def page(
    request: Request,
    parts: Parts,
    template: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """The page that `template` makes of `values`. A browser that had no id gets one, for its forms.

    Its links lead to pages of the same group.
    """
    visit = visit_of(request)
    text = fragment(
        template,
        path=request.url.path,
        url=partial(url, group=parts.group or None),
        group=parts.group,
        groups=tuple(parts.settings.groups),
        visit=visit,
        csrf=parts.sessions.csrf(visit.session),
        has_tokens=any(parts.access.closes(role) for role in AccessRole),
        may_operate=parts.may(request, AccessRole.OPERATE),
        may_read=parts.may(request, AccessRole.READ),
        **values,
    )
    answer = Response(text.encode(errors="backslashreplace"), status, {**HEADERS, **(headers or {})})
    answer.headers["content-type"] = "text/html; charset=utf-8"
    if visit.is_new:
        answer.headers["set-cookie"] = cookie(request.scope, visit.session)
    return answer


def whole(text: str) -> Response:
    """A text as it is, which the browser shows and takes for nothing else."""
    headers = {**HEADERS, "Content-Security-Policy": "default-src 'none'; sandbox"}
    return PlainTextResponse(text.encode(errors="backslashreplace"), headers=headers)


def problem(request: Request, parts: Parts, status: int, message: str) -> Response:
    """The page of an error."""
    titles = {403: "Not allowed", 404: "Not found", 409: "Refused", 421: "Unknown host"}
    return page(request, parts, "problem.html", status, title=titles.get(status, "This went wrong"), message=message)
