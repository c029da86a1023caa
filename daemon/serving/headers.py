"""The headers that the gateway passes on, to the inference server and back."""

from collections.abc import Iterable
from typing import TypeAlias

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
"""Pairs in the order in which they came; names in lower case."""

# RFC 9110, section 7.6.1: they are about one connection.
_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
# The body is sent on as plain JSON whatever it came as, and its reply is read: it must not be compressed.
_REQUEST_ONLY = frozenset({b"host", b"content-length", b"content-encoding", b"accept-encoding", b"expect"})
# Uvicorn writes the last two itself.
_REPLY_ONLY = frozenset({b"content-length", b"server", b"date"})
CREDENTIALS = frozenset({b"authorization", b"x-api-key"})
_OWN = b"x-ratchet-"


def to_upstream(headers: RawHeaders, own_credentials: bool) -> RawHeaders:
    """The headers of a request that the inference server gets.

    With `own_credentials` the request's token is the gateway's and not the inference server's: it stays here.
    """
    stays = _REQUEST_ONLY | CREDENTIALS if own_credentials else _REQUEST_ONLY
    return [*_passing(headers, stays), (b"accept-encoding", b"identity")]


def to_client(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers of the inference server's answer that the client gets."""
    return _passing([(name.lower(), value) for name, value in headers], _REPLY_ONLY)


def find(headers: RawHeaders, name: bytes) -> str | None:
    """The first header of that name. Bytes that are not UTF-8 are read as Latin-1."""
    for found, value in headers:
        if found == name:
            return decoded(value)
    return None


def decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def own(headers: RawHeaders) -> dict[str, str]:
    """The headers that are for the gateway, by name."""
    return {name.decode("latin-1"): decoded(value) for name, value in headers if name.startswith(_OWN)}


def _passing(headers: RawHeaders, stays: frozenset[bytes]) -> RawHeaders:
    stays = stays | _HOP_BY_HOP
    for name, value in headers:
        if name == b"connection":
            stays = stays | {each.strip().lower() for each in value.split(b",")}
    return [(name, value) for name, value in headers if name not in stays and not name.startswith(_OWN)]
