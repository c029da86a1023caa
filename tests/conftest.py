"""What the layers' tests share: a base model that is real in kind and tiny in size, and a real server of it."""

import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import structlog
import torch
from hypothesis import settings

from learners.base_model import resolve_base
from learners.settings import EMBEDDED
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.policy.client import PolicyClient
from streams.runtime.processes import free_port
from streams.store.api import build_api
from streams.store.settings import LakeSettings, StoreSettings
from streams.store.writer import Store
from tests.builders.base_models import write_tiny_llama
from tests.builders.episodes import HOLDOUT, KAFKA
from tests.builders.stored import ServedStore
from tests.builders.topics import with_own_topics
from tests.installed import faulty_package
from tests.locked import locked
from tests.postgres import Postgres, running_postgres
from tests.served import served
from tests.waiting import until

# Every HTTP client reads all certificates that it is to trust, which takes longer than most requests here. No test asks
# an address elsewhere; those of TLS have certificates of their own.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("one_certificate.pem"))
# Test processes run side by side, and two threads that wait for each other on one core are slower than one.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# How long an example takes says something about the machine only.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """What a command that a test runs sets up for the log ends with the test, as the stream does that it writes to."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: a randomly initialised Llama of two layers with the embedded model's own tokenizer."""
    return write_tiny_llama(tmp_path_factory.mktemp("tiny-base"))


@pytest.fixture(scope="session")
def embedded_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the embedded base model, which takes half a minute: converted once for all processes of this run."""
    folder = tmp_path_factory.getbasetemp()
    home = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "embedded"
    home.mkdir(exist_ok=True)
    with locked(home):
        resolve_base(EMBEDDED, home)
    return home


@pytest.fixture(scope="session")
def inference_url(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running inference server of the tiny base, a process of its own."""
    port, log = free_port(), tmp_path_factory.mktemp("inference") / "log"
    command = [sys.executable, "-m", "daemon.inference", "--model", str(tiny_base), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--threads", "1", "--dtype", "float32"], stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        until(
            lambda: process.poll() is not None or httpx.get(f"{url}/v1/models").is_success,
            lambda: f"the inference server starts: {log.read_text()[-2000:]}",
            within_s=90,
            errors=(httpx.TransportError,),
        )
        assert process.poll() is None, log.read_text()[-2000:]
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def policy(inference_url: str) -> AsyncIterator[PolicyClient]:
    async with PolicyClient(inference_url) as client:
        yield client


def pytest_collection_finish() -> None:
    """Thousands of tests are never garbage: collections that leave them out are several times shorter."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which brokers the one suite ran over: what needs Apache Kafka is nightly, or skipped where there is none."""
    ran = [report.nodeid for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    tansu, kafka = (sum(broker in name for name in ran) for broker in ("tansu", "apache-kafka"))
    if tansu or kafka:
        remedy = "" if kafka else " (`make test-nightly` does; docs/operating.md says how to get one)"
        terminalreporter.write_line(
            f"of the tests for every broker, {tansu} ran over Tansu, {kafka} over Kafka{remedy}"
        )


@pytest.fixture
def served_store(tmp_path: Path) -> Iterator[ServedStore]:
    """A real DuckDB file behind the real query API; half of all tasks are held out."""
    store = Store.open(StoreSettings(path=tmp_path / "store.duckdb"), HOLDOUT, KAFKA)
    with served(build_api(store), lifespan="off") as url:
        yield ServedStore(store, url)
    store.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def lake(postgres: Postgres, tmp_path: Path) -> LakeSettings:
    """A lake of this test's own, which is not made yet."""
    return LakeSettings(catalog=postgres.database(), data=tmp_path / "lake")


@pytest.fixture(scope="session")
def faulty_environments() -> Iterator[tuple[str, ...]]:
    """The names of environments of a third party: a sound one, and one for each promise that can be broken."""
    with faulty_package() as names:
        yield names


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[EmbeddedBroker]:
    """A broker for all tests that do not stop it; each has topics of its own."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def kafka(shared_broker: EmbeddedBroker) -> KafkaSettings:
    """The shared broker's settings with topics of this test's own, of one partition each."""
    settings = with_own_topics(KafkaSettings(bootstrap=shared_broker.bootstrap, session_timeout_s=2, partitions=1))
    create_topics(settings)
    return settings
