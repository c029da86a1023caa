"""One stream of many partitions, branched by several worker processes: nothing left out, nothing twice, work shared."""

from collections import Counter
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError

from ratchet_client.events import Actor, OutcomeEvent, StepEvent
from ratchet_client.ids import uuid7
from streams.branching.role import ROLE
from streams.branching.settings import BranchingSettings
from streams.environments.harness import ChatHarness
from streams.kafka.settings import KafkaSettings
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from tests.builders.episodes import task
from tests.integration.branch_workers import Worker, has_members, workers_of
from tests.integration.recording import answers, caught_up, pairs, publisher, recorder_of
from tests.waiting import eventually

PARTITIONS = 8
STEPS = 2
TASK = task()
# No model is needed: the alternatives are valid actions.
BRANCHING = BranchingSettings(samples=0, alternatives=1, episodes=2)


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


@pytest.mark.nightly
async def test_branch_workers_share_the_work_and_one_that_joins_takes_its_part(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    kafka = kafka.model_copy(update={"partitions": PARTITIONS})
    steps = await recorded()
    with (
        recorder_of(kafka, tmp_path) as recorder,
        workers_of(kafka, BRANCHING, tmp_path, 3) as workers,
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
            await eventually(lambda: has_members(kafka, ROLE, 3), errors=(KafkaError,))
            publish(kafka.events_topic, [pair for number in range(24) for pair in episode(f"first-{number}", steps)])
            await eventually(lambda: all_branched(24))
            assert all(worker.episodes() for worker in workers)

            publish(kafka.events_topic, [pair for number in range(8) for pair in episode(f"during-{number}", steps)])
            workers.append(Worker(kafka, BRANCHING, tmp_path / "worker-3.log"))
            await eventually(lambda: has_members(kafka, ROLE, 4), errors=(KafkaError,))
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
