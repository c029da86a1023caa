"""The judge of episodes that have ended: which are trusted, which failed, and the branch requests that follow.

Trusted episodes are to be branched, failed ones of a policy to be recovered from: those of the training split alone.
What was decided holds for the steps that were there. When more of an episode comes it is judged again: steps with an
outcome of their own are taken in, a failure or another account of the same step withdraws the trust permanently.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from streams.trust.rules import (
    StoredStep,
    TrustSettings,
    branch_request,
    cannot_be_learned_from,
    covers,
    distinct,
    has_failed,
    is_contradictory,
    is_trusted,
    similarity_hash,
    withdrawal_id,
)

log = structlog.get_logger()

_NO_CONVERSATION = "not an append-only conversation"


@dataclass(frozen=True, slots=True)
class Ended:
    """An episode with an outcome, which is neither revoked nor untrusted. `steps` are distinct and in order.

    `outcome_at` is the sequence of its latest outcome, `trusted_at` and `failed_at` that of the latest such decision.
    `flag` is why it must not be learned from.
    """

    episode_id: str
    steps: Sequence[StoredStep]
    successes: Sequence[bool]
    outcome_at: int
    trusted_at: int | None
    failed_at: int | None
    flag: str | None


class Judge:
    """Reads the episodes of a batch back from the database, whose transaction is under way, and adds to the batch."""

    def __init__(
        self,
        database: Database,
        memory: Memory,
        holdout: HoldoutSettings,
        trust: TrustSettings,
        branches_topic: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._memory = memory
        self._holdout = holdout
        self._trust = trust
        self._branches_topic = branches_topic
        self._clock = clock

    def judge(self, batch: Batch, episodes: Sequence[str]) -> None:
        """Add what follows from what is stored of `episodes`."""
        refusals: Counter[str] = Counter()
        for ended in self._ended(episodes):
            if ended.trusted_at is None and ended.failed_at is None:
                refusal = self._decide(batch, ended)
            elif (reason := self._withdrawal(ended)) is not None:
                batch.add(
                    "untrusted",
                    withdrawal_id=withdrawal_id(ended.episode_id),
                    episode_id=ended.episode_id,
                    reason=reason,
                )
                log.warning("an episode lost trust", episode=ended.episode_id, reason=reason)
                continue
            else:
                refusal = self._decide_again(batch, ended)
            refusals.update([refusal] if refusal else [])
        for reason, count in refusals.items():
            log.warning("episodes not trusted", reason=reason, episodes=count)

    def _decide(self, batch: Batch, ended: Ended) -> str | None:
        """Decide on an episode for the first time. Returns the reason for which it is not trusted, if one is known."""
        if ended.flag is not None:
            return None
        if is_trusted(ended.steps, ended.successes, self._trust):
            if not covers(ended.outcome_at, ended.steps, again=False):
                return None
            return self._trust_episode(batch, ended)
        if has_failed(ended.steps, ended.successes):
            return self._fail(batch, ended)
        return None

    def _decide_again(self, batch: Batch, ended: Ended) -> str | None:
        """Take in the steps that came after a trusted episode was judged, if an outcome speaks of them too."""
        if ended.trusted_at is None or all(step.sequence < ended.trusted_at for step in ended.steps):
            return None
        if not covers(ended.outcome_at, ended.steps, again=True):
            return None
        return self._trust_episode(batch, ended)

    def _withdrawal(self, ended: Ended) -> str | None:
        """Return the reason for which nothing is learned any more from an episode that was decided on, or None."""
        if ended.flag is not None:
            return ended.flag
        if is_contradictory(ended.steps):
            return "two events say different things of one step"
        if ended.trusted_at is not None and not is_trusted(ended.steps, ended.successes, self._trust):
            return "an outcome says that it failed"
        return None

    def _trust_episode(self, batch: Batch, ended: Ended) -> str | None:
        """Note that the episode is trusted, or return why it is not. What was trusted before stays trusted."""
        request = branch_request(ended.episode_id, ended.steps, "trusted")
        if request is None:
            return _NO_CONVERSATION
        admitted = Admitted(ended.steps[0].principal, similarity_hash(ended.steps), self._clock())
        refusal = cannot_be_learned_from(request) or self._memory.quota.refusal(admitted)
        if refusal is not None:
            if ended.trusted_at is None:
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

    def _fail(self, batch: Batch, ended: Ended) -> str | None:
        """Note that the episode failed, or return why it cannot be resumed from."""
        request = branch_request(ended.episode_id, ended.steps, "failed")
        if request is None:
            return _NO_CONVERSATION
        refusal = cannot_be_learned_from(request)
        if refusal is not None:
            batch.add("flags", episode_id=request.episode_id, reason=refusal)
            return refusal
        split = self._holdout.split(request.task.task_id)
        batch.add("failed", episode_id=ended.episode_id, split=split.value, principal=ended.steps[0].principal)
        self._ask(batch, request, split)
        return None

    def _ask(self, batch: Batch, request: BranchRequest, split: Split) -> None:
        if split is Split.TRAIN:
            batch.outgoing(Outgoing(self._branches_topic, request.episode_id.encode(), request.to_json()))

    def _ended(self, episodes: Sequence[str]) -> Iterator[Ended]:
        """Those of the episodes that have an outcome and steps, unless they are revoked or untrusted."""
        if not episodes:
            return
        start = {"start": self._memory.starts.before(episodes)}
        outcomes = {row["episode_id"]: row for row in self._database.rows_of(episodes, OUTCOMES_TO_JUDGE, start)}
        if not outcomes:
            return
        rows = self._database.rows_of(list(outcomes), STEPS_OF_WANTED, start)
        for episode, steps in groupby(rows, key=itemgetter("episode_id")):
            yield Ended(steps=distinct([StoredStep.of(step) for step in steps]), **outcomes[episode])
