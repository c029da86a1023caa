"""The judge of episodes that have ended: which are trusted, which failed, and the branch requests that follow.

Trusted episodes are to be branched, failed ones of a policy to be recovered from: those of the training split alone.
What was decided holds for the steps that were there. When more of an episode comes it is judged again: steps with an
outcome of their own are taken in, a failure or another account of the same step withdraws the trust. Of each verifier
the latest outcome counts, so that a later one can give trust, withdraw it, and give it back. Each change of what is
decided is a row of its own, and an episode that is neither trusted nor failed has one that says why.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from operator import itemgetter

import structlog

from streams.branch_events import BranchRequest
from streams.kafka.records import Outgoing
from streams.store.database import Database
from streams.store.memory import Memory
from streams.store.queries.writer import OUTCOMES_TO_JUDGE, STEPS_OF_WANTED
from streams.store.rows import Batch
from streams.trust.holdout import HoldoutSettings, Split
from streams.trust.quota import Admitted
from streams.trust.rules import (
    DISAGREEING,
    FAILED,
    WAITING,
    Outcome,
    StoredStep,
    TrustSettings,
    branch_request,
    cannot_be_learned_from,
    covers,
    distinct,
    has_failed,
    is_contradictory,
    why_not_trusted,
    why_not_whole,
    withdrawal_id,
)
from streams.trust.similarity import similarity_hash

log = structlog.get_logger()


class State(StrEnum):
    """The decision on an episode; the value is the table that has it."""

    TRUSTED = "trusted"
    FAILED = "failed"
    UNTRUSTED = "untrusted"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Ended:
    """An episode with an outcome, which is not revoked. `steps` are distinct and in order, there may be none.

    `outcome_at` is the sequence of its latest outcome that counts, the others those of its latest such decision.
    `reason` is why it is undecided, `flag` why it must not be learned from.
    """

    episode_id: str
    steps: Sequence[StoredStep]
    outcomes: Sequence[Outcome]
    outcome_at: int
    trusted_at: int | None = None
    failed_at: int | None = None
    untrusted_at: int | None = None
    undecided_at: int | None = None
    reason: str | None = None
    flag: str | None = None

    @property
    def state(self) -> State | None:
        """The newest decision, None before the first."""
        times = {
            State.TRUSTED: self.trusted_at,
            State.FAILED: self.failed_at,
            State.UNTRUSTED: self.untrusted_at,
            State.UNDECIDED: self.undecided_at,
        }
        made = {at: state for state, at in times.items() if at is not None}
        return made[max(made)] if made else None

    @property
    def was_decided(self) -> bool:
        """Return whether steps of it were decided on, by now or before."""
        return self.trusted_at is not None or self.failed_at is not None

    def has_steps_after(self, sequence: int | None) -> bool:
        """Return whether steps came after a decision, or there was none."""
        return sequence is None or any(step.sequence > sequence for step in self.steps)


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
        reasons: Counter[str] = Counter()
        for ended in self._ended(episodes):
            withdrawal = self._withdrawal(ended)
            if withdrawal is not None:
                batch.add(
                    "untrusted",
                    withdrawal_id=withdrawal_id(ended.episode_id),
                    episode_id=ended.episode_id,
                    reason=withdrawal,
                )
                log.warning("an episode lost trust", episode=ended.episode_id, reason=withdrawal)
            elif ended.flag is None:
                reason = self._decide(batch, ended)
                reasons.update([] if reason is None else [reason])
        for reason, count in reasons.items():
            log.warning("episodes not trusted", reason=reason, episodes=count)

    def _decide(self, batch: Batch, ended: Ended) -> str | None:
        """Decide on an episode, for the first time or again. Returns why it is newly not trusted, None otherwise."""
        if ended.state is State.TRUSTED:
            return self._take_in(batch, ended)
        reason = why_not_trusted(ended.steps, ended.outcomes, self._trust)
        if reason is None:
            return self._trust_episode(batch, ended)
        if ended.state is State.UNTRUSTED or (ended.state is State.FAILED and has_failed(ended.steps, ended.outcomes)):
            return None
        if has_failed(ended.steps, ended.outcomes):
            return self._fail(batch, ended)
        return _leave(batch, ended, reason)

    def _take_in(self, batch: Batch, ended: Ended) -> str | None:
        """Take in the steps that came after a trusted episode was judged, if an outcome speaks of them too."""
        if not ended.has_steps_after(ended.trusted_at) or not covers(ended.outcome_at, ended.steps, again=True):
            return None
        return self._trust_episode(batch, ended)

    def _withdrawal(self, ended: Ended) -> str | None:
        """Return the reason for which nothing is learned any more from an episode that was decided on, or None."""
        if ended.state not in (State.TRUSTED, State.FAILED):
            return None
        if ended.flag is not None:
            return ended.flag
        if is_contradictory(ended.steps):
            return "two events say different things of one step"
        if ended.state is State.TRUSTED:
            reason = why_not_trusted(ended.steps, ended.outcomes, self._trust)
            return FAILED if reason == DISAGREEING else reason
        return None

    def _trust_episode(self, batch: Batch, ended: Ended) -> str | None:
        """Note that the episode is trusted, or why it is not. What was trusted before stays trusted."""
        if not covers(ended.outcome_at, ended.steps, again=ended.was_decided):
            return _leave(batch, ended, WAITING)
        request = branch_request(ended.episode_id, ended.steps, "trusted")
        if request is None:
            return _leave(batch, ended, why_not_whole(ended.steps))
        admitted = Admitted(ended.steps[0].principal, similarity_hash(ended.steps), self._clock())
        refusal = cannot_be_learned_from(request)
        if refusal is None and ended.has_steps_after(ended.trusted_at):
            refusal = self._memory.quota.refusal(admitted)
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
        if ended.has_steps_after(ended.trusted_at):
            self._ask(batch, request, split)
        return None

    def _fail(self, batch: Batch, ended: Ended) -> str | None:
        """Note that the episode failed, or why it cannot be resumed from."""
        request = branch_request(ended.episode_id, ended.steps, "failed")
        if request is None:
            return _leave(batch, ended, why_not_whole(ended.steps))
        refusal = cannot_be_learned_from(request)
        if refusal is not None:
            batch.add("flags", episode_id=request.episode_id, reason=refusal)
            return refusal
        split = self._holdout.split(request.task.task_id)
        batch.add("failed", episode_id=ended.episode_id, split=split.value, principal=ended.steps[0].principal)
        if ended.has_steps_after(ended.failed_at):
            self._ask(batch, request, split)
        return None

    def _ask(self, batch: Batch, request: BranchRequest, split: Split) -> None:
        if split is Split.TRAIN:
            batch.outgoing(Outgoing(self._branches_topic, request.episode_id.encode(), request.to_json()))

    def _ended(self, episodes: Sequence[str]) -> Iterator[Ended]:
        """Those of the episodes that have an outcome, unless they are revoked."""
        if not episodes:
            return
        start = {"start": self._memory.starts.before(episodes)}
        judged = {row["episode_id"]: row for row in self._database.rows_of(episodes, OUTCOMES_TO_JUDGE, start)}
        if not judged:
            return
        rows = self._database.rows_of(list(judged), STEPS_OF_WANTED, start)
        steps = {
            episode: distinct([StoredStep.of(step) for step in stored])
            for episode, stored in groupby(rows, key=itemgetter("episode_id"))
        }
        for episode, row in sorted(judged.items()):
            outcomes = tuple(map(Outcome, row.pop("verifiers"), row.pop("successes")))
            yield Ended(steps=steps.get(episode, ()), outcomes=outcomes, **row)


def _leave(batch: Batch, ended: Ended, reason: str | None) -> str | None:
    """Note why an episode is neither trusted nor failed. Returns the reason if it is another than before.

    One that is trusted stays so, as far as it was judged, and one that lost trust stays without.
    """
    if ended.state in (State.TRUSTED, State.UNTRUSTED):
        return reason
    if ended.state is State.UNDECIDED and ended.reason == reason:
        return None
    succeeded = any(outcome.success for outcome in ended.outcomes)
    batch.add("undecided", episode_id=ended.episode_id, succeeded=succeeded, reason=reason)
    return reason
