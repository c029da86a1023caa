"""Roles under one supervisor that show each other certificates, and know each other by the run's own token."""

import ssl
from pathlib import Path

import httpx
import pytest

from daemon.config import HealthSettings, Settings
from daemon.roles import Role
from daemon.serving.control_client import ControlClient
from daemon.serving.settings import ServingSettings
from daemon.supervisor import Supervisor
from streams.access.settings import AccessSettings
from streams.access.token_file import TokenFile
from streams.access.tokens import TOKEN_VARIABLE, AccessRole
from streams.assembly.client import AssemblyClient
from streams.assembly.settings import AssemblySettings
from streams.kafka.settings import KafkaSettings
from streams.otlp.settings import OtlpSettings
from streams.runtime.processes import free_port
from streams.runtime.tls import TlsSettings, client_context, use
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from tests.builders.certificates import Authority
from tests.waiting import eventually

ROLES = (Role.RECORD, Role.SERVE, Role.ASSEMBLE, Role.OTLP, Role.BRANCH)


@pytest.mark.nightly
async def test_every_interface_asks_for_certificates_and_a_token_of_the_shell_changes_nothing_between_roles(
    tmp_path: Path, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, home = Authority.make(tmp_path / "ca", "ours").mutual("roles"), tmp_path / "home"
    reader = TokenFile(home).issue("ann", [AccessRole.READ])
    # Of the person who starts it. The roles must not use it for each other: it may do too little.
    monkeypatch.setenv(TOKEN_VARIABLE, TokenFile(home).issue("weak", [AccessRole.ASK]))
    branch = free_port()
    settings = Settings(
        home=home,
        kafka=kafka,
        access=AccessSettings(tls=tls),
        store=StoreSettings(port=free_port()),
        serving=ServingSettings(port=free_port(), refresh_s=0.2),
        assembly=AssemblySettings(port=free_port()),
        otlp=OtlpSettings(port=free_port()),
        health=HealthSettings(branch_port=branch),
        engine={"url": "http://127.0.0.1:9"},
    ).settled()
    urls = (settings.store_url, settings.control_url, settings.assembly_url, settings.otlp_url)
    try:
        use(tls, urls)
        async with Supervisor(settings, None, ROLES):
            own = httpx.AsyncClient(verify=client_context(tls), headers={"authorization": f"Bearer {reader}"})
            async with own, httpx.AsyncClient(verify=_without_certificate(tls)) as stranger:

                async def branch_answers() -> bool:
                    return (await own.get(f"https://127.0.0.1:{branch}/metrics")).is_success

                await eventually(branch_answers, "the branch role answers", errors=(httpx.TransportError,))
                for url in (*urls, f"https://127.0.0.1:{branch}"):
                    assert (await own.get(f"{url}/metrics")).is_success, url
                    with pytest.raises(httpx.TransportError):
                        await stranger.get(f"{url}/healthz")
                    anonymous = await own.get(f"{url}/metrics", headers={"authorization": "Bearer x"})
                    assert anonymous.status_code == 401, "a certificate is not a token"

                async def store_is_seen() -> bool:
                    return "ratchet_store_up 1.0" in (await own.get(f"{settings.control_url}/metrics")).text

                await eventually(store_is_seen, "the serve role reads the store")
            monkeypatch.setenv(TOKEN_VARIABLE, reader)
            async with (
                StoreClient(settings.store_url) as store,
                ControlClient(settings.control_url) as control,
                AssemblyClient(settings.assembly_url, 30) as assembler,
            ):
                assert (await store.query("SELECT 1 AS one")).to_pylist() == [{"one": 1}]
                assert (await control.status()).alias == "assistant"
                assert (await assembler.status()).steps == 0
    finally:
        use(TlsSettings(), ())


def _without_certificate(tls: TlsSettings) -> ssl.SSLContext:
    return client_context(TlsSettings(ca=tls.ca))
