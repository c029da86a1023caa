"""The roles of a running Ratchet, each a process of its own: `ratchet run --roles ROLE` ends up here."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path

import structlog

from daemon import serve as serving
from daemon.config import Settings
from daemon.cycle import ACTOR, Loop, Phase, open_loop, run_cycle
from learners.base_model import resolve_base
from learners.snapshots import SnapshotManifest
from streams import brancher, recorder
from streams.errors import RatchetError
from streams.processes import stop_on_signals

log = structlog.get_logger()

_POLL_S = 5.0
_PROGRESS_EVERY_S = 10.0


class Role(StrEnum):
    """`record` stores the stream, `branch` tries alternatives, `learn` runs cycles, `serve` has gateway and control."""

    RECORD = "record"
    BRANCH = "branch"
    LEARN = "learn"
    SERVE = "serve"


async def record(settings: Settings) -> None:
    await recorder.serve(settings.kafka, settings.store, settings.holdout, stop_on_signals())


async def branch(settings: Settings) -> None:
    await brancher.serve(settings.kafka, settings.branching, stop_on_signals())


async def serve(settings: Settings) -> None:
    await serving.serve(settings.serving, settings.store_url, settings.kafka, stop_on_signals())


async def learn(settings: Settings) -> None:
    """Run a cycle whenever enough new trusted episodes are stored and branched, until the process is told to stop."""
    stop = asyncio.create_task(stop_on_signals().wait())
    base = await asyncio.to_thread(resolve_base, settings.model, settings.home)
    async with open_loop(settings, base) as loop:
        learning = asyncio.create_task(Learner(loop).run())
        await asyncio.wait((learning, stop), return_when=asyncio.FIRST_COMPLETED)
        if learning.done():
            await learning
        learning.cancel()
        await asyncio.gather(learning, return_exceptions=True)


RUN: dict[Role, Callable[[Settings], Awaitable[None]]] = {
    Role.RECORD: record,
    Role.BRANCH: branch,
    Role.LEARN: learn,
    Role.SERVE: serve,
}


class Learner:
    """Decides when a cycle is due, and runs it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._due_since: float | None = None
        self._told = 0.0

    async def run(self) -> None:
        """Learn until cancelled."""
        await self._unload_leftovers()
        while True:
            try:
                if await self.is_due():
                    self._due_since = None
                    await run_cycle(self._loop, self._loop.settings.learner, self._tell)
            except RatchetError as error:
                # What serves is untouched; the same data is tried again when more of it has come.
                log.error("the cycle failed", error=str(error))
            await asyncio.sleep(_POLL_S)

    async def is_due(self) -> bool:
        """Whether enough trusted episodes came since the newest snapshot, branched or waited for long enough."""
        settings = self._loop.settings
        since = _newest_snapshot(settings.home / "snapshots")
        new = await self._loop.store.query(
            f"SELECT count(*) AS n FROM trusted WHERE split = 'train' AND sequence > {since}"
        )
        if int(new["n"][0].as_py()) < settings.learner.min_new_episodes:
            return False
        self._due_since = self._due_since or time.monotonic()
        asked, answered = await self._loop.branching_state()
        return answered >= asked or time.monotonic() - self._due_since > settings.learner.branch_patience_s

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


def _newest_snapshot(folder: Path) -> int:
    manifests = (SnapshotManifest.model_validate_json(path.read_bytes()) for path in folder.glob("*/manifest.json"))
    return max((manifest.as_of for manifest in manifests), default=-1)
