"""Secrets in requests and settings are in no log of a role, and in no file of the home that is to be free of them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from streams.access.tokens import INTERNAL_VARIABLE, new_token
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import die_with_parent, free_port
from streams.store.client import StoreClient
from tests.integration.recording import ROOT, answers
from tests.integration.test_privacy import stored_texts
from tests.served import served
from tests.waiting import eventually, until

SAID = (
    "sk-proj-abcDEF0123456789abcDEF0123456789abcDEF01",
    "ghp_0123456789abcdefghij0123456789abcdef",
    "john.smith@example.com",
    "4111111111111111",
)
# In settings alone. They are passwords of Ratchet's own, and nothing that it keeps holds them.
ASKING, ENGINE, SIGNING, RECORDING = (f"{name}-0a1b2c3d4e5f60718293" for name in ("ask", "engine", "sign", "record"))
TEXT = f"the key {SAID[0]}, the token {SAID[1]}, write to {SAID[2]}, card {SAID[3]}"
# What the roles run with `ratchet run --roles ROLE`, in one process.
_ROLES = """
import asyncio, logging
from daemon.commands.logs import log_as
from daemon.config import Settings
from daemon.roles import RUN, Role
from streams.runtime.logs import LogSettings

async def main():
    settings = Settings.load()
    await asyncio.gather(*(RUN[role](settings) for role in Role if role is not Role.BRANCH))

logging.basicConfig(level=logging.INFO)
log_as(LogSettings(level="debug"))
asyncio.run(main())
"""


def engine() -> FastAPI:
    """An inference server that says what was planted, in replies and in errors."""
    app = FastAPI()
    app.get("/v1/models")(lambda: {"object": "list", "data": [{"id": "base", "object": "model", "root": "base"}]})

    @app.post("/v1/chat/completions")
    async def reply(request: Request) -> Response:
        assert request.headers["authorization"] == f"Bearer {ENGINE}"
        asked = await request.json()
        if "fail" in asked["messages"][-1]["content"]:
            return JSONResponse({"error": {"message": f"no {TEXT}", "type": "server_error", "code": None}}, 500)
        message = {"role": "assistant", "content": f"I note {TEXT}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse(
            {"id": "c1", "object": "chat.completion", "created": 1, "model": "base", "choices": [choice]}
        )

    return app


@contextmanager
def roles(environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    parent = os.getpid()
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-c", _ROLES],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: die_with_parent(parent),
        )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()


def ask_gateway(url: str) -> None:
    """Conversations with feedback, and requests that are refused at each stage."""
    bearer = {"authorization": f"Bearer {ASKING}"}
    with httpx.Client(base_url=url, headers=bearer, timeout=120) as http:

        def chat(text: str, **parts: object) -> httpx.Response:
            asked = {"model": "assistant", "messages": [{"role": "user", "content": text}], **parts}
            return http.post("/v1/chat/completions", json=asked)

        answer = chat(f"hello, {TEXT}")
        assert answer.status_code == 200, answer.text
        receipt = answer.headers["x-ratchet-receipt"]
        told = {"receipt": receipt, "success": True, "verifier": "desk", "evidence": {"notes": TEXT}}
        assert http.post("/v1/feedback", json=told).status_code == 202
        refused = [
            chat(f"fail, {TEXT}"),
            chat(TEXT, model=TEXT),
            http.post("/v1/feedback", json={"receipt": TEXT, "success": TEXT}),
            http.post("/v1/chat/completions", content=b'{"model": "assistant", ' + TEXT.encode()),
            http.get(f"/v1/models/{SAID[0]}", params={"key": SAID[1]}),
            http.post("/promote", json={"digest": SAID[1], "reason": TEXT, "actor": SAID[2]}),
        ]
        assert [each.url.path for each in refused if each.is_success] == []
        # Without a file of tokens the control API is open to this machine, and takes whatever token is sent.
        http.get("/status", headers={"authorization": f"Bearer {SAID[1]}"})
        # Passed on as it is: what becomes of it the inference server says.
        http.post("/v1/messages", json={"model": "assistant", "messages": TEXT, "max_tokens": TEXT})


def ask_otlp(url: str) -> None:
    """Spans, and what are none."""
    attributes = [
        {"key": "gen_ai.input.messages", "value": {"stringValue": json.dumps([{"role": "user", "content": TEXT}])}},
        {"key": SAID[0], "value": {"stringValue": TEXT}},
    ]
    span = {"traceId": "01" * 16, "spanId": "02" * 8, "name": TEXT, "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    whole = {"resourceSpans": [{"scopeSpans": [{"spans": [span | {"attributes": attributes}]}]}]}
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {RECORDING}"}, timeout=120) as http:
        assert http.post("/v1/traces", json=whole).is_success
        refused = [
            http.post("/v1/traces", content=TEXT.encode(), headers={"content-type": "application/json"}),
            http.post("/v1/traces", content=TEXT.encode(), headers={"content-type": "application/x-protobuf"}),
            http.post("/v1/logs", json=whole, headers={"authorization": f"Bearer {SAID[1]}"}),
        ]
        assert [(each.url.path, each.text) for each in refused if each.is_success] == []
        partly = http.post("/v1/traces", json={"resourceSpans": TEXT}).json()
        assert partly["partialSuccess"]["rejectedSpans"] == "1"


@pytest.mark.slow
async def test_what_is_planted_in_requests_and_settings_is_in_no_log_and_no_file(
    kafka: KafkaSettings, tiny_base: Path, tmp_path: Path
) -> None:
    home, log = tmp_path / "home", tmp_path / "roles.log"
    serve, otlp, store, assemble = (free_port() for _ in range(4))
    idle = dict.fromkeys(("settle_s", "idle_s", "conversation_idle_s", "call_idle_s", "episode_idle_s"), 1)
    with served(engine(), lifespan="off") as upstream:
        environment = os.environ | {
            INTERNAL_VARIABLE: new_token(),
            "RATCHET_HOME": str(home),
            "RATCHET_MODEL": str(tiny_base),
            "RATCHET_KAFKA": kafka.model_dump_json(),
            "RATCHET_ENGINE": json.dumps({"url": upstream, "api_key": ENGINE}),
            "RATCHET_SERVING": json.dumps(
                {"port": serve, "tokens": {"ann": ASKING}, "capture": {"flush_s": 0}, "canary": {"share": 0.1}}
            ),
            "RATCHET_OTLP": json.dumps({"port": otlp, "tokens": {"bob": RECORDING}}),
            "RATCHET_STORE": json.dumps({"port": store, "batch_s": 0.1}),
            "RATCHET_ASSEMBLY": json.dumps({"port": assemble, **idle}),
            "RATCHET_ADMISSION": json.dumps({"principals": {"ann": SIGNING}}),
            "RATCHET_DOMAIN__RECORDED": "true",
            "RATCHET_HEALTH__LEARN_PORT": "0",
        }
        with roles(environment, log) as running:
            async with StoreClient(f"http://127.0.0.1:{store}") as client:

                async def works() -> bool:
                    assert running.poll() is None, log.read_text()[-3000:]
                    urls = (f"http://127.0.0.1:{port}/healthz" for port in (serve, otlp, assemble))
                    return all([(await http.get(url)).is_success for url in urls]) and await answers(client)

                async with httpx.AsyncClient() as http:
                    await eventually(works, "the roles answer", within_s=240, errors=(httpx.TransportError,))
                await asyncio.to_thread(ask_gateway, f"http://127.0.0.1:{serve}")
                await asyncio.to_thread(ask_otlp, f"http://127.0.0.1:{otlp}")

                async def stored() -> bool:
                    status = await client.status()
                    return status.events.get("step", 0) > 0 and status.events.get("outcome", 0) > 0

                await eventually(stored, lambda: f"episodes are stored: {log.read_text()[-3000:]}", within_s=120)
            until(lambda: (home / "learner.json").exists(), "the learner works")

    secrets = [*SAID, ASKING, ENGINE, SIGNING, RECORDING]
    written = log.read_text()
    assert "serving" in written
    assert [secret for secret in secrets if secret in written] == []
    # Calls and spans lie as they came in the assembler's database, until they are events.
    kept = [path for path in home.rglob("*") if path.is_file() and not path.name.startswith("assembly.sqlite")]
    assert {"store.duckdb", "learner.json"} <= {path.name for path in kept}
    assert [(s, path.name) for s in secrets for path in kept if s.encode() in path.read_bytes()] == []
    texts = stored_texts(home / "store.duckdb")
    assert any("<EMAIL_" in text for text in texts)
    assert [secret for secret in secrets if any(secret in text for text in texts)] == []
