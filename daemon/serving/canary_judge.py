"""Judges the canary that runs, by the outcomes in the store and by errors of the inference server.

The serve role runs it beside the gateway. An outcome that is late, and a store that is away, leave the canary as it is.
"""

import asyncio
import time

import structlog

from daemon.registry.audit import Action
from daemon.registry.canaries import RunningCanary
from daemon.registry.registry import Registry, served_name
from daemon.registry.schemas import BASE, CanaryEnd
from daemon.serving.canary import Canary
from daemon.serving.promotion import Promoter
from daemon.serving.room import ACTOR
from evaluation.canary import CanaryEvidence, CanaryVerdict, JudgedEpisode, decide_canary
from ratchet_client.errors import RatchetError
from streams.errors import StoreError
from streams.store.client import StoreClient
from streams.store.queries.canary import CANARY_EPISODES

log = structlog.get_logger()

_ENDS = {
    CanaryVerdict.PROMOTE: CanaryEnd.PROMOTED,
    CanaryVerdict.ROLL_BACK: CanaryEnd.ROLLED_BACK,
    CanaryVerdict.INCONCLUSIVE: CanaryEnd.INCONCLUSIVE,
}
_LONGEST_PAUSE_S = 60.0
_RETRY_S = 1.0


class CanaryJudge:
    """The judge of one serve process; `run` works until cancelled."""

    def __init__(self, registry: Registry, canary: Canary, promoter: Promoter, store: StoreClient) -> None:
        self._registry = registry
        self._canary = canary
        self._promoter = promoter
        self._store = store

    async def run(self) -> None:
        await asyncio.gather(self._by_errors(), self._by_outcomes())

    async def judge(self) -> None:
        """Judge the canary that runs, if one does, and end it where that is proved. Raises `RatchetError`."""
        running = self._canary.running
        if running is None:
            return
        evidence = await self._evidence(running)
        decision = decide_canary(evidence, running.start.share, self._canary.settings)
        if self._canary.running is not running:
            return  # it has ended meanwhile
        self._canary.figures, self._canary.word = decision.figures, decision.reason
        end = _ENDS.get(decision.verdict)
        if end is not None:
            await self._promoter.end_canary(end, running.adapter, decision.reason)

    async def _by_outcomes(self) -> None:
        pause = self._canary.settings.judge_s
        while True:
            await asyncio.sleep(pause)
            try:
                await self.judge()
                pause = self._canary.settings.judge_s
            except (RatchetError, OSError) as error:
                log.warning("the canary could not be judged, or not ended", error=str(error))
                pause = max(pause, min(2 * pause, _LONGEST_PAUSE_S))

    async def _by_errors(self) -> None:
        """Take back a candidate that the inference server fails on, without waiting for outcomes."""
        while True:
            await self._canary.failing.wait()
            running, reason = self._canary.running, self._canary.error_reason()
            if running is None or reason is None:
                self._canary.failing.clear()
                continue
            try:
                await self._promoter.end_canary(CanaryEnd.ROLLED_BACK, running.adapter, reason)
            except (RatchetError, OSError) as error:
                log.warning("the canary could not be ended", error=str(error))
                await asyncio.sleep(_RETRY_S)

    async def _evidence(self, running: RunningCanary) -> CanaryEvidence:
        """Return the store's counts of the canary; where it does not answer, only the time that has passed counts."""
        hours = (time.time() - running.began.timestamp()) / 3600
        try:
            rows = await self._store.query(
                CANARY_EPISODES,
                {
                    "since": running.began.timestamp(),
                    "champion": self._names(running.start.champion),
                    "candidate": self._names(running.adapter),
                },
            )
        except StoreError:
            if hours < self._canary.settings.most_hours:
                raise
            return CanaryEvidence((), 0, 0, hours)
        episodes = rows.to_pylist()
        candidates = sum(row["candidate"] for row in episodes)
        return CanaryEvidence(
            judged=tuple(
                JudgedEpisode(row["candidate"], row["success"]) for row in episodes if row["success"] is not None
            ),
            champion_begun=len(episodes) - candidates,
            candidate_begun=candidates,
            hours=hours,
        )

    def _names(self, adapter: str) -> list[str]:
        """The names under which an adapter has served: a server that restarts gets it under another."""
        if adapter == BASE:
            return [BASE]
        return [
            served_name(entry)
            for entry in self._registry.audit.read()
            if entry.action is Action.NAMED and entry.subject == adapter and entry.actor == ACTOR
        ]
