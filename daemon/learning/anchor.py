"""The anchor of a trial, loaded while the trial lasts. `cycle.py` calls this."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog

from daemon.registry.registry import Registry
from evaluation.gates.gate import Competitor
from learners.adapters import AdapterStore
from ratchet_client.errors import RatchetError
from streams.policy.client import PolicyClient

log = structlog.get_logger()


@asynccontextmanager
async def served_anchor(
    registry: Registry, adapters: AdapterStore, policy: PolicyClient, served: Sequence[Competitor], actor: str
) -> AsyncIterator[Competitor]:
    """The anchor, under a name of its own where it is not among those that are `served` already.

    One that cannot be loaded is not there to be compared with: the gates that ask for it are then inconclusive.
    """
    anchor = registry.anchor_first_champion(actor).anchor
    known = next((each for each in served if each.adapter == anchor), None)
    if known is not None:
        yield known
        return
    name = registry.name(anchor, actor, "to be compared with, as the anchor")
    missing = ""
    try:
        await asyncio.to_thread(adapters.check, anchor)
        await policy.load_adapter(name, str(adapters.folder(anchor).resolve()))
    except RatchetError as error:
        log.warning("the anchor cannot be loaded", adapter=anchor, reason=str(error))
        missing = str(error)
    try:
        yield Competitor(anchor, name, missing)
    finally:
        if not missing:
            await policy.unload_adapter(name)
