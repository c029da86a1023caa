"""A real inference server of the tiny base, in a process of its own."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from streams.policy import PolicyClient
from streams.processes import free_port


@pytest.fixture(scope="session")
def inference_url(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, log = free_port(), tmp_path_factory.mktemp("inference") / "log"
    command = [sys.executable, "-m", "daemon.inference", "--model", str(tiny_base), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--threads", "1"], stdout=output, stderr=output)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the inference server did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)
    yield url
    process.kill()
    process.wait()


@pytest.fixture
async def policy(inference_url: str) -> AsyncIterator[PolicyClient]:
    async with PolicyClient(inference_url) as client:
        yield client


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/models").is_success
    except httpx.TransportError:
        return False
