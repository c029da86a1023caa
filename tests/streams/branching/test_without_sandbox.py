"""A sandbox that cannot be opened is told apart from one that shows something else."""

import asyncio
from pathlib import Path

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import assistant, user
from streams.branch_events import NO_SANDBOX, BranchRequest, BranchResult, RecordedStep
from streams.branching.branch import branch
from streams.branching.recovery import recover
from streams.branching.selectors import Uniform
from streams.branching.settings import BranchingSettings
from streams.intake.role import serve
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from streams.runtime.processes import free_port
from streams.sandboxes.pool import SandboxPool
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.rules import asked_again
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import HOLDOUT, episode
from tests.builders.policies import FixedPolicy
from tests.builders.published import read
from tests.builders.stored import records, result
from tests.waiting import eventually


async def test_states_of_an_environment_without_its_settings_wait_for_a_sandbox() -> None:
    request = BranchRequest(
        event_id="request",
        episode_id="early",
        task=Task(environment="toolbox", task_id="desk/1"),
        opening=(user("Refund it."),),
        steps=(RecordedStep(action=assistant("No."), observation=()),),
    )
    settings = BranchingSettings()
    async with SandboxPool("toolbox") as pool:
        (state,) = await branch(request, pool, FixedPolicy(), Uniform(), settings)
        failed = request.model_copy(update={"verdict": "failed"})
        resumed = await recover(failed, pool, FixedPolicy(), Uniform(), settings)
    for told in (state, resumed):
        assert told.fidelity == "dropped"
        assert told.reason.startswith(f"{NO_SANDBOX}: ")
        assert "folder" in told.reason


@pytest.mark.slow
async def test_a_record_role_that_starts_with_the_environment_asks_again(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = StoreSettings(path=tmp_path / "store.duckdb", port=free_port())
    store = Store.open(settings, HOLDOUT, kafka, QuotaSettings())
    store.append(records(episode("early")))
    (waiting,) = store.pending(10)
    store.published(waiting.sequence)
    asked = BranchRequest.model_validate_json(waiting.message.value or b"")
    store.append(
        [
            result(
                BranchResult(
                    event_id=BranchResult.id_for(asked.event_id, step),
                    request_id=asked.event_id,
                    episode_id="early",
                    task=asked.task,
                    step=step,
                    requested=3,
                    fidelity="dropped",
                    reason=f"{NO_SANDBOX}: its settings are wrong",
                ),
                step,
            )
            for step in range(len(asked.steps))
        ]
    )
    store.close()
    stop = asyncio.Event()
    role = asyncio.create_task(serve(kafka, settings, HOLDOUT, stop, has_sandbox=lambda environment: True))
    await eventually(lambda: end_offsets(kafka.bootstrap, kafka.branches_topic))
    await eventually(lambda: asyncio.to_thread(read, kafka.bootstrap, kafka.branches_topic))
    stop.set()
    await role
    ((key, value, _),) = read(kafka.bootstrap, kafka.branches_topic)
    assert (key, BranchRequest.model_validate_json(value)) == (b"early", asked_again(asked))
