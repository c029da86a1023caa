"""The time from the start of `ratchet rollback` in a shell until what served before answers, against a bare limit.

`python -m benchmarks.rollback [--rounds R] [--json]` runs a real serve role and inference server with a tiny model, and
asks the gateway again and again meanwhile. The limit is a bare Python that asks the same role for one answer over HTTP.
They take turns; what was rolled back is restored before the next round. `ratio` is ours over the limit, of medians of
wall-clock time. `command_s` is until the command ends: what served is drained and unloaded by then.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx

from daemon.registry.registry import Registry
from streams.runtime.processes import die_with_parent, free_port
from tests.builders.adapters import add_random_adapter
from tests.builders.base_models import write_tiny_llama

START_TIMEOUT_S = 180
BARE = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()"
CHAT = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
ASK_EVERY_S = 0.02
NOWHERE = "127.0.0.1:9"
ACTOR = {"reason": "a benchmark", "actor": "benchmark"}


@contextmanager
def process(arguments: tuple[str, ...], environment: dict[str, str], health: str, log: Path) -> Iterator[None]:
    """A Python process that answers at `health` meanwhile. Raises `RuntimeError` where it does not come to."""
    parent = os.getpid()
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: die_with_parent(parent),
        )
    try:
        _wait(health, running, log)
        yield
    finally:
        running.kill()
        running.wait()


def _wait(health: str, running: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and running.poll() is None:
        try:
            if httpx.get(health, timeout=10).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"{health} does not answer: {log.read_text()[-2000:]}")


def seconds(arguments: tuple[str, ...], environment: dict[str, str]) -> float:
    """The wall-clock time of a Python with these arguments. Raises `RuntimeError` where it fails."""
    began = time.perf_counter()
    _ended(_begun(arguments, environment))
    return time.perf_counter() - began


def rolled_back(http: httpx.Client, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds from the start of a rollback until another adapter answers, and until the command ends.

    Raises `RuntimeError` where none does, or the command fails.
    """
    before = _answering(http)
    began = time.perf_counter()
    command = _begun(("-m", "daemon.cli", "rollback"), environment)
    while _answering(http) == before:
        if time.perf_counter() - began > START_TIMEOUT_S:
            raise RuntimeError(f"{before} still answers after a rollback")
        time.sleep(ASK_EVERY_S)
    answered_s = time.perf_counter() - began
    _ended(command)
    return answered_s, time.perf_counter() - began


def _answering(http: httpx.Client) -> str:
    return http.post("/v1/chat/completions", json=CHAT).raise_for_status().headers["x-ratchet-adapter"]


def _begun(arguments: tuple[str, ...], environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _ended(command: "subprocess.Popen[str]") -> None:
    _, said = command.communicate()
    if command.returncode:
        raise RuntimeError(f"{command.args!r} exited with {command.returncode}: {said}")


def measure(rounds: int, folder: Path) -> dict[str, float]:
    """Roll back `rounds` times. Raises `RuntimeError` where another adapter than the one before answers then."""
    base, home = write_tiny_llama(folder / "base"), folder / "home"
    registry = Registry(home)
    adapters = [add_random_adapter(base, seed, within=registry) for seed in (1, 2)]
    engine, port = f"http://127.0.0.1:{free_port()}", free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "RATCHET_HOME": str(home),
        "RATCHET_ENGINE__URL": engine,
        "RATCHET_SERVING__PORT": str(port),
        "RATCHET_KAFKA__BOOTSTRAP": NOWHERE,
    }
    server = ("-m", "daemon.inference", "--model", str(base), "--port", engine.rpartition(":")[2], "--threads", "1")
    role = ("-m", "daemon.cli", "run", "--roles", "serve")
    ours, whole, limit = [], [], []
    with (
        process(server, dict(os.environ), f"{engine}/v1/models", folder / "engine.log"),
        process(role, environment, f"{url}/status", folder / "serve.log"),
        httpx.Client(base_url=url, timeout=120) as http,
    ):
        for adapter in adapters:
            _changed(http, "/promote", {"digest": adapter, "at_once": True} | ACTOR)
        for _ in range(rounds):
            limit.append(seconds(("-c", BARE, f"{url}/healthz"), environment))
            answered_s, command_s = rolled_back(http, environment)
            if registry.refs().champion != adapters[0]:
                raise RuntimeError(f"{registry.refs().champion} serves after a rollback, and not {adapters[0]}")
            ours.append(answered_s)
            whole.append(command_s)
            _changed(http, "/restore", {"digest": adapters[1]} | ACTOR)
    return {
        "rounds": rounds,
        "rollback_s": round(median(ours), 3),
        "longest_s": round(max(ours), 3),
        "command_s": round(median(whole), 3),
        "limit_s": round(median(limit), 3),
        "ratio": round(median(ours) / median(limit), 1),
    }


def _changed(http: httpx.Client, path: str, body: Mapping[str, object]) -> None:
    answer = http.post(path, json=body)
    if not answer.is_success:
        raise RuntimeError(f"{path} answers {answer.status_code}: {answer.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options.rounds, Path(folder))
    if options.json:
        print(json.dumps(report))
    else:
        for field, value in report.items():
            print(f"{field:>12} {value}")


if __name__ == "__main__":
    main()
