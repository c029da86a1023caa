"""The one decision on a request: who sent it, and may they do this? Every interface asks `Access.admit`."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from ratchet_client.errors import ConfigurationError
from streams.access.pages import host_of, is_loopback, is_ours, is_same_origin
from streams.access.settings import AccessSettings, LimitSettings
from streams.access.token_file import TokenFile
from streams.access.tokens import TOKEN_VARIABLE, AccessRole, Caller, digest, internal_callers
from streams.errors import RequestRefusedError
from streams.runtime.tls import TlsSettings

log = structlog.get_logger()

LOOK_S = 1.0
_CALLER = "ratchet.caller"
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
# RFC 9110, section 9.2.1: they change nothing, and what they answer is kept from the page by its browser.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_REMEDY = "make one with `ratchet token new NAME --role ROLE`"


class Access:
    """Who may do what at an interface that listens on `host`, the setting `setting`.

    The tokens are those of the file of the folder `home`, read again when it changes; those of the settings,
    `configured`; and that of this process's own `ratchet run`. A role is closed, so that it needs a token, once the
    file is there or the settings have tokens for it. Off loopback every role is, unless `settings.open`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        setting: str = "host",
        settings: AccessSettings = AccessSettings(),  # noqa: B008 - frozen
        home: Path | None = None,
        configured: Mapping[bytes, Caller] | None = None,
    ) -> None:
        self._host, self._setting, self._settings = host, setting, settings
        self._names = frozenset(name.strip().lower() for name in (host, *settings.hosts))
        self._file = None if home is None else TokenFile(home)
        self._configured = dict(configured or {})
        self._fixed = self._configured | internal_callers()
        self._callers = self._fixed
        self._closed = frozenset(role for caller in self._configured.values() for role in caller.roles)
        self._stat: tuple[int, int, int] | None = None
        self._looked = -LOOK_S

    @property
    def limits(self) -> LimitSettings:
        """How much each principal may ask."""
        return self._settings.limits

    @property
    def tls(self) -> TlsSettings:
        """The TLS of the interface."""
        return self._settings.tls

    def begin(self) -> None:
        """Say in the log who is let in, where no token is asked for. Raises as `check`."""
        if not self.check():
            reach = "open to all of this machine" if is_loopback(self._host) else "open to any client that reaches it"
            log.warning(f"no token is asked for, as there is none: {reach}", host=self._host, remedy=_REMEDY)

    def check(self) -> bool:
        """Return whether there are tokens.

        Raises `ConfigurationError` where there are none and the network could ask, and where they cannot be read.
        """
        if self._file is not None:
            self._file.read()
        self._look()
        has_tokens = self._stat is not None or bool(self._configured)
        if not has_tokens and not is_loopback(self._host) and not self._settings.open:
            raise ConfigurationError(
                f"{self._setting} is {self._host}, where others than this machine can ask, and there is no token; "
                f"{_REMEDY}, listen on 127.0.0.1, or set access.open = true if any client that reaches it may do "
                "everything"
            )
        return has_tokens

    def closes(self, role: AccessRole) -> bool:
        """Return whether what needs `role` needs a token."""
        if self._stat is not None or role in self._closed:
            return True
        return not is_loopback(self._host) and not self._settings.open

    def admit(
        self, scope: Mapping[str, Any], role: AccessRole, *, from_pages: bool = False, filters_rows: bool = False
    ) -> Caller | None:
        """The caller of the ASGI request `scope`, which needs `role`; None where no token came and none is needed.

        With `from_pages` a page of another origin may send it. With `filters_rows` the server shows a caller its
        rows alone; elsewhere one that may not read all is refused. Raises `RequestRefusedError` with 401, 403 or 421.
        """
        self._look()
        headers = scope["headers"]
        given = given_tokens(headers)
        caller = self._known(given)
        if not self.closes(role):
            if caller is None:
                self._refuse_foreign_pages(scope["method"], headers, from_pages)
            return caller
        if caller is None:
            self._look(at_once=True)  # it may have been issued a moment ago
            caller = self._known(given)
        if caller is None:
            raise RequestRefusedError(401, "invalid_api_key", self._unknown(given, role), _CHALLENGE)
        if not caller.may(role):
            has = ", ".join(sorted(caller.roles))
            raise RequestRefusedError(
                403,
                "missing_role",
                f"this needs the role {role}, and the token of {caller.name} has {has}; send one that has it: "
                f"`ratchet token new NAME --role {role}`",
            )
        if caller.rows is not None and not filters_rows:
            raise RequestRefusedError(
                403,
                "some_rows_only",
                f"the token of {caller.name} may read some rows only, and this tells of all: ask POST /query of the "
                "record role, or send a token without that bound",
            )
        return caller

    def _known(self, given: tuple[str, ...]) -> Caller | None:
        for token in given:
            caller = self._callers.get(digest(token))
            if caller is not None and (caller.expires is None or time.time() < caller.expires):
                return caller
        return None

    def _unknown(self, given: tuple[str, ...], role: AccessRole) -> str:
        for token in given:
            if token and digest(token) in self._callers:
                return f"this token has expired; {_REMEDY}"
        said = "this token is not known" if any(given) else "no token came"
        return (
            f"{said}, and this needs one with the role {role}: send it as a bearer token or API key, commands from the "
            f"variable {TOKEN_VARIABLE}; {_REMEDY}"
        )

    def _refuse_foreign_pages(self, method: str, headers: list[tuple[bytes, bytes]], from_pages: bool) -> None:
        host, origin = _find(headers, b"host"), _find(headers, b"origin")
        if not is_ours(host, self._names):
            raise RequestRefusedError(
                421,
                "unknown_host",
                f"the host {host_of(host)!r:.100} is not a name of this server; ask it by its address, or add the name "
                "to access.hosts",
            )
        if method not in _SAFE and origin and not from_pages and not is_same_origin(origin, host):
            raise RequestRefusedError(
                403, "foreign_origin", "pages of other origins may not ask this server; ask it from a program"
            )

    def _look(self, *, at_once: bool = False) -> None:
        """Read the file again if it has changed. It is replaced as a whole, so its inode tells."""
        now = time.monotonic()
        if self._file is None or (now - self._looked < LOOK_S and not at_once):
            return
        self._looked = now
        try:
            found = os.stat(self._file.path)
            stat: tuple[int, int, int] | None = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError as error:
            # A file that may not be looked at has tokens for all we know.
            stat = None if isinstance(error, FileNotFoundError) else (0, 0, 0)
        if stat == self._stat:
            return
        self._stat = stat
        try:
            self._callers = self._fixed | self._file.callers()
        except ConfigurationError as error:
            self._callers = self._fixed
            log.error("no token of the file is taken", error=str(error))


def remember(scope: Any, caller: Caller | None) -> None:
    """Keep in the ASGI request `scope` who sent it."""
    scope[_CALLER] = caller


def caller_of(scope: Mapping[str, Any]) -> Caller | None:
    """The caller that `remember` has kept; None for a request without a token."""
    caller = scope.get(_CALLER)
    assert caller is None or isinstance(caller, Caller)
    return caller


def actor_of(scope: Mapping[str, Any], said: str) -> str:
    """The actor of a change, for the audit log: the token's name, or what the request says where none was used."""
    caller = caller_of(scope)
    return said if caller is None or caller.is_internal else caller.name


def given_tokens(headers: list[tuple[bytes, bytes]]) -> tuple[str, ...]:
    """The tokens that came, as OpenAI's clients or as Anthropic's send them."""
    found = []
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.decode("utf-8", "surrogateescape").partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                found.append(token.strip())
        elif name == b"x-api-key" and value.strip():
            found.append(value.decode("utf-8", "surrogateescape").strip())
    return tuple(found)


def _find(headers: list[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in headers if name == wanted), "")
