"""The roles otlp and assemble as a process over a cluster, for the tests of what becomes of telemetry."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from ratchet_client.crash_points import VARIABLE
from streams.assembly.settings import AssemblySettings
from streams.kafka.settings import KafkaSettings
from streams.otlp.settings import OtlpSettings
from streams.runtime.processes import die_with_parent, free_port
from tests.waiting import until

_ROLE = """
import asyncio, sys
from streams.assembly import role as assemble_role
from streams.assembly.settings import AssemblySettings
from streams.otlp import role as otlp_role
from streams.otlp.settings import OtlpSettings
from streams.runtime.processes import stop_on_signals
from streams.kafka.settings import KafkaSettings

async def main():
    kafka, stop = KafkaSettings.model_validate_json(sys.argv[1]), stop_on_signals()
    await asyncio.gather(
        otlp_role.serve(kafka, OtlpSettings.model_validate_json(sys.argv[2]), stop),
        assemble_role.serve(kafka, AssemblySettings.model_validate_json(sys.argv[3]), stop),
    )

asyncio.run(main())
"""


class OtlpRole:
    """The roles otlp and assemble as one process that can be killed."""

    def __init__(self, kafka: KafkaSettings, folder: Path) -> None:
        self.settings = OtlpSettings(port=free_port())
        self.assembly = AssemblySettings(
            port=free_port(),
            path=folder / "assembly.sqlite",
            settle_s=1,
            idle_s=3,
            conversation_idle_s=3,
            call_idle_s=3,
            episode_idle_s=3,
        )
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.assembler_url = f"http://127.0.0.1:{self.assembly.port}"
        self._kafka = kafka
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, crash_at: str = "") -> None:
        parent = os.getpid()
        told = (self._kafka, self.settings, self.assembly)
        statuses = (f"{self.url}/status", f"{self.assembler_url}/status")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ROLE, *(part.model_dump_json() for part in told)],
            env=os.environ | {VARIABLE: crash_at},
            preexec_fn=lambda: die_with_parent(parent),
        )
        process = self.process
        until(
            lambda: process.poll() is not None or all(map(httpx.get, statuses)),
            "the roles start",
            errors=(httpx.TransportError,),
        )
        assert process.poll() is None, "the roles ended"

    def end(self, number: signal.Signals) -> int | None:
        if self.process is None:
            return None
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def otlp_role_of(kafka: KafkaSettings, folder: Path) -> Iterator[OtlpRole]:
    """Not started yet; killed in the end."""
    role = OtlpRole(kafka, folder)
    try:
        yield role
    finally:
        role.end(signal.SIGKILL)
