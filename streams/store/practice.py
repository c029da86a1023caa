"""The decision on practice episodes that ended: which of them may be learned from. The store's writer calls it.

They follow the rules of production's episodes, but for outcomes, quotas and branching: failures are learned from too,
nobody floods a store with them, and nothing more is tried at their states.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from ratchet_client.events import Advice, OutcomeEvent
from streams.store.database import Database
from streams.store.memory import Memory
from streams.store.queries.practice import FLAGS_OF_WANTED, PRACTICE_STEPS_OF_WANTED
from streams.store.rows import Batch
from streams.trust.holdout import HoldoutSettings
from streams.trust.practice import may_be_practised
from streams.trust.rules import (
    NO_STEPS,
    StoredStep,
    branch_request,
    cannot_be_learned_from,
    distinct,
    is_contradictory,
    why_not_whole,
)

CONTRADICTORY = "two events say different things of one step"
HELD_OUT = "its task is held out"


class PracticeJudge:
    """Reads the episodes of a batch back from the database, whose transaction is under way, and adds to the batch."""

    def __init__(self, database: Database, memory: Memory, holdout: HoldoutSettings) -> None:
        self._database = database
        self._memory = memory
        self._holdout = holdout

    def judge(self, batch: Batch, outcomes: Sequence[OutcomeEvent]) -> None:
        """Add a row of `practised` for each outcome. The first outcome of an episode counts, and no later one."""
        episodes = list({outcome.episode_id for outcome in outcomes})
        if not episodes:
            return
        start = {"start": self._memory.starts.before(episodes)}
        rows = self._database.rows_of(episodes, PRACTICE_STEPS_OF_WANTED, start)
        stored = {episode: list(steps) for episode, steps in groupby(rows, key=itemgetter("episode_id"))}
        flags = {row["episode_id"]: row["flag"] for row in self._database.rows_of(episodes, FLAGS_OF_WANTED, start)}
        for outcome in outcomes:
            episode = outcome.episode_id
            steps = stored.get(episode, [])
            first = steps[0] if steps else {}
            advice = first.get("advice")
            batch.add(
                "practised",
                event_id=outcome.event_id,
                episode_id=episode,
                environment=first.get("environment"),
                task_id=first.get("task_id"),
                adapter=first.get("adapter"),
                steps=len({step["step"] for step in steps}),
                success=outcome.success,
                score=outcome.score,
                reason=self._refusal(episode, [StoredStep.of(step) for step in steps], flags.get(episode)),
                advice=None if advice is None else Advice.model_validate_json(advice).kind,
            )

    def _refusal(self, episode: str, stored: Sequence[StoredStep], flag: str | None) -> str | None:
        """Return the reason for which nothing may be learned from an episode, or None."""
        steps = distinct(stored)
        if not steps:
            return NO_STEPS
        if not all(may_be_practised(step.task.task_id, self._holdout) for step in steps):
            return HELD_OUT
        if is_contradictory(steps):
            return CONTRADICTORY
        request = branch_request(episode, steps, "trusted")
        if request is None:
            return why_not_whole(steps)
        return flag or cannot_be_learned_from(request)
