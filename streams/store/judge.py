"""What follows for the branch workers from episodes that have come to their end. The store asks it in each transaction.

Trusted episodes are to be branched, failed ones of a policy to be recovered from: those of the training split alone.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby

import structlog

from streams.events import BranchRequest
from streams.kafka.records import Outgoing
from streams.store.database import Database
from streams.store.rows import Batch
from streams.store.seen_ids import EpisodeStarts
from streams.trust.holdout import HoldoutSettings, Split
from streams.trust.quota import Admitted, Quota
from streams.trust.rules import (
    STEP_COLUMNS,
    WITHDRAWN_EPISODES,
    StoredStep,
    branch_request,
    has_failed,
    is_trusted,
    likeness,
)

log = structlog.get_logger()


class Judge:
    """Reads the episodes of a batch back from the database, whose transaction is under way, and adds to the batch."""

    def __init__(
        self,
        database: Database,
        starts: EpisodeStarts,
        quota: Quota,
        holdout: HoldoutSettings,
        branches_topic: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._starts = starts
        self._quota = quota
        self._holdout = holdout
        self._branches_topic = branches_topic
        self._clock = clock

    def judge(self, batch: Batch, ended: Sequence[str]) -> int:
        """Add what follows from the episodes `ended`; returns how many of them became trusted."""
        refusals: Counter[str] = Counter()
        trusted = 0
        for episode, steps, successes in self._judged(ended):
            if is_trusted(steps, successes):
                request = branch_request(episode, steps, "trusted")
                refusal = "not one growing chat" if request is None else self._trust(batch, request, steps)
                trusted += refusal is None
                refusals.update([refusal] if refusal else [])
            elif has_failed(steps, successes):
                self._fail(batch, episode, steps)
        for reason, episodes in refusals.items():
            log.warning("episodes not trusted", reason=reason, episodes=episodes)
        return trusted

    def _trust(self, batch: Batch, request: BranchRequest, steps: Sequence[StoredStep]) -> str | None:
        """Note that the episode is trusted, or why it is not."""
        admitted = Admitted(steps[0].principal, likeness(steps), self._clock())
        refusal = self._quota.refusal(admitted)
        if refusal is not None:
            batch.add("flags", request.episode_id, refusal)
            return refusal
        self._quota.admit(admitted)
        split = self._holdout.split(request.task.task_id)
        batch.add("trusted", request.episode_id, split.value, admitted.principal, admitted.likeness, admitted.at)
        self._ask(batch, request, split)
        return None

    def _fail(self, batch: Batch, episode: str, steps: Sequence[StoredStep]) -> None:
        """Note that the episode failed; one that is not one growing chat cannot be gone on from."""
        request = branch_request(episode, steps, "failed")
        if request is not None:
            split = self._holdout.split(request.task.task_id)
            batch.add("failed", episode, split.value, steps[0].principal)
            self._ask(batch, request, split)

    def _ask(self, batch: Batch, request: BranchRequest, split: Split) -> None:
        if split is Split.TRAIN:
            batch.outgoing(Outgoing(self._branches_topic, request.episode_id.encode(), request.to_json()))

    def _judged(self, episodes: Sequence[str]) -> Iterator[tuple[str, list[StoredStep], list[bool]]]:
        """Of those newly judged and neither flagged nor withdrawn: id, steps in order, verdicts."""
        if not episodes:
            return
        start = self._starts.before(episodes)
        verdicts = dict(
            self._database.matching(
                "SELECT episode_id, list(success) FROM outcomes WHERE sequence >= $1 AND episode_id IN (FROM wanted) "
                "AND episode_id NOT IN (SELECT episode_id FROM trusted WHERE sequence >= $1) "
                "AND episode_id NOT IN (SELECT episode_id FROM failed WHERE sequence >= $1) "
                "AND episode_id NOT IN (SELECT episode_id FROM flags WHERE sequence >= $1) "
                f"AND episode_id NOT IN ({WITHDRAWN_EPISODES} AND sequence >= $1) GROUP BY episode_id",
                episodes,
                [start],
            )
        )
        if not verdicts:
            return
        rows = self._database.matching(
            f"SELECT episode_id, {STEP_COLUMNS} FROM transitions WHERE sequence >= ? AND origin = 'production' "
            "AND episode_id IN (FROM wanted) ORDER BY episode_id, step, sequence",
            list(verdicts),
            [start],
        )
        for episode, group in groupby(rows, key=lambda row: row[0]):
            yield episode, [StoredStep.of(row[1:]) for row in group], verdicts[episode]
