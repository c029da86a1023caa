"""TLS of an interface: whom it lets in by certificates, and what is said of files that cannot be used."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from pydantic import ValidationError

from ratchet_client.errors import ConfigurationError
from streams.errors import IntakeError
from streams.runtime.health import answers, health_app
from streams.runtime.http_client import HttpClient
from streams.runtime.http_server import HttpServer, listen
from streams.runtime.tls import TlsSettings, client_context, context_for, server_context, use
from tests.builders.certificates import Authority


class Client(HttpClient):
    server, remedy, error = "the test's server", "look", IntakeError

    async def version(self) -> int:
        return (await self._call("GET", "/version")).status_code


@pytest.fixture(autouse=True)
def _plain_again() -> Iterator[None]:
    yield
    use(TlsSettings(), ())


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ours", "ours")


@asynccontextmanager
async def serving(tls: TlsSettings) -> AsyncIterator[str]:
    """The address of an interface that speaks TLS."""
    listener = listen("127.0.0.1", 0, "the test's server", "nothing")
    config = uvicorn.Config(health_app("branch", {}), log_level="critical", lifespan="off")
    server = HttpServer(config, tls)
    running = asyncio.create_task(server.serve([listener]))
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


async def status(url: str, tls: TlsSettings) -> int:
    async with httpx.AsyncClient(verify=client_context(tls)) as client:
        return (await client.get(f"{url}/healthz")).status_code


async def test_with_a_certificate_alone_any_client_is_let_in_that_trusts_it(ours: Authority) -> None:
    certificate, key = ours.sign("server")
    async with serving(TlsSettings(certificate=certificate, key=key)) as url:
        assert await status(url, TlsSettings(ca=ours.path)) == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await status(url, TlsSettings())
        with pytest.raises(httpx.HTTPError):
            await status(url.replace("https", "http"), TlsSettings())


async def test_with_a_client_ca_no_client_is_let_in_without_a_certificate_of_it(
    ours: Authority, tmp_path: Path
) -> None:
    theirs = Authority.make(tmp_path / "theirs", "theirs")
    certificate, key = theirs.sign("stranger")
    async with serving(ours.mutual("server")) as url:
        assert await status(url, ours.mutual("client")) == 200
        for stranger in (TlsSettings(ca=ours.path), TlsSettings(ca=ours.path, certificate=certificate, key=key)):
            with pytest.raises(httpx.HTTPError):
                await status(url, stranger)
        assert await status(url, ours.mutual("client")) == 200, "it goes on after refusals"


async def test_a_name_that_the_certificate_has_not_is_not_trusted(ours: Authority) -> None:
    certificate, key = ours.sign("elsewhere", "127.0.0.9")
    async with serving(TlsSettings(certificate=certificate, key=key)) as url:
        with pytest.raises(httpx.ConnectError, match="IP address mismatch"):
            await status(url, TlsSettings(ca=ours.path))


async def test_clients_of_ratchets_own_interfaces_show_their_certificate_and_others_do_not(ours: Authority) -> None:
    tls = ours.mutual("roles")
    async with serving(tls) as url:
        async with Client(url, 10) as stranger:
            with pytest.raises(IntakeError):
                await stranger.version()
        use(tls, [url])
        async with Client(url, 10) as own:
            assert await own.version() == 200
        assert await answers(f"{url}/healthz")() == ""
        use(tls, ["https://127.0.0.1:1"])
        async with Client(url, 10) as other:
            with pytest.raises(IntakeError):
                await other.version()
        assert "did not answer" in await answers(f"{url}/healthz")()


def test_files_that_cannot_be_used_are_named_with_their_setting(ours: Authority, tmp_path: Path) -> None:
    certificate, _ = ours.sign("one")
    _, other = ours.sign("other")
    for key in (tmp_path / "absent", other):
        with pytest.raises(ConfigurationError, match=r"one\.crt.*access\.tls\.certificate and access\.tls\.key"):
            server_context(TlsSettings(certificate=certificate, key=key))
    with pytest.raises(ConfigurationError, match=r"access\.tls\.client_ca"):
        server_context(ours.mutual("server").model_copy(update={"client_ca": other}))
    with pytest.raises(ConfigurationError, match=r"access\.tls\.ca$"):
        client_context(TlsSettings(ca=tmp_path / "absent"))
    for half in ({"certificate": certificate}, {"key": other}, {"client_ca": ours.path}):
        with pytest.raises(ValidationError):
            TlsSettings.model_validate(half)


def test_a_client_over_plain_http_trusts_no_certificate() -> None:
    context = context_for("http://127.0.0.1:8420")
    assert context is not None
    assert (context.get_ca_certs(), context.verify_mode) == ([], ssl.CERT_REQUIRED)
