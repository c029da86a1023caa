"""Servers on loopback in processes of their own, for the tests of OpenEnv."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from streams.environments.openenv.settings import OpenEnvSettings

SESSIONS, SNAPSHOTS = 4, 24


def started(command: list[str], port: int, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A server process that listens on `port`."""
    process = subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"{command} does not serve")


def reference(port: int, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    command = ["-m", "streams.environments.openenv.server", "textworld_express", "--port", str(port)]
    limits = ["--sessions", str(SESSIONS), "--snapshots", str(SNAPSHOTS)]
    return started([*command, *limits], port, environment)


def stopped(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(30)


def settings(port: int, **others: object) -> OpenEnvSettings:
    return OpenEnvSettings.model_validate({"url": f"ws://127.0.0.1:{port}/ws", **others})
