"""Settings of TLS and SASL: what is missing or contradicts itself is refused, and a password is never shown."""

import ssl
from pathlib import Path

import pytest
from faust.auth import SASLCredentials
from pydantic import ValidationError

from ratchet_client.errors import BrokerError, ConfigurationError
from ratchet_client.kafka.security import KafkaSecurity, client_options
from ratchet_client.settings import REVEAL
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.kafka.worker import build_app

SASL = KafkaSecurity.model_validate({"protocol": "SASL_SSL", "username": "ratchet", "password": "hunter2"})


def test_without_settings_clients_speak_plaintext() -> None:
    assert client_options("kafka://one:9092, two:9092", KafkaSecurity()) == {
        "bootstrap_servers": ["one:9092", "two:9092"],
        "security_protocol": "PLAINTEXT",
    }
    assert build_app("test", KafkaSettings(bootstrap="one:9092"), bundle=1).conf.broker_credentials is None


def test_both_clients_get_the_same_settings() -> None:
    options = client_options("one:9093", SASL)
    context = options.pop("ssl_context")
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert options == {
        "bootstrap_servers": ["one:9093"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "ratchet",
        "sasl_plain_password": "hunter2",
    }
    app = build_app("test", KafkaSettings(bootstrap="one:9093", security=SASL), bundle=1)
    credentials = app.conf.broker_credentials
    assert isinstance(credentials, SASLCredentials)
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (credentials.username, credentials.password) == ("ratchet", "hunter2")


def test_hostname_checks_may_be_switched_off_but_certificate_verification_may_not() -> None:
    context = client_options("one:9093", KafkaSecurity(protocol="SSL", check_hostname=False))["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert not context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocol": "SASL_SSL", "username": "ratchet"},
        {"protocol": "SASL_PLAINTEXT", "password": "hunter2"},
        {"protocol": "SSL", "username": "ratchet", "password": "hunter2"},
        {"password": "hunter2"},
        {"protocol": "PLAINTEXT", "cafile": "ca.pem"},
        {"protocol": "SSL", "certfile": "client.pem"},
    ],
)
def test_a_setting_that_is_missing_or_would_be_ignored_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        KafkaSettings.model_validate({"security": wrong})
    assert "hunter2" not in str(refused.value)


def test_a_password_is_revealed_only_to_processes_of_our_own() -> None:
    kafka = KafkaSettings(bootstrap="one:9093", security=SASL)
    assert "hunter2" not in f"{kafka!r} {kafka} {kafka.model_dump()} {kafka.model_dump_json()}"
    assert "hunter2" not in repr(build_app("test", kafka, bundle=1).conf.broker_credentials)
    assert KafkaSettings.model_validate_json(kafka.model_dump_json(context=REVEAL)) == kafka


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    authority = tmp_path / "ca.pem"
    if content:
        authority.write_text(content)
    security = KafkaSecurity(protocol="SSL", cafile=authority)
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        create_topics(KafkaSettings(bootstrap="one:9093", security=security))


def test_an_unreachable_cluster_is_a_broker_error_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet_client.kafka.connection.BOOTSTRAP_TIMEOUT_MS", 500)
    with pytest.raises(BrokerError) as failed:
        create_topics(KafkaSettings(bootstrap="127.0.0.1:1", security=SASL))
    assert "hunter2" not in str(failed.value)
