"""The branch role as several processes, for tests and benchmarks of many at once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from streams.branching.settings import BranchingSettings
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import die_with_parent
from tests.integration.recording import ROOT
from tests.roles import RoleSettings


class Worker:
    """The branch role of the code in `root` as a process, and what it says it did."""

    def __init__(self, kafka: KafkaSettings, branching: BranchingSettings, told: Path, root: Path = ROOT) -> None:
        self._told = told
        parent, settings = os.getpid(), RoleSettings(kafka=kafka, branching=branching)
        with told.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.roles", "branch", settings.model_dump_json()],
                cwd=root,
                stdout=output,
                stderr=output,
                preexec_fn=lambda: die_with_parent(parent),
            )

    @property
    def log(self) -> str:
        """All that it wrote."""
        return self._told.read_text()

    def episodes(self) -> list[str]:
        """The episodes that it branched."""
        told = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line["episode"] for line in told if line["event"] == "episode branched"]


@contextmanager
def workers_of(kafka: KafkaSettings, branching: BranchingSettings, folder: Path, count: int) -> Iterator[list[Worker]]:
    """So many workers; more may be added to the list."""
    workers = [Worker(kafka, branching, folder / f"worker-{number}.log") for number in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.process.send_signal(signal.SIGTERM)
        for worker in workers:
            try:
                worker.process.wait(30)
            except subprocess.TimeoutExpired:
                worker.process.kill()


async def has_members(kafka: KafkaSettings, role: str, count: int) -> bool:
    """Whether the consumer group of a role is settled and has so many members."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([f"{kafka.group_prefix}-{role}"])
        ((_, _, state, _, _, members, *_),) = answer.groups
    finally:
        await admin.close()
    return state == "Stable" and len(members) == count
