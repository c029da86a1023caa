"""A serve role with groups that is killed: the next one serves every group's own champion again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from daemon.registry.registry import Registry
from daemon.registry.verifying import verify
from daemon.serving.passing import ADAPTER
from streams.runtime.processes import free_port
from streams.trust.groups import home_of
from tests.waiting import until

MakeAdapter = Callable[..., str]

ROOT = Path(__file__).parents[3]
NAMES = ("one", "two")
CHAT = {"model": "assistant", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2}


@contextmanager
def role(home: Path, inference_url: str, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port = free_port()
    environment = {
        **os.environ,
        "RATCHET_HOME": str(home),
        "RATCHET_KAFKA__BOOTSTRAP": "127.0.0.1:9",
        "RATCHET_SERVING__PORT": str(port),
        "RATCHET_ENGINE__URL": inference_url,
        "RATCHET_ADAPTERS__GROUPS": json.dumps({name: {"agents": [name]} for name in NAMES}),
    }
    command = [sys.executable, "-m", "daemon.cli", "run", "--roles", "serve"]
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

            def serves() -> bool:
                groups = client.get("/status").json()["groups"]
                return all(group["served"] is not None for group in groups)

            until(serves, lambda: log.read_text()[-2000:], within_s=120, errors=(httpx.TransportError,))
            yield process, client
    finally:
        process.kill()
        process.wait()


@pytest.mark.nightly
@pytest.mark.usefixtures("emptied")
def test_after_a_kill_each_group_is_answered_by_its_champion_again(
    inference_url: str, registry: Registry, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    homes = {name: Registry(home_of(registry.home, name)) for name in NAMES}
    digests = {name: make_adapter(seed, within=homes[name]) for seed, name in enumerate(NAMES, start=1)}
    log = tmp_path / "log"
    with role(registry.home, inference_url, log) as (process, client):
        for name, digest in digests.items():
            promotion = {"digest": digest, "reason": "a test", "actor": "anna"}
            answer = client.post("/promote", params={"group": name}, json=promotion)
            assert answer.is_success, answer.text
        process.send_signal(signal.SIGKILL)
        process.wait()
    with role(registry.home, inference_url, log) as (_, client):
        for name, digest in digests.items():
            answer = client.post("/v1/chat/completions", json=CHAT, headers={"x-ratchet-agent": name})
            assert answer.headers[ADAPTER.decode()].endswith(digest[:12])
    assert verify(registry.home).findings == ()
