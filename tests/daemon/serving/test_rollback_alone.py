"""A rollback needs the serve role and the inference server and nothing else: no store, no broker, no learner."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from daemon.registry.registry import Registry
from daemon.registry.schemas import Change, Drill
from streams.runtime.processes import free_port
from streams.store.api import build_api
from tests.builders.stored import ServedStore
from tests.daemon.conftest import serve_role
from tests.daemon.serving.test_approval import decision, status
from tests.served import served
from tests.waiting import eventually, until

MakeAdapter = Callable[..., str]

ROOT = Path(__file__).parents[3]
CHAT = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def ratchet(environment: dict[str, str], *words: str) -> bytes:
    command = [sys.executable, "-m", "daemon.cli", *words]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


def test_the_command_line_rolls_back_while_store_and_broker_are_away(
    inference_url: str, registry: Registry, make_adapter: MakeAdapter, silent: str, tmp_path: Path
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    port = free_port()
    environment = os.environ | {
        "RATCHET_HOME": str(registry.home),
        "RATCHET_ENGINE__URL": inference_url,
        "RATCHET_SERVING__PORT": str(port),
        "RATCHET_STORE__PORT": silent.rpartition(":")[2],
        "RATCHET_KAFKA__BOOTSTRAP": silent,
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "daemon.cli", "run", "--roles", "serve"]
        role = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            until(
                lambda: role.poll() is not None or http.get("/status").json()["served"] is not None,
                lambda: f"the serve role serves: {log.read_text()[-2000:]}",
                errors=(httpx.TransportError,),
            )
            for adapter in (first, second):
                assert http.post("/promote", json=decision(adapter, "learner")).is_success
            drill = Drill.model_validate_json(ratchet(environment, "drill", "rollback", "--json"))
            assert (drill.adapter, drill.failed) == (first, "")
            change = Change.model_validate_json(ratchet(environment, "rollback", "--json"))
            assert (change.from_adapter, change.to_adapter) == (second, first)
            answer = http.post("/v1/chat/completions", json=CHAT)
            assert answer.is_success, answer.text
            assert answer.headers["x-ratchet-adapter"] == change.to_name
            shown = json.loads(ratchet(environment, "status", "--json"))
            assert (shown["champion"], shown["store_answers"], shown["drill"]["adapter"]) == (first, False, first)
    finally:
        role.kill()
        role.wait()


async def test_a_store_that_hangs_does_not_hold_up_the_status(
    inference_url: str, registry: Registry, silent: str
) -> None:
    async with serve_role(registry, inference_url, f"http://{silent}") as serving:
        # Its own limit for the store is far longer.
        answer = await serving.get("/status", timeout=15)
        assert (answer.json()["served"], answer.json()["store_answers"], answer.json()["store"]) == (
            "base",
            False,
            None,
        )


async def test_the_status_keeps_the_figures_of_a_store_that_does_not_answer_any_more(
    inference_url: str, registry: Registry, served_store: ServedStore
) -> None:
    with ExitStack() as answering:
        url = answering.enter_context(served(build_api(served_store.store), lifespan="off"))
        async with serve_role(registry, inference_url, url) as serving:
            before = await status(serving)
            assert before.store_answers
            assert before.store is not None
            await asyncio.to_thread(answering.close)

            async def is_silent() -> bool:
                return not (await status(serving)).store_answers

            await eventually(is_silent, "the store does not answer")
            after = await status(serving)
            assert after.store == before.store
            assert after.store_at is not None
            assert after.store_at is not None
