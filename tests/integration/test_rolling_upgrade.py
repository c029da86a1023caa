"""Roles of two versions over one cluster: what a newer one wrote waits for its reader to be upgraded; none is lost."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ratchet_client.events import StepEvent
from streams.errors import StoreError
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from streams.store.client import StoreClient
from tests.builders.newer_version import newer_version
from tests.integration.branch_workers import Worker, workers_of
from tests.integration.recording import Recorder, answers, caught_up, publisher
from tests.integration.test_scale import BRANCHING as WITHOUT_POLICY
from tests.integration.test_scale import STEPS, episode, recorded
from tests.waiting import eventually

pytestmark = pytest.mark.slow
EPISODES = 8
# The code of the newer version's sandboxes is this one's, which isolation would hide from them.
BRANCHING = WITHOUT_POLICY.model_copy(update={"isolation": "none"})
REMEDY = "upgrade this role to the version of the role that wrote it"


class Installation:
    """A record role and two branch workers of this version, as processes."""

    def __init__(self, kafka: KafkaSettings, folder: Path, workers: list[Worker]) -> None:
        self.kafka = kafka
        self.folder = folder
        self.newer = newer_version(folder / "newer")
        self.recorder_log = folder / "recorder.log"
        self.recorder = Recorder(kafka, folder / "store.duckdb", log=self.recorder_log)
        self.workers = workers
        self.published = 0

    def publish(self, steps: list[StepEvent]) -> None:
        """So many episodes more, on all partitions."""
        with publisher(self.kafka) as publish:
            for number in range(self.published, self.published + EPISODES):
                publish(self.kafka.events_topic, episode(f"episode-{number}", steps))
        self.published += EPISODES

    def add_newer_worker(self) -> None:
        self.workers.append(Worker(self.kafka, BRANCHING, self.folder / "newer-worker.log", self.newer))

    async def is_stored(self) -> bool:
        """Whether all that was published is, and every request for it with the branch workers."""
        async with StoreClient(self.recorder.url) as client:
            status = await client.status()
            return status.trusted == {"train": self.published} and status.outbox_pending == 0

    async def is_branched(self) -> bool:
        async with StoreClient(self.recorder.url) as client:
            states = (await client.status()).branches.states
            return states == self.published * STEPS and await caught_up(
                client, self.kafka, self.kafka.transitions_topic
            )

    async def check(self) -> None:
        """Every state was branched, and no record of either version was refused."""
        async with StoreClient(self.recorder.url) as client:
            status = await client.status()
        assert (status.branches.states, status.branches.dropped) == (self.published * STEPS, 0)
        assert (status.dead_letters, status.gaps) == (0, 0)
        assert sum(end_offsets(self.kafka.bootstrap, self.kafka.dead_letters_topic).values()) == 0


@pytest.fixture
async def installation(kafka: KafkaSettings, tmp_path: Path) -> AsyncIterator[Installation]:
    with workers_of(kafka, BRANCHING, tmp_path, 2) as workers:
        found = Installation(kafka, tmp_path, workers)
        found.recorder.start()
        async with StoreClient(found.recorder.url) as client:
            await eventually(lambda: answers(client))
        yield found
        found.recorder.end(signal.SIGKILL)


async def test_the_record_role_first_then_the_branch_workers(installation: Installation) -> None:
    steps = await recorded()
    installation.publish(steps)
    await eventually(installation.is_branched)

    installation.recorder.end(signal.SIGTERM)
    installation.publish(steps)
    installation.recorder.start(installation.newer)
    older = tuple(installation.workers)
    await eventually(lambda: all(worker.process.poll() for worker in older), "the older workers end", within_s=90)
    assert all(REMEDY in worker.log for worker in older)

    installation.publish(steps)
    await eventually(installation.is_stored, errors=(StoreError,))
    installation.add_newer_worker()
    await eventually(installation.is_branched, within_s=90)
    await installation.check()


async def test_the_branch_workers_first_then_the_record_role(installation: Installation) -> None:
    steps = await recorded()
    for worker in installation.workers:
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait(30)
    installation.add_newer_worker()
    installation.publish(steps)
    await eventually(lambda: installation.recorder.has_ended, "the older record role ends", within_s=90)
    assert REMEDY in installation.recorder_log.read_text()

    installation.publish(steps)
    installation.recorder.start(installation.newer)
    await eventually(installation.is_branched, errors=(StoreError,), within_s=90)
    await installation.check()
