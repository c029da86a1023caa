"""The learn role: runs a cycle whenever one is due. `daemon/roles.py` tells its health."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from daemon.config import Settings
from daemon.learning.attempts import Attempts
from daemon.learning.cycle import run_cycle
from daemon.learning.domain import RECORDED, SET, UNSET, is_judged
from daemon.learning.due import Cause, news_since
from daemon.learning.forgetting import mark_exposed
from daemon.learning.learned import Extent, LearnedFrom, broken_off
from daemon.learning.leftovers import tidy_up, unload_leftovers
from daemon.learning.loop import ACTOR, Loop, Note, Phase, open_loop
from daemon.learning.practice import Practice
from daemon.learning.resuming import resume, unfinished
from daemon.learning.resumptions import MOST_RESUMPTIONS, Resumptions, read_resumptions, resumptions_path
from daemon.learning.telling import Telling
from daemon.learning.tellings import Tellings
from daemon.learning.templates import check_template
from daemon.registry.approval import held
from daemon.registry.canaries import running_canary
from daemon.registry.learner_status import LearnerPhase, LearnerStatus
from daemon.serving.control_client import ControlClient
from learners.base_model import resolve_base
from ratchet_client.errors import RatchetError
from streams.store.queries.retractions import LATEST_RETRACTION
from streams.store.queries.trust import LATEST_WITHDRAWAL
from streams.trust.groups import DEFAULT_GROUP

log = structlog.get_logger()

_POLL_S, _PROGRESS_EVERY_S = 5.0, 10.0


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run a cycle whenever enough new trusted episodes are stored and branched, until `stop` is set.

    Where groups of agents and tenants have adapters of their own, each has its cycles, one at a time. Without a domain
    there is nothing to judge a candidate by, and none is trained, unless recorded states will do.
    """
    tellings, reason = Tellings(settings), ""
    tellings.begin()
    try:
        await _learn(settings, stop, tellings)
    except Exception as error:
        reason = str(error) or repr(error)
        raise
    finally:
        tellings.end(reason)


async def _learn(settings: Settings, stop: asyncio.Event, tellings: Tellings) -> None:
    if not is_judged(settings.domain):
        log.warning(UNSET, remedy=SET)
        tellings.off()
        await stop.wait()
        return
    if not settings.domain.environment:
        log.warning(RECORDED)
    stopped = asyncio.create_task(stop.wait())
    async with open_learners(settings, tellings) as learners:
        learning = asyncio.create_task(take_turns(learners))
        await asyncio.wait((learning, stopped), return_when=asyncio.FIRST_COMPLETED)
        if learning.done():
            await learning
        learning.cancel()
        await asyncio.gather(learning, return_exceptions=True)


@asynccontextmanager
async def open_learners(settings: Settings, tellings: Tellings) -> AsyncIterator[Sequence["Learner"]]:
    """The learners of the default group and of all others, over the parts that they share."""
    base = await asyncio.to_thread(resolve_base, settings.model, settings.home)
    await asyncio.to_thread(check_template, base, embedded=not settings.engine.named)
    async with AsyncExitStack() as opened:
        loop = await opened.enter_async_context(open_loop(settings, base))
        learners = [Learner(loop, tellings.of[DEFAULT_GROUP], tellings.earlier[DEFAULT_GROUP])]
        for name in settings.adapters.groups:
            control = await opened.enter_async_context(ControlClient(settings.control_url, group=name))
            learners.append(Learner(loop.of_group(name, control), tellings.of[name], tellings.earlier[name]))
        yield learners


async def take_turns(learners: "Sequence[Learner]") -> None:
    """Let each of the groups' learners learn in turn, until cancelled; what one practises stops for a cycle of any."""

    async def is_any_due() -> bool:
        return any([await learner.is_due() for learner in learners])

    try:
        for learner in learners:
            await learner.begin()
        while True:
            for learner in learners:
                await learner.turn(is_any_due)
            await asyncio.sleep(_POLL_S)
    finally:
        for learner in learners:
            learner.close()


class Learner:
    """Decides when a cycle is due, and runs it; practises in between.

    `earlier` is what the learner before this one told last.
    """

    def __init__(self, loop: Loop, telling: Telling | None = None, earlier: LearnerStatus | None = None) -> None:
        self._loop = loop
        self.registry = loop.registry
        self._telling = telling or Telling(loop.settings.home)
        self._learned = LearnedFrom(loop.adapters)
        self._attempts = Attempts(_POLL_S)
        self._earlier = earlier
        self._practice = Practice(loop)
        self._practising = False
        self._cause: Cause | None = None
        self._due_since: float | None = None
        self._due_until: datetime | None = None
        self._told = 0.0
        self._resumptions = Resumptions(_POLL_S)
        self._left = ""
        self._marked: tuple[int, int, tuple[str, ...]] = (0, 0, ())
        self._waiting = -1

    async def begin(self) -> None:
        """See to what an earlier learner left."""
        await unload_leftovers(self._loop)
        tidy_up(self._loop)
        self._pause_after_failures()

    async def turn(self, is_any_due: Callable[[], Awaitable[bool]]) -> None:
        """Run a cycle, or go on with one, if that is due; practise a round if it is not, until one of others is."""
        try:
            await self.mark_exposed()
            if not await self.resume():
                if await self.is_due():
                    await self.run_cycle()
                elif self._practice.is_wanted():
                    await self.practise(is_any_due)
        except RatchetError as error:
            if str(error) != self.status.error:  # what serves is untouched, and one error is logged once
                log.error("the cycle failed", error=str(error))
            self.tell_failure(error)

    @property
    def status(self) -> LearnerStatus:
        """What it told last."""
        return self._telling.status

    def close(self) -> None:
        """End what practice has open."""
        self._practice.close()

    async def practise(self, is_due: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Practise a round, and stop at once when a cycle is due. Raises what tells whether one is due."""
        self._practising = True
        try:
            await self._practice.play_round_until(is_due or self.is_due, _POLL_S)
        finally:
            self._practising = False

    async def is_due(self) -> bool:
        """Return whether enough trusted episodes came since an adapter was trained, branched or waited for long enough.

        So it is when enough was practised. A snapshot whose training was stopped does not count: nothing was learned
        from it. None is due while a canary runs: what the next candidate has to beat is not known yet. None is due
        while the pause after a failure lasts. A champion that saw data of a principal that revoked consent, or an
        episode that lost trust, is to be replaced by as much as is left, once for each retraction and each such
        episode.
        """
        settings = self._loop.settings
        if settings.serving.canary.share and running_canary(self._loop.registry) is not None:
            self._telling.tell(LearnerPhase.CANARY)
            return False
        pause_s = self._attempts.pause_s()
        if pause_s:
            until = datetime.now(UTC) + timedelta(seconds=pause_s)
            self._telling.tell(
                LearnerPhase.PAUSED, until=until, error=self._attempts.error, failures=self._attempts.failures
            )
            return False
        news, needed = await news_since(await self._learned_extent(), self._loop), settings.learner.min_new_episodes
        self._cause = news.cause
        if news.cause is None:
            self._due_since = None
            self._tell_waiting(news.episodes, needed)
            return False
        return await self._is_branched(news.episodes, needed)

    async def run_cycle(self) -> None:
        """Run a cycle. Raises `RatchetError` when a step fails; the next is then paused for."""
        self._due_since = None
        snapshots = self._loop.settings.home / "snapshots"
        left = broken_off(snapshots, await self._learned_extent())
        if left is not None:
            log.info(
                "a cycle that was broken off is begun again",
                snapshot=left.snapshot_id,
                failures=self._attempts.failures,
            )
        self._telling.tell(LearnerPhase.TRAINING, failures=self._attempts.failures)
        settings = self._loop.settings.learner
        try:
            await run_cycle(
                self._loop, settings.for_practice() if self._cause is Cause.PRACTICE else settings, self._tell
            )
        except RatchetError as error:
            # A candidate that is there is resumed instead.
            if unfinished(self._loop.registry.audit.read()) is None:
                tried = broken_off(snapshots, self._learned.extent())
                self._attempts.failed(str(error), None if tried is None else Extent().with_snapshot(tried))
            raise
        self._attempts.succeeded()

    async def _is_branched(self, new: int, needed: int) -> bool:
        """Return whether every state was branched, or the patience with the missing ones is over."""
        patience_s = self._loop.settings.learner.branch_patience_s
        asked, answered = await self._loop.branching_state()
        missing = max(0, asked - answered)
        if self._due_since is None:
            self._due_since = time.monotonic()
            self._due_until = datetime.now(UTC) + timedelta(seconds=patience_s)
            if missing:
                log.info(
                    "a cycle is due and waits for branches",
                    missing=missing,
                    at_most_s=patience_s,
                    remedy="the setting learner.branch_patience_s; logs/branch.log says what the branch role does",
                )
        waited_s = time.monotonic() - self._due_since
        if not missing or waited_s > patience_s:
            log.info(
                "a cycle begins",
                cause=self._cause,
                new=new,
                needed=needed,
                missing_branches=missing,
                waited_s=round(waited_s),
            )
            return True
        self._telling.tell(LearnerPhase.BRANCHES, new=new, needed=needed, missing=missing, until=self._due_until)
        return False

    async def _learned_extent(self) -> Extent:
        """The extent of what was learned from, or given up."""
        learned, given_up = await asyncio.to_thread(self._learned.extent), self._attempts.given_up
        return Extent(max(learned.as_of, given_up.as_of), max(learned.retracted_as_of, given_up.retracted_as_of))

    def _pause_after_failures(self) -> None:
        """Count the failures of an earlier learner, and its death while it trained as one more."""
        earlier = self._earlier
        if earlier is None:
            return
        # It may have died of what it trained, so it does not try that at once and for ever.
        died = earlier.phase is LearnerPhase.TRAINING
        failures = earlier.failures + died
        if failures:
            tried = broken_off(self._loop.settings.home / "snapshots", self._learned.extent())
            self._attempts.failed(
                "the learner died while it trained" if died else earlier.error,
                None if tried is None else Extent().with_snapshot(tried),
                failures - 1,
            )

    def _tell_waiting(self, new: int, needed: int) -> None:
        """Say why no cycle is due; in the log whenever that has changed."""
        idle = LearnerPhase.PRACTICE if self._practising else LearnerPhase.WAITING
        phase = LearnerPhase.APPROVAL if held(self._loop.registry.audit.read()) else idle
        self._telling.tell(phase, new=new, needed=needed)
        if new != self._waiting:
            self._waiting = new
            log.info(
                "the next cycle waits for trusted episodes on train tasks",
                new=new,
                needed=needed,
                since="the snapshot of the newest adapter",
                remedy="`ratchet episodes list` says why episodes are not learned from",
            )

    def tell_failure(self, error: RatchetError) -> None:
        """Tell that a cycle failed, and until when the next attempt waits."""
        pause_s = self._attempts.pause_s() or max(_POLL_S, self._resumptions.left_s)
        until = datetime.now(UTC) + timedelta(seconds=pause_s)
        self._telling.tell(LearnerPhase.PAUSED, until=until, error=str(error), failures=self._attempts.failures)

    async def resume(self) -> bool:
        """Finish a trial that this or an earlier learner had to break off; whether one is, or was, to be finished.

        After an error it is tried again later, and so often at most before it is left for a person to look at. The
        count and the time of the last are kept beside the trial's rollouts: a learner that dies again and again pauses
        as well, and comes to its end.
        """
        left = unfinished(self._loop.registry.audit.read())
        if left is None:
            return False
        counted = resumptions_path(self._loop.registry, left.subject)
        if read_resumptions(counted)[0] >= MOST_RESUMPTIONS:
            self._tell_left(left.subject, counted)
            return False
        pause_s = self._resumptions.pause_s(counted)
        if pause_s:
            self._tell_pause(pause_s)
            return True
        self._telling.tell(LearnerPhase.GATE)
        number = self._resumptions.count(counted)
        log.info("a trial is resumed", adapter=left.subject, state=left.state, time=number)
        await unload_leftovers(self._loop)
        await resume(self._loop, left, self._tell)
        return True

    def _tell_pause(self, pause_s: float) -> None:
        """Say once that the pause of an earlier learner is kept; of its own pause this one has told the error."""
        if self._telling.status.phase is LearnerPhase.PAUSED:
            return
        until = datetime.now(UTC) + timedelta(seconds=pause_s)
        self._telling.tell(LearnerPhase.PAUSED, until=until, error="the learner ended while it resumed a trial")

    def _tell_left(self, adapter: str, counted: Path) -> None:
        """Say once that a trial is not resumed any more."""
        if adapter != self._left:
            self._left = adapter
            remedy = f"when its cause is removed, delete {counted}"
            log.error("a trial is left unfinished", adapter=adapter, resumptions=MOST_RESUMPTIONS, remedy=remedy)

    async def mark_exposed(self) -> None:
        """Mark what is to be retrained: a retraction may come from any producer, and an adapter after it."""
        retraction, withdrawal = await self._latest(LATEST_RETRACTION), await self._latest(LATEST_WITHDRAWAL)
        looked_at = (retraction, withdrawal, self._loop.adapters.digests())
        if looked_at == self._marked or not (retraction or withdrawal):
            return
        for mark in await mark_exposed(self._loop.store, self._loop.registry, self._loop.provenance(), ACTOR):
            log.warning("to be retrained", adapter=mark.subject, reason=mark.reason)
        self._marked = looked_at

    async def _latest(self, query: str) -> int:
        return int((await self._loop.store.query(query))["sequence"][0].as_py())

    def _tell(self, phase: Phase, done: int, total: int, note: Note) -> None:
        self._telling.advanced(phase, done, total, note, self._attempts.failures)
        if done == total or time.monotonic() - self._told > _PROGRESS_EVERY_S:
            self._told = time.monotonic()
            log.info("cycle", phase=phase.value, done=done, total=total, note=note.text)
