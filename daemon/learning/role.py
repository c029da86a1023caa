"""The learn role: runs a cycle whenever one is due. It listens on nothing."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import structlog

from daemon.config import Settings
from daemon.learning.cycle import run_cycle
from daemon.learning.domain import RECORDED, SET, UNSET, is_judged
from daemon.learning.forgetting import mark_exposed
from daemon.learning.loop import ACTOR, Loop, Phase, open_loop
from daemon.learning.practice import Practice
from daemon.learning.resuming import resume, unfinished
from daemon.registry.canaries import running_canary
from learners.base_model import resolve_base
from learners.snapshots import SnapshotManifest
from streams.errors import RatchetError
from streams.store.queries.learning import LEARNABLE_EPISODES
from streams.store.queries.practice import NEW_PRACTICE
from streams.store.queries.retractions import LATEST_RETRACTION, RETRACTIONS_AFTER
from streams.store.queries.trust import LATEST_WITHDRAWAL, WITHDRAWALS_AFTER

log = structlog.get_logger()

_POLL_S = 5.0
_PROGRESS_EVERY_S = 10.0
# The pause doubles each time: the last attempt comes after about 20 minutes.
_MOST_RESUMPTIONS = 8


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run a cycle whenever enough new trusted episodes are stored and branched, until `stop` is set.

    Without a domain there is nothing to judge a candidate by, and none is trained, unless recorded states will do.
    """
    if not is_judged(settings.domain):
        log.warning(UNSET, remedy=SET)
        await stop.wait()
        return
    if not settings.domain.environment:
        log.warning(RECORDED)
    stopped = asyncio.create_task(stop.wait())
    base = await asyncio.to_thread(resolve_base, settings.model, settings.home)
    await asyncio.to_thread(_check_template, base, embedded=not settings.engine.url)
    async with open_loop(settings, base) as loop:
        learning = asyncio.create_task(Learner(loop).run())
        await asyncio.wait((learning, stopped), return_when=asyncio.FIRST_COMPLETED)
        if learning.done():
            await learning
        learning.cancel()
        await asyncio.gather(learning, return_exceptions=True)


def _check_template(base: Path, *, embedded: bool) -> None:
    """Raises `ConfigurationError` when replies cannot be trained as they are served."""
    # Whatever asks for a role's name imports this module, and Transformers takes seconds to import.
    from learners.chat import ChatTokenizer

    tokenizer = ChatTokenizer(base)
    tokenizer.check_replies()
    refused = tokenizer.refused_system_message()
    if refused is not None:
        log.warning("episodes with a system message are left out of training", reason=refused)
    if not embedded:
        tokenizer.check_configured_stop()


class Learner:
    """Decides when a cycle is due, and runs it; practises in between."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._practice = Practice(loop)
        self._due_since: float | None = None
        self._told = 0.0
        self._resumptions: Counter[str] = Counter()
        self._resume_at = 0.0
        self._marked: tuple[int, int, tuple[str, ...]] = (0, 0, ())
        self._waiting = -1

    async def run(self) -> None:
        """Learn until cancelled."""
        await self._unload_leftovers()
        try:
            while True:
                try:
                    await self.mark_exposed()
                    if not await self.resume():
                        if await self.is_due():
                            self._due_since = None
                            await run_cycle(self._loop, self._loop.settings.learner, self._tell)
                        elif self._practice.is_wanted():
                            await self.practise()
                except RatchetError as error:
                    # What serves is untouched; the same data is tried again when more of it has come.
                    log.error("the cycle failed", error=str(error))
                await asyncio.sleep(_POLL_S)
        finally:
            self._practice.close()

    async def practise(self) -> None:
        """Practise a round, and stop at once when a cycle is due. Raises what tells whether one is due."""
        playing = asyncio.create_task(self._practice.play_round())
        try:
            while not playing.done():
                await asyncio.wait((playing,), timeout=_POLL_S)
                if not playing.done() and await self.is_due():
                    log.info("practice stops, for a cycle is due")
                    return
            if (error := playing.exception()) is not None:
                if not isinstance(error, RatchetError):
                    raise error
                log.error("practice failed", error=str(error))
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)

    async def is_due(self) -> bool:
        """Return whether enough trusted episodes came since the newest snapshot, branched or waited for long enough.

        So it is when enough was practised. None is while a canary runs: what the next candidate has to beat is not
        known yet. A champion that saw data of a principal that revoked consent, or an episode that lost trust, is to be
        replaced by as much as is left, once for each retraction and each such episode.
        """
        settings = self._loop.settings
        if settings.serving.canary.share and running_canary(self._loop.registry) is not None:
            return False
        since, obeyed = _newest_snapshot(settings.home / "snapshots")
        count = await self._loop.store.query(LEARNABLE_EPISODES, {"since": since})
        new, needed = int(count["new"][0].as_py()), settings.learner.min_new_episodes
        if (
            new < needed
            and not (count["learnable"][0].as_py() and await self._champion_is_to_be_replaced(since, obeyed))
            and not await self._practised_enough(since)
        ):
            self._tell_waiting(new, needed)
            return False
        self._due_since = self._due_since or time.monotonic()
        asked, answered = await self._loop.branching_state()
        return answered >= asked or time.monotonic() - self._due_since > settings.learner.branch_patience_s

    async def _practised_enough(self, since: int) -> bool:
        """Return whether practice alone, after the sequence `since`, is worth a cycle."""
        practice = self._loop.settings.learner.practice
        if not practice.enabled:
            return False
        count = await self._loop.store.query(NEW_PRACTICE, {"since": since})
        return int(count["successes"][0].as_py()) >= practice.min_new_episodes

    def _tell_waiting(self, new: int, needed: int) -> None:
        """Say why no cycle is due, whenever that has changed."""
        if new != self._waiting:
            self._waiting = new
            log.info(
                "the next cycle waits for trusted episodes on train tasks",
                new=new,
                needed=needed,
                since="the newest snapshot, also if its training was broken off",
                remedy="`ratchet episodes list` says why episodes are not learned from",
            )

    async def resume(self) -> bool:
        """Finish a trial that this or an earlier learner had to break off; whether one is, or was, to be finished.

        After an error it is tried again later, and so often at most before it is left for a person to look at.
        """
        left = unfinished(self._loop.registry.audit.read())
        if left is None or self._resumptions[left.subject] >= _MOST_RESUMPTIONS:
            return False
        if time.monotonic() < self._resume_at:
            return True
        self._resumptions[left.subject] += 1
        self._resume_at = time.monotonic() + _POLL_S * 2 ** self._resumptions[left.subject]
        log.info("a trial is resumed", adapter=left.subject, state=left.state, time=self._resumptions[left.subject])
        await self._unload_leftovers()
        await resume(self._loop, left, self._tell)
        return True

    async def mark_exposed(self) -> None:
        """Mark what is to be retrained: a retraction may come from any producer, and an adapter after it."""
        retraction, withdrawal = await self._latest(LATEST_RETRACTION), await self._latest(LATEST_WITHDRAWAL)
        looked_at = (retraction, withdrawal, self._loop.adapters.digests())
        if looked_at == self._marked or not (retraction or withdrawal):
            return
        for mark in await mark_exposed(self._loop.store, self._loop.registry, self._loop.provenance(), ACTOR):
            log.warning("to be retrained", adapter=mark.subject, reason=mark.reason)
        self._marked = looked_at

    async def _champion_is_to_be_replaced(self, since: int, obeyed: int) -> bool:
        """Return whether it saw what the newest snapshots do not leave out yet.

        These go up to the sequence `since`, and obey retractions up to `obeyed`.
        """
        registry = self._loop.registry
        ids = sorted(registry.marks().get(registry.refs().champion, ()))
        if not ids:
            return False
        retracted = await self._loop.store.query(RETRACTIONS_AFTER, {"sequence": obeyed, "event_ids": ids})
        withdrawn = await self._loop.store.query(WITHDRAWALS_AFTER, {"sequence": since, "withdrawal_ids": ids})
        return bool(retracted["count"][0].as_py() or withdrawn["count"][0].as_py())

    async def _latest(self, query: str) -> int:
        return int((await self._loop.store.query(query))["sequence"][0].as_py())

    async def _unload_leftovers(self) -> None:
        """A learner that died during a gate left its candidate loaded."""
        given = self._loop.registry.names_given_by(ACTOR)
        for model in await self._loop.policy.models():
            if model.name in given:
                await self._loop.policy.unload_adapter(model.name)

    def _tell(self, phase: Phase, done: int, total: int, note: str) -> None:
        if done == total or time.monotonic() - self._told > _PROGRESS_EVERY_S:
            self._told = time.monotonic()
            log.info("cycle", phase=phase.value, done=done, total=total, note=note)


def _newest_snapshot(folder: Path) -> tuple[int, int]:
    """The latest sequence that a snapshot took in, and that of the latest retraction that one obeyed."""
    manifests = [SnapshotManifest.model_validate_json(path.read_bytes()) for path in folder.glob("*/manifest.json")]
    return (
        max((manifest.as_of for manifest in manifests), default=-1),
        max((manifest.retracted_as_of for manifest in manifests), default=0),
    )
