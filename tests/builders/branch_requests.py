"""Requests for episodes that were really played."""

from collections.abc import Sequence
from typing import Any

from ratchet_client.events import Task
from ratchet_client.messages import Message
from streams.branch_events import BranchRequest, RecordedStep
from streams.environments.harness import ChatHarness
from streams.sandboxes.pool import SandboxPool


async def played(
    pool: SandboxPool, task: Task, actions: Sequence[Message] | None = None, **fields: Any
) -> BranchRequest:
    """An episode of those actions, or of the demonstration, as production recorded it."""
    async with pool.session() as session:
        chosen = await session.demonstration(task) if actions is None else actions
        first, *answers = await session.replay(task, chosen)
    return BranchRequest(
        event_id="request-1",
        episode_id="episode-1",
        task=task,
        opening=ChatHarness().opening(first.messages),
        steps=tuple(
            RecordedStep(action=action, observation=answer.messages, tools=before.tools)
            for action, before, answer in zip(chosen, (first, *answers), answers, strict=False)
        ),
        **fields,
    )
