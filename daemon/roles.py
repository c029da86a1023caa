"""The roles of a running Ratchet, each a process of its own: `ratchet run --roles ROLE` ends up here."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path

import structlog

from daemon import serve as serving
from daemon.config import Settings
from daemon.cycle import Loop, Phase, open_loop, run_cycle
from learners.base_model import resolve_base
from learners.snapshots import SnapshotManifest
from streams import brancher, recorder
from streams.errors import RatchetError
from streams.processes import stop_on_signals

log = structlog.get_logger()

_POLL_S = 5.0


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
    stop = stop_on_signals()
    base = resolve_base(settings.model, settings.home)
    async with open_loop(settings, base) as loop:
        working = asyncio.create_task(_keep_learning(loop))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not working.done():
            working.cancel()
        await asyncio.gather(working, return_exceptions=stop.is_set())


RUN: dict[Role, Callable[[Settings], Awaitable[None]]] = {
    Role.RECORD: record,
    Role.BRANCH: branch,
    Role.LEARN: learn,
    Role.SERVE: serve,
}


async def _keep_learning(loop: Loop) -> None:
    while True:
        try:
            if await cycle_is_due(loop):
                await run_cycle(loop, loop.settings.learner, _log_progress)
        except RatchetError as error:
            # What serves is untouched; the same data is tried again when more of it has come.
            log.error("the cycle failed", error=str(error))
        await asyncio.sleep(_POLL_S)


async def cycle_is_due(loop: Loop) -> bool:
    """Whether enough trusted episodes came since the newest snapshot, and the branch workers are done with them."""
    since = _newest_snapshot(loop.settings.home / "snapshots")
    new = await loop.store.query(f"SELECT count(*) AS n FROM trusted WHERE split = 'train' AND sequence > {since}")
    asked, answered = await loop.branching_state()
    return int(new["n"][0].as_py()) >= loop.settings.learner.min_new_episodes and asked == answered


def _newest_snapshot(folder: Path) -> int:
    manifests = (SnapshotManifest.model_validate_json(path.read_bytes()) for path in folder.glob("*/manifest.json"))
    return max((manifest.as_of for manifest in manifests), default=-1)


_PROGRESS_EVERY_S = 10.0
_last_progress = 0.0


def _log_progress(phase: Phase, done: int, total: int, note: str) -> None:
    global _last_progress
    if done == total or time.monotonic() - _last_progress > _PROGRESS_EVERY_S:
        _last_progress = time.monotonic()
        log.info("cycle", phase=phase.value, done=done, total=total, note=note)
