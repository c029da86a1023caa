"""Requests that a browser sends for a page of somebody else's, and how they are told from those of a person or program.

Without tokens an interface lets in any client that reaches it, and any page reaches loopback through the browser that
shows it.
By DNS rebinding its own name leads there: then the Host header is that name (CWE-350). Otherwise the browser says in
Origin whose page it is (Fetch standard, section 3.2).
"""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit


def host_of(authority: str) -> str:
    """The host of a Host header, in lower case.

    >>> host_of("LocalHost:8420"), host_of("[::1]:80"), host_of("[evil")
    ('localhost', '::1', '')
    """
    try:
        return (urlsplit(f"//{authority.strip()}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens on `host`.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "0.0.0.0", "example.org", "")]
    [True, True, True, False, False, False]
    """
    host = host.strip("[]").lower()
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)


def is_ours(authority: str, names: Collection[str]) -> bool:
    """Return whether the Host header is an address, which no name server can lead elsewhere, or a known name.

    >>> is_ours("localhost:8420", ()), is_ours("10.0.0.1", ()), is_ours("evil.example", ("ratchet",))
    (True, True, False)
    """
    host = host_of(authority)
    return host == "localhost" or host.endswith(".localhost") or is_address(host) or host in names


def is_same_origin(origin: str, authority: str) -> bool:
    """Return whether a page of `origin` may ask the server that it knows as `authority`.

    >>> is_same_origin("http://127.0.0.1:8420", "127.0.0.1:8420"), is_same_origin("null", "127.0.0.1:8420")
    (True, False)
    """
    return origin.partition("://")[2].lower() == authority.strip().lower()
