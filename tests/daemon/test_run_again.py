"""`ratchet run` with the embedded broker: it tells what it does, and what was not read is there at its next start."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from streams.kafka.clients import producer
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import free_port
from tests.builders.episodes import episode
from tests.waiting import until

pytestmark = pytest.mark.slow


@contextmanager
def running(folder: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """`ratchet run --roles record,assemble` until both answer; ended by SIGTERM. What it says is in `said`."""
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", "run", "--roles", "record,assemble"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=said,
        )
    try:
        until(lambda: process.poll() is not None or "the log is at" in said_in(folder), "it starts", within_s=120)
        assert process.poll() is None, said_in(folder)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def said_in(folder: Path) -> str:
    return (folder / "said").read_text()


def environment_of(folder: Path, **also: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
    ports = {f"RATCHET_{part}__PORT": str(free_port()) for part in ("STORE", "ASSEMBLY")}
    own = {"RATCHET_HOME": str(folder / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    return inherited | ports | own | also


def role_of(process: "subprocess.Popen[bytes]", role: str) -> psutil.Process:
    [found] = [each for each in psutil.Process(process.pid).children() if role in each.cmdline()]
    return found


def steps_stored(environment: dict[str, str]) -> int:
    url = f"http://127.0.0.1:{environment['RATCHET_STORE__PORT']}/status"
    return int(httpx.get(url, timeout=10).json()["events"].get("step", 0))


def test_what_was_not_read_is_stored_after_the_next_start(tmp_path: Path) -> None:
    port = free_port()
    environment = environment_of(tmp_path, RATCHET_KAFKA__EMBEDDED_PORT=str(port))
    kafka = KafkaSettings(bootstrap=f"127.0.0.1:{port}")
    with running(tmp_path, environment) as process:
        began, *lines = said_in(tmp_path).splitlines()
        assert f"starting record, assemble in {tmp_path}/home" in began
        assert any(f"the embedded broker is at 127.0.0.1:{port}" in line for line in lines)
        for role, part in (("record", "STORE"), ("assemble", "ASSEMBLY")):
            address = f"http://127.0.0.1:{environment[f'RATCHET_{part}__PORT']}"
            assert any(f"{role} answers at {address}" in line for line in lines)
        role_of(process, "record").suspend()
        with producer("test", kafka.bootstrap, kafka.security) as client:
            for event in episode("late"):
                client.send(kafka.events_topic, key=event.episode_id.encode(), value=event.to_json())
    assert process.returncode == 0
    assert "3 records that were not read yet are kept" in said_in(tmp_path)
    with running(tmp_path, environment):
        assert "with 3 records of before" in said_in(tmp_path)
        until(lambda: steps_stored(environment) == 2, "what was kept is stored")
    assert "kept for the next start" not in said_in(tmp_path)
    assert not (tmp_path / "home" / "unread.jsonl").exists()


def test_a_port_that_was_set_and_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "daemon.cli", "run", "--roles", "record,assemble"],
            cwd=tmp_path,
            env=environment_of(tmp_path, RATCHET_KAFKA__EMBEDDED_PORT=str(port)),
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    assert "which is taken: set kafka.embedded_port" in done.stderr.splitlines()[-1]
