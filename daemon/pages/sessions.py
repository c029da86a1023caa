"""Sessions of browsers: each stands for a token that was signed in with, and has the CSRF token of its forms.

They are in memory alone, so that no token reaches a disk; after a restart every browser signs in again.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie

from starlette.types import Scope

LIFETIME_S = 12 * 3600
MOST_SESSIONS = 1000
_ID_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9_-]{43}")


class Sessions:
    """The sessions of one serve process. A browser without one has an id all the same, for the forms that it sends."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_ID_BYTES)
        self._begun: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def begin(self, token: str) -> str:
        """The id of a new session of `token`. Where there are too many, the oldest one ends."""
        made = new_id()
        self._begun[made] = (token, time.monotonic())
        while len(self._begun) > MOST_SESSIONS:
            self._begun.popitem(last=False)
        return made

    def end(self, session: str) -> None:
        """End the session of this id, if it is one."""
        self._begun.pop(session, None)

    def token(self, session: str) -> str:
        """The token that was signed in with; empty where nobody did, or too long ago."""
        token, begun = self._begun.get(session, ("", 0.0))
        if token and time.monotonic() - begun > LIFETIME_S:
            self.end(session)
            return ""
        return token

    def csrf(self, session: str) -> str:
        """The token of forms that only pages of this session know: an HMAC of its id, which no page can read."""
        return hmac.new(self._key, session.encode(), hashlib.sha256).hexdigest()

    def is_csrf(self, session: str, given: str) -> bool:
        """Return whether a form came with the token of its session."""
        return hmac.compare_digest(self.csrf(session).encode(), given.encode(errors="surrogateescape"))


def new_id() -> str:
    return secrets.token_urlsafe(_ID_BYTES)


def cookie_name(scope: Scope) -> str:
    """Cookies do not tell ports apart, so that the name does: several Ratchets may run on one machine."""
    server = scope.get("server")
    return f"ratchet-{server[1] if server else 0}"


def session_of(scope: Scope) -> str:
    """The id in the request's cookie; empty where there is none that is of the form of ours."""
    for name, value in scope["headers"]:
        if name == b"cookie":
            try:
                found = SimpleCookie(value.decode("latin-1")).get(cookie_name(scope))
            except CookieError:
                continue
            if found is not None and _ID.fullmatch(found.value):
                return found.value
    return ""


def cookie(scope: Scope, session: str) -> str:
    """The Set-Cookie header that gives a browser its session: no script reads it, and no other site sends it."""
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return f"{cookie_name(scope)}={session}; Path=/; HttpOnly; SameSite=Strict{secure}"
