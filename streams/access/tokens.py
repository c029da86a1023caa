"""The tokens of a home, and what they allow.

A token is 256 random bits, and only its SHA-256 is kept. Slow hashes (bcrypt, Argon2) are for passwords, which can be
guessed: nobody searches 2^256 tokens, however fast the hash is, so a fast one gives nothing away and lets each request
be checked by one look-up. Nor does the time of that look-up tell anything, as nobody can choose the beginning of a
digest.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, model_validator

from ratchet_client.settings import FrozenModel, Secret

TOKEN_VARIABLE = "RATCHET_TOKEN"
INTERNAL_VARIABLE = "RATCHET_INTERNAL_TOKEN"
INTERNAL_ROLES_VARIABLE = "RATCHET_INTERNAL_ROLES"
INTERNAL = "ratchet (internal)"
_PREFIX = "ratchet_"
_BYTES = 32
_ID_DIGITS = 12
_LONGEST = timedelta(days=36_500)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class AccessRole(StrEnum):
    """What a token allows.

    `ASK`: calls of the model and feedback. `RECORD`: telemetry by OTLP. `READ`: queries, status, history and metrics.
    `OPERATE`: promote, roll back, restore, hold, resume, approve and reject. `ADMIN`: all of it.
    """

    ASK = "ask"
    RECORD = "record"
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


# Without white space, so that none can pass for `INTERNAL`.
TokenName = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s\x00-\x1f\x7f]+$")]


class RowFilter(FrozenModel):
    """The episodes that a token may read: those of principals whose names begin so, and of these agents alone.

    None is no condition; where both are there, both hold.
    """

    principal_prefix: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    agents: tuple[Annotated[str, Field(min_length=1, max_length=512)], ...] | None = Field(default=None, min_length=1)


class Token(FrozenModel):
    """A token as it is kept. `name` is the principal whose calls it proves, and the actor in the audit log.

    With `rows` it may ask the query API alone, and sees these rows alone.
    """

    name: TokenName
    roles: tuple[AccessRole, ...] = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: AwareDatetime
    expires: AwareDatetime | None = None
    rows: RowFilter | None = None

    @model_validator(mode="after")
    def _rows_are_read_only(self) -> Self:
        if self.rows is not None and self.roles != (AccessRole.READ,):
            raise ValueError("a token that sees some rows only has the role read, and no other")
        return self


class Caller(FrozenModel):
    """Who sent a request with a known token. `expires` is in seconds since the epoch, `id` is the token's.

    `rows` are those that it may read, None for all.

    `is_internal` says that it is a process of the same `ratchet run`, which speaks for whomever it names.
    """

    name: str
    roles: frozenset[AccessRole]
    expires: float | None = None
    is_internal: bool = False
    id: str = ""
    rows: RowFilter | None = None

    def may(self, role: AccessRole) -> bool:
        return role in self.roles or AccessRole.ADMIN in self.roles

    @property
    def principal(self) -> str | None:
        """The principal that is proved by the token."""
        return None if self.is_internal else self.name


def token_id(sha256: str) -> str:
    """The name of one token among those of a principal, for logs: the beginning of its hash."""
    return sha256[:_ID_DIGITS]


def new_token() -> str:
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def digest(token: str) -> bytes:
    """The SHA-256 under which a token is known.

    >>> digest("ratchet_x").hex()[:8]
    '3dc99a09'
    """
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def callers(tokens: Mapping[str, Secret], role: AccessRole) -> dict[bytes, Caller]:
    """The callers of tokens that the settings have by principal, by the digests of the tokens."""
    digests = {name: digest(token.get_secret_value()) for name, token in tokens.items()}
    return {
        sha256: Caller(name=name, roles=frozenset({role}), id=token_id(sha256.hex()))
        for name, sha256 in digests.items()
    }


def internal_callers() -> dict[bytes, Caller]:
    """The processes of the `ratchet run` that this process is of; nothing where it runs alone."""
    token = os.environ.get(INTERNAL_VARIABLE, "")
    internal = Caller(name=INTERNAL, roles=frozenset({AccessRole.ADMIN}), is_internal=True)
    return {digest(token): internal} if token else {}


def own_token(role: str) -> str:
    """The token that this process sends to the role `role`: that of its `ratchet run`, where the role is one of it.

    To a role that runs elsewhere it sends `RATCHET_TOKEN`, or nothing: there nobody knows the other one.
    """
    is_of_this_run = role in os.environ.get(INTERNAL_ROLES_VARIABLE, "").split(",")
    return os.environ.get(INTERNAL_VARIABLE if is_of_this_run else TOKEN_VARIABLE, "")


def duration(text: str) -> timedelta:
    """The time that `text` says: a number and one of s, m, h, d, w. Raises `ValueError`.

    >>> duration("90d")
    datetime.timedelta(days=90)
    """
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhdw])", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a duration: write a number and one of s, m, h, d, w, such as 90d")
    time = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if time > _LONGEST:
        raise ValueError(f"{text!r} is longer than a token lives; leave it out for one that does not expire")
    return time


def is_expired(token: Token, now: datetime) -> bool:
    return token.expires is not None and token.expires <= now
