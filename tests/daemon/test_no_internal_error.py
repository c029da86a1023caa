"""Requests made from the OpenAPI documents of the HTTP interfaces, right and wrong ones: none gets a 500."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import BaseSchema, Case, CheckContext, GenerationMode, Response
from schemathesis.core.result import Ok

from streams.otlp.server import build_intake
from streams.otlp.settings import OtlpSettings
from streams.otlp.status import OtlpStatus
from streams.runtime.processes import free_port
from streams.runtime.tally import Tally
from streams.store.api import build_api
from tests.builders.stored import ServedStore
from tests.served import served
from tests.waiting import until

ROOT = Path(__file__).parents[2]
NOBODY = "127.0.0.1:9"

# The gateway passes bodies on as they are, so its routes are in no document.
ANY_JSON = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}, "responses": {}}
PASSED_ON = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/feedback")

seldom = settings(
    max_examples=4,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def is_foreseen(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """Fail for a 500. That something is away, full or too slow is no fault of this kind."""
    assert response.status_code != 500, response.text


def document(paths: dict[str, Any]) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "Ratchet", "version": "1"}, "paths": paths}


@pytest.fixture(scope="module")
def serve_url(inference_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A serve role in a process of its own, without store and broker."""
    folder, port = tmp_path_factory.mktemp("serve"), free_port()
    environment = os.environ | {
        "RATCHET_HOME": str(folder / "home"),
        "RATCHET_ENGINE__URL": inference_url,
        "RATCHET_SERVING__PORT": str(port),
        "RATCHET_STORE__PORT": "9",
        "RATCHET_KAFKA__BOOTSTRAP": NOBODY,
    }
    log, url = folder / "log", f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "daemon.cli", "run", "--roles", "serve"]
        role = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)
    try:
        until(
            lambda: role.poll() is not None or httpx.get(f"{url}/status").json()["served"] is not None,
            lambda: f"the serve role serves: {log.read_text()[-2000:]}",
            errors=(httpx.TransportError,),
        )
        yield url
    finally:
        role.kill()
        role.wait()


@pytest.fixture
def control(serve_url: str) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{serve_url}/openapi.json")


@pytest.fixture
def gateway(serve_url: str) -> BaseSchema:
    schema = schemathesis.openapi.from_dict(document({path: {"post": ANY_JSON} for path in PASSED_ON}))
    schema.config.update(base_url=serve_url)
    return schema


@pytest.fixture
def query(served_store: ServedStore) -> BaseSchema:
    schema = schemathesis.openapi.from_dict(build_api(served_store.store).openapi())
    schema.config.update(base_url=served_store.url)
    return schema


@pytest.fixture
def otlp() -> Iterator[BaseSchema]:
    app = build_intake(OtlpSettings(), "spans", lambda *_: None, Tally(OtlpStatus()))
    with served(app, lifespan="off") as url:
        paths = {path: {"post": ANY_JSON} for path in ("/v1/traces", "/v1/logs")}
        schema = schemathesis.openapi.from_dict(document(paths | {"/status": {"get": {"responses": {}}}}))
        schema.config.update(base_url=url)
        yield schema


def ask_everything(schema: BaseSchema) -> None:
    """Ask for every operation a few times as its document says, and a few times otherwise."""
    asked = set()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found.err()
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seldom
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Case[Any]) -> None:
                case.call_and_validate(checks=[is_foreseen], timeout=60)
                asked.add(case.operation.label)

            # An operation without input has no wrong one.
            with suppress(Unsatisfiable):
                ask()
    assert len(asked) == schema.statistic.operations.total


def test_the_control_api(control: BaseSchema) -> None:
    ask_everything(control)


def test_the_gateway(gateway: BaseSchema) -> None:
    ask_everything(gateway)


def test_the_query_api(query: BaseSchema) -> None:
    ask_everything(query)


def test_the_otlp_receiver(otlp: BaseSchema) -> None:
    ask_everything(otlp)
