"""Servers on loopback in processes of their own, for the tests of OpenEnv."""

import signal
import socket
import subprocess
import sys

from streams.environments.openenv.settings import OpenEnvSettings
from tests.waiting import until

SESSIONS, SNAPSHOTS = 4, 24


def started(command: list[str], port: int, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A server process that listens on `port`."""
    process = subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        assert process.poll() is None, f"{command} ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listens, f"{command} serves")
    return process


def reference(
    port: int, variables: dict[str, str] | None = None, environment_name: str = "textworld_express"
) -> subprocess.Popen[bytes]:
    command = ["-m", "streams.environments.openenv.server", environment_name, "--port", str(port)]
    limits = ["--sessions", str(SESSIONS), "--snapshots", str(SNAPSHOTS)]
    return started([*command, *limits], port, variables)


def stopped(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(30)


def settings(port: int, **others: object) -> OpenEnvSettings:
    return OpenEnvSettings.model_validate({"url": f"ws://127.0.0.1:{port}/ws", **others})
