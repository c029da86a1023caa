"""One stream of many partitions, branched by several worker processes: nothing left out, nothing twice, work shared."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ratchet_client.events import Actor, OutcomeEvent, StepEvent
from ratchet_client.ids import uuid7
from streams.branching.role import ROLE
from streams.branching.settings import BranchingSettings
from streams.environments.harness import ChatHarness
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import die_with_parent
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from tests.builders.episodes import task
from tests.integration.recording import ROOT, answers, caught_up, pairs, publisher, recorder_of
from tests.roles import RoleSettings
from tests.waiting import eventually

PARTITIONS = 8
STEPS = 2
TASK = task()
# No model is needed: the alternatives are valid actions.
BRANCHING = BranchingSettings(samples=0, alternatives=1, episodes=2)


class Worker:
    """The branch role as a process, and what it says it did."""

    def __init__(self, kafka: KafkaSettings, told: Path) -> None:
        self._told = told
        parent, settings = os.getpid(), RoleSettings(kafka=kafka, branching=BRANCHING)
        with told.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.roles", "branch", settings.model_dump_json()],
                cwd=ROOT,
                stdout=output,
                preexec_fn=lambda: die_with_parent(parent),
            )

    def episodes(self) -> list[str]:
        """The episodes that it branched."""
        told = [json.loads(line) for line in self._told.read_text().splitlines() if line.startswith("{")]
        return [line["episode"] for line in told if line["event"] == "episode branched"]


@contextmanager
def workers_of(kafka: KafkaSettings, folder: Path, count: int) -> Iterator[list[Worker]]:
    """So many workers; more may be added to the list."""
    workers = [Worker(kafka, folder / f"worker-{number}.log") for number in range(count)]
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


async def recorded() -> list[StepEvent]:
    """The first steps of a real episode, which the sandbox will find as they were recorded."""
    harness = ChatHarness()
    async with SandboxPool(TASK.environment) as pool, pool.session() as session:
        actions = (await session.demonstration(TASK))[:STEPS]
        opening, *answers = await session.replay(TASK, actions)
    messages = harness.opening(opening.messages)
    events = []
    for number, (action, answer) in enumerate(zip(actions, answers, strict=True)):
        events.append(
            StepEvent(
                episode_id="recorded",
                step=number,
                agent="assistant",
                principal="tenant/user",
                task=TASK,
                messages=messages,
                action=action,
                observation=answer.messages,
                done=number == STEPS - 1,
                actor=Actor(kind="expert"),
            )
        )
        messages = harness.extend(messages, action, answer.messages)
    return events


def episode(name: str, steps: list[StepEvent]) -> list[tuple[str, bytes]]:
    """The recorded episode under another name, with its verdict, ready to be published."""
    renamed = [step.model_copy(update={"episode_id": name, "event_id": uuid7()}) for step in steps]
    verdict = OutcomeEvent(episode_id=name, verifier="game", success=True, score=1.0)
    return pairs([*renamed, verdict])


async def has_members(kafka: KafkaSettings, count: int) -> bool:
    """Whether the group of the branch workers is settled and has so many members."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([f"{kafka.group_prefix}-{ROLE}"])
        ((_, _, state, _, _, members, *_),) = answer.groups
    finally:
        await admin.close()
    return state == "Stable" and len(members) == count


@pytest.mark.nightly
async def test_branch_workers_share_the_work_and_one_that_joins_takes_its_part(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    kafka = kafka.model_copy(update={"partitions": PARTITIONS})
    steps = await recorded()
    with (
        recorder_of(kafka, tmp_path) as recorder,
        workers_of(kafka, tmp_path, 3) as workers,
        publisher(kafka) as publish,
    ):
        recorder.start()
        async with StoreClient(recorder.url) as client:

            async def all_branched(episodes: int) -> bool:
                status = await client.status()
                return status.branches.states >= episodes * STEPS and await caught_up(
                    client, kafka, kafka.transitions_topic
                )

            await eventually(lambda: answers(client))
            await eventually(lambda: has_members(kafka, 3), errors=(KafkaError,))
            publish(kafka.events_topic, [pair for number in range(24) for pair in episode(f"first-{number}", steps)])
            await eventually(lambda: all_branched(24))
            assert all(worker.episodes() for worker in workers)

            publish(kafka.events_topic, [pair for number in range(8) for pair in episode(f"during-{number}", steps)])
            workers.append(Worker(kafka, tmp_path / "worker-3.log"))
            await eventually(lambda: has_members(kafka, 4), errors=(KafkaError,))
            publish(kafka.events_topic, [pair for number in range(16) for pair in episode(f"then-{number}", steps)])
            await eventually(lambda: all_branched(48))
            assert workers[-1].episodes()

            status = await client.status()
            stored = await client.query("SELECT episode_id, count(*) AS n FROM branches GROUP BY episode_id")
            assert (status.branches.states, status.branches.dropped) == (48 * STEPS, 0)
            assert status.branches.executed == status.branches.requested == status.transitions["branch"]
            assert (status.trusted, status.gaps, status.dead_letters) == ({"train": 48}, 0, 0)
            assert set(stored["n"].to_pylist()) == {STEPS}
            # A rebalance may have two workers do an episode: its results are stored once.
            worked = Counter(name for worker in workers for name in worker.episodes())
            assert len(worked) == 48
            assert status.duplicates == STEPS * (worked.total() - 48)
