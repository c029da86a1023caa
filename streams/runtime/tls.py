"""TLS of Ratchet's interfaces and of its own clients of them, with certificates on both sides where that is asked for.

A role's server takes its settings from `Access`. The clients of a process take theirs from `use`, which
`Settings.load` calls: `context_for` is asked by every client, and knows which addresses are Ratchet's own.
"""

import ssl
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import FrozenModel


class TlsSettings(FrozenModel):
    """Settings of TLS at all interfaces; without a certificate they speak plain HTTP. Files are in the PEM format."""

    certificate: Path | None = Field(
        default=None,
        description="The certificate of this process's interfaces, and those that sign it; its names must be those "
        "that clients ask for.",
    )
    key: Path | None = Field(default=None, description="The key of the certificate, not encrypted.")
    client_ca: Path | None = Field(
        default=None,
        description="Who signs the certificates of clients: one without such a certificate is refused. Roles then send "
        "their own, which must be for clients too.",
    )
    ca: Path | None = Field(
        default=None, description="Who signs the certificates of interfaces, beside those that the system trusts."
    )

    @model_validator(mode="after")
    def _certificate_is_whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: set both, or neither")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca asks clients for certificates by TLS: set certificate and key too")
        return self

    @property
    def scheme(self) -> str:
        return "http" if self.certificate is None else "https"


def server_context(tls: TlsSettings) -> ssl.SSLContext | None:
    """The context of an interface, TLS 1.2 or later; None for plain HTTP. Raises `ConfigurationError`."""
    if tls.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_own(context, tls)
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_authority(context, tls.client_ca, "access.tls.client_ca")
    return context


@lru_cache(maxsize=8)  # it reads all certificates that the system trusts
def client_context(tls: TlsSettings) -> ssl.SSLContext:
    """The context of a client of Ratchet's interfaces. Raises `ConfigurationError`."""
    context = ssl.create_default_context()
    if tls.ca is not None:
        _load_authority(context, tls.ca, "access.tls.ca")
    if tls.certificate is not None:
        _load_own(context, tls)
    return context


_used: tuple[TlsSettings, frozenset[str]] = (TlsSettings(), frozenset())


def use(tls: TlsSettings, urls: Iterable[str]) -> None:
    """Have this process's clients of `urls`, Ratchet's own interfaces, trust and show what `tls` says from now on."""
    global _used
    _used = (tls, frozenset(urls))


def context_for(url: str) -> ssl.SSLContext | None:
    """The context for a client of `url`; None where it is another's interface over TLS, and httpx is to make its own.

    Raises `ConfigurationError`.
    """
    if url.startswith("http://"):
        return _unused_context()
    tls, urls = _used
    return client_context(tls) if url in urls else None


@lru_cache(maxsize=1)
def _unused_context() -> ssl.SSLContext:
    """A context that trusts nobody: httpx wants one for plain HTTP too, and its own reads all certificates for it."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def reached_host(host: str) -> str:
    """The name by which this machine reaches what listens on `host`.

    >>> reached_host("0.0.0.0"), reached_host("::"), reached_host("record")
    ('127.0.0.1', '[::1]', 'record')
    """
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)


def _load_own(context: ssl.SSLContext, tls: TlsSettings) -> None:
    assert tls.certificate is not None
    assert tls.key is not None
    try:
        # Without a password of ours, OpenSSL would ask the terminal for one.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the certificate {tls.certificate} with the key {tls.key} cannot be used: {error}; correct "
            "access.tls.certificate and access.tls.key"
        ) from error


def _load_authority(context: ssl.SSLContext, path: Path, setting: str) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise ConfigurationError(f"the certificates in {path} cannot be used: {error}; correct {setting}") from error
