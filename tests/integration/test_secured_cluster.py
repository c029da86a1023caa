"""TLS on both sides and SASL over a real Apache Kafka: topics, the producer library, Faust, and what is refused."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from ratchet_client.errors import BrokerError
from ratchet_client.events import EVENT, Actor, Message, StepEvent, Task
from ratchet_client.kafka.security import KafkaSecurity
from ratchet_client.producer import Producer
from streams.kafka.records import Outgoing, Received
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import cluster_id, create_topics, end_offsets
from streams.kafka.worker import build_app, consume, publish, run
from tests.kafka_node import KafkaNode

pytestmark = pytest.mark.slow

PASSWORD = "correct-horse"
STATE = (Message(role="user", content="?"),)


def write_certificates(folder: Path) -> None:
    """An authority, and a broker's and a client's certificate signed by it; `other.pem` is unowned authority."""
    authority = ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(certificate("authority", authority, authority))
    other = ec.generate_private_key(ec.SECP256R1())
    (folder / "other.pem").write_bytes(certificate("other", other, other))
    for name in ("broker", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.pem").write_bytes(certificate(name, key, authority))
        (folder / f"{name}-key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    both = (folder / "broker-key.pem").read_bytes() + (folder / "broker.pem").read_bytes()
    (folder / "broker-keystore.pem").write_bytes(both)


def certificate(name: str, key: ec.EllipticCurvePrivateKey, authority: ec.EllipticCurvePrivateKey) -> bytes:
    issuer = name if key is authority else "authority"
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=key is authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
    )
    return builder.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def node(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    """A node whose second listener asks for a client certificate and for a password, PLAIN or SCRAM."""
    plain = rf"org.apache.kafka.common.security.plain.PlainLoginModule\u0020required\u0020user_ratchet={PASSWORD};"
    scram = r"org.apache.kafka.common.security.scram.ScramLoginModule\u0020required;"
    node = KafkaNode(
        tmp_path_factory.mktemp("kafka"),
        tls_listener=[
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512",
            f"listener.name.sasl_ssl.plain.sasl.jaas.config={plain}",
            f"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}",
            "listener.name.sasl_ssl.ssl.client.auth=required",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={folder / 'broker-keystore.pem'}",
            "ssl.truststore.type=PEM",
            f"ssl.truststore.location={folder / 'ca.pem'}",
        ],
    )
    node.start()
    admin = KafkaAdminClient(bootstrap_servers=node.bootstrap)
    admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion("ratchet", ScramMechanism.SCRAM_SHA_512, PASSWORD, iterations=4096)]
    )
    admin.close()
    yield node
    node.kill()


def settings(node: KafkaNode, folder: Path, mechanism: str, changes: Mapping[str, str | None]) -> KafkaSettings:
    given = {
        "protocol": "SASL_SSL",
        "cafile": folder / "ca.pem",
        "certfile": folder / "client.pem",
        "keyfile": folder / "client-key.pem",
        "mechanism": mechanism,
        "username": "ratchet",
        "password": PASSWORD,
    }
    security = KafkaSecurity.model_validate({**given, **changes})
    topic = f"events-{mechanism}"
    return KafkaSettings(
        bootstrap=f"127.0.0.1:{node.tls_port}", security=security, session_timeout_s=6, events_topic=topic
    )


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_every_client_connects_to_a_secured_cluster(
    node: KafkaNode, folder: Path, tmp_path: Path, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kafka = settings(node, folder, mechanism, {})
    await asyncio.to_thread(create_topics, kafka)
    assert cluster_id(kafka.bootstrap, kafka.security) == cluster_id(node.bootstrap)

    with Producer(
        kafka.bootstrap,
        agent="a",
        principal="p",
        topic=kafka.events_topic,
        spool=tmp_path,
        security=kafka.security,
        flush_timeout_s=30,
    ) as producer:
        episode = producer.episode(Task(environment="e", task_id="t"), Actor(kind="expert"))
        for _ in range(20):
            episode.step(STATE, Message(role="assistant", content="!"), "")
    assert producer.stats().sent == 20
    assert sum(end_offsets(kafka.bootstrap, kafka.events_topic, kafka.security).values()) == 20

    steps: list[int] = []
    stop = asyncio.Event()
    app = build_app("test", kafka, bundle=100)

    async def handle(records: list[Received]) -> None:
        events = [EVENT.validate_json(record.value or b"") for record in records]
        steps.extend(event.step for event in events if isinstance(event, StepEvent))
        await publish(app, [Outgoing(kafka.dead_letters_topic, record.key, record.value or b"") for record in records])
        if len(steps) == 20:
            stop.set()

    consume(app, kafka.events_topic, handle)
    async with asyncio.timeout(90):
        await run(app, stop)
    assert steps == list(range(20))
    assert sum(end_offsets(kafka.bootstrap, kafka.dead_letters_topic, kafka.security).values()) >= 20
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [{"password": "wrong-horse"}, {"certfile": None, "keyfile": None}, {"cafile": "other.pem"}],
    ids=["password", "no client certificate", "unknown authority"],
)
def test_a_client_without_valid_credentials_is_refused(
    node: KafkaNode,
    folder: Path,
    tmp_path: Path,
    wrong: dict[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("ratchet_client.kafka.connection.BOOTSTRAP_TIMEOUT_MS", 3_000)
    if "cafile" in wrong:
        wrong = {"cafile": str(folder / "other.pem")}
    kafka = settings(node, folder, "PLAIN", wrong)
    with pytest.raises(BrokerError) as refused:
        create_topics(kafka)
    with Producer(
        kafka.bootstrap, agent="a", principal="p", spool=tmp_path, security=kafka.security, flush_timeout_s=1
    ) as producer:
        episode = producer.episode(Task(environment="e", task_id="t"), Actor(kind="expert"))
        assert episode.step(STATE, Message(role="assistant", content="!"), "")
    assert (producer.stats().sent, producer.stats().dropped) == (0, 0)
    assert "horse" not in f"{refused.value} {caplog.text}"
