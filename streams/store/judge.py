"""The judge of episodes that have ended: which are trusted, which failed, and the branch requests that follow.

Trusted episodes are to be branched, failed ones of a policy to be recovered from: those of the training split alone.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter

import structlog

from streams.events import BranchRequest
from streams.kafka.records import Outgoing
from streams.store.database import Database
from streams.store.memory import Memory
from streams.store.queries.writer import OUTCOMES_TO_JUDGE, STEPS_OF_WANTED
from streams.store.rows import Batch
from streams.trust.holdout import HoldoutSettings, Split
from streams.trust.quota import Admitted
from streams.trust.rules import StoredStep, branch_request, has_failed, is_trusted, similarity_hash

log = structlog.get_logger()


class Judge:
    """Reads the episodes of a batch back from the database, whose transaction is under way, and adds to the batch."""

    def __init__(
        self,
        database: Database,
        memory: Memory,
        holdout: HoldoutSettings,
        branches_topic: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._memory = memory
        self._holdout = holdout
        self._branches_topic = branches_topic
        self._clock = clock

    def judge(self, batch: Batch, ended: Sequence[str]) -> None:
        """Add what follows from the episodes `ended`."""
        refusals: Counter[str] = Counter()
        for episode, steps, successes in self._newly_judged(ended):
            if is_trusted(steps, successes):
                request = branch_request(episode, steps, "trusted")
                refusal = "not an append-only conversation" if request is None else self._trust(batch, request, steps)
                refusals.update([refusal] if refusal else [])
            elif has_failed(steps, successes):
                self._fail(batch, episode, steps)
        for reason, episodes in refusals.items():
            log.warning("episodes not trusted", reason=reason, episodes=episodes)

    def _trust(self, batch: Batch, request: BranchRequest, steps: Sequence[StoredStep]) -> str | None:
        """Note that the episode is trusted, or why it is not."""
        admitted = Admitted(steps[0].principal, similarity_hash(steps), self._clock())
        refusal = self._memory.quota.refusal(admitted)
        if refusal is not None:
            batch.add("flags", episode_id=request.episode_id, reason=refusal)
            return refusal
        self._memory.quota.admit(admitted)
        split = self._holdout.split(request.task.task_id)
        batch.add(
            "trusted",
            episode_id=request.episode_id,
            split=split.value,
            principal=admitted.principal,
            likeness=admitted.similarity_hash,
            trusted_at=admitted.at,
        )
        self._ask(batch, request, split)
        return None

    def _fail(self, batch: Batch, episode: str, steps: Sequence[StoredStep]) -> None:
        """Note that the episode failed; one that is not an append-only conversation cannot be resumed from."""
        request = branch_request(episode, steps, "failed")
        if request is not None:
            split = self._holdout.split(request.task.task_id)
            batch.add("failed", episode_id=episode, split=split.value, principal=steps[0].principal)
            self._ask(batch, request, split)

    def _ask(self, batch: Batch, request: BranchRequest, split: Split) -> None:
        if split is Split.TRAIN:
            batch.outgoing(Outgoing(self._branches_topic, request.episode_id.encode(), request.to_json()))

    def _newly_judged(self, episodes: Sequence[str]) -> Iterator[tuple[str, list[StoredStep], list[bool]]]:
        """Id, steps in order and successes of those with an outcome, unless decided on before, flagged or revoked."""
        if not episodes:
            return
        start = {"start": self._memory.starts.before(episodes)}
        outcomes = self._database.rows_of(episodes, OUTCOMES_TO_JUDGE, start)
        if not outcomes:
            return
        successes = {row["episode_id"]: row["successes"] for row in outcomes}
        rows = self._database.rows_of(list(successes), STEPS_OF_WANTED, start)
        for episode, steps in groupby(rows, key=itemgetter("episode_id")):
            yield episode, [StoredStep.of(step) for step in steps], successes[episode]
