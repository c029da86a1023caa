"""The otlp role as a process over a cluster, for the tests of what becomes of telemetry."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from streams.kafka.settings import KafkaSettings
from streams.otlp.settings import OtlpSettings
from streams.runtime.crash_points import VARIABLE
from streams.runtime.processes import die_with_parent, free_port
from tests.waiting import until

_ROLE = """
import asyncio, sys
from streams.otlp.role import serve
from streams.otlp.settings import OtlpSettings
from streams.runtime.processes import stop_on_signals
from streams.kafka.settings import KafkaSettings

async def main():
    kafka, settings = sys.argv[1:]
    await serve(
        KafkaSettings.model_validate_json(kafka), OtlpSettings.model_validate_json(settings), stop_on_signals()
    )

asyncio.run(main())
"""


class OtlpRole:
    """The otlp role as a process that can be killed."""

    def __init__(self, kafka: KafkaSettings, folder: Path) -> None:
        self.settings = OtlpSettings(
            port=free_port(), path=folder / "otlp.sqlite", settle_s=1, idle_s=3, conversation_idle_s=3
        )
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self._kafka = kafka
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, crash_at: str = "") -> None:
        parent = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ROLE, self._kafka.model_dump_json(), self.settings.model_dump_json()],
            env=os.environ | {VARIABLE: crash_at},
            preexec_fn=lambda: die_with_parent(parent),
        )
        process = self.process
        until(
            lambda: process.poll() is not None or httpx.get(f"{self.url}/status"),
            "the otlp role starts",
            errors=(httpx.TransportError,),
        )
        assert process.poll() is None, "the otlp role ended"

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
