"""Puts adapters into service and takes them back: load, attest, flip the alias, drain, unload.

The control API calls it on request, and the serve role at its start and whenever the inference server has lost what
serves. Until the alias is flipped nothing that serves is touched.
"""

import asyncio
import time
from collections.abc import Callable

import structlog
from pydantic import Field

from daemon.registry.approval import Approval
from daemon.registry.audit import AuditEntry
from daemon.registry.registry import Refs, Registry
from daemon.registry.schemas import BASE, Change, HeldAdapter
from daemon.serving.alias import Alias
from evaluation.attestation import Probes, attest
from evaluation.settings import ProbeSettings
from streams.errors import PolicyError, PromotionError, RatchetError
from streams.policy.client import PolicyClient
from streams.settings import FrozenModel

log = structlog.get_logger()

# Who gives the names that serve; the learner names its candidates itself.
ACTOR = "serve"


class PromotionSettings(FrozenModel):
    """Settings of promotion: how it is done, and when a person is asked first."""

    approval: Approval = Field(
        default=Approval.ON_HOLD,
        description="Who lets a candidate serve: always a person, a person if a gate says HOLD, or never a person, "
        "which leaves those on HOLD inconclusive.",
    )
    approval_age_s: float = Field(
        default=7 * 86_400.0,
        gt=0,
        le=3650 * 86_400.0,
        description="Seconds after which a candidate that nobody approved or rejected lapses.",
    )
    drain_timeout_s: float = Field(
        default=60.0, gt=0, description="Longest wait for requests in flight before the old adapter is unloaded."
    )
    probe: ProbeSettings = ProbeSettings()


class Promoter:
    """Changes what serves, one change at a time. The only place that flips the alias."""

    def __init__(self, registry: Registry, policy: PolicyClient, alias: Alias, settings: PromotionSettings) -> None:
        self._registry = registry
        self._policy = policy
        self._alias = alias
        self._settings = settings
        self._turn = asyncio.Lock()

    async def promote(self, adapter: str, actor: str, reason: str) -> Change:
        """Let the approved `adapter` serve. Returns when the old one is drained and unloaded.

        Raises `PromotionError`, and records it, when it may not serve, cannot be loaded, or is not what was trained.
        """
        async with self._turn:
            return await self._change(adapter, actor, reason, self._registry.check_may_serve, self._registry.promote)

    async def approve(self, adapter: str, actor: str, reason: str) -> Change:
        """Let `adapter`, which waits for a person, serve, because the person `actor` says so; else as `promote`.

        A candidate that is held stays so where it cannot be loaded or attested.
        """
        async with self._turn:
            self.lapse()
            checked, exchange = self._registry.check_may_be_approved, self._registry.approve
            return await self._change(adapter, actor, reason, checked, exchange)

    async def roll_back(self, to: str | None, actor: str, reason: str) -> Change:
        """Let `to`, or else what served before, serve again. What served until now must win a gate to come back.

        Raises `PromotionError` as `promote` does. The base model is always there: rolling back to it loads nothing.
        """
        async with self._turn:
            to = to or self._registry.refs().previous
            return await self._change(to, actor, reason, self._registry.check_may_serve, self._registry.roll_back)

    def held(self) -> tuple[HeldAdapter, ...]:
        """The candidates that wait for a person."""
        return self._registry.held(self._settings.approval_age_s)

    def lapse(self) -> list[AuditEntry]:
        """End those candidates that have waited for a person for too long."""
        lapsed = self._registry.lapse(self._settings.approval_age_s, ACTOR)
        for entry in lapsed:
            log.warning("a held candidate lapsed", adapter=entry.subject, reason=entry.reason)
        return lapsed

    async def reconcile(self) -> None:
        """Make the alias stand for the champion, and the inference server have it; does nothing where that is so.

        Raises `PolicyError` when the server cannot be reached, `PromotionError` when the champion cannot serve there.
        """
        async with self._turn:
            loaded = {model.name for model in await self._policy.models()}
            champion = self._registry.refs().champion
            if self._alias.served in loaded and self._alias.adapter == champion:
                return
            self._registry.reconcile(ACTOR)
            stale = loaded & self._registry.names_given_by(ACTOR)
            served = await self._bring_up(champion)
            self._alias.point_to(champion, served)
            log.info("serving", adapter=champion, served=served)
            for name in sorted(stale):
                await self._take_down(name)

    async def _change(
        self,
        adapter: str,
        actor: str,
        reason: str,
        checked: Callable[[str], None],
        exchange: Callable[[str, str, str], Refs],
    ) -> Change:
        began = time.monotonic()
        old_adapter, old_served = self._registry.refs().champion, self._alias.served
        try:
            checked(adapter)
            served = await self._bring_up(adapter)
            try:
                exchange(adapter, actor, reason)
            except (RatchetError, OSError):
                await self._take_down(served)
                raise
        except (RatchetError, OSError) as error:
            self._registry.record_failure(adapter, actor, str(error))
            raise PromotionError(
                f"{adapter[:12]} was not put into service, {old_served} still serves: {error}"
            ) from error
        self._alias.point_to(adapter, served)
        seconds = time.monotonic() - began
        log.info("serving", adapter=adapter, served=served, instead_of=old_served, seconds=round(seconds, 3))
        if old_served is not None:
            if not await self._alias.drained(old_served, self._settings.drain_timeout_s):
                log.warning("requests were cut off", served=old_served, count=self._alias.in_flight(old_served))
            await self._take_down(old_served)
        return Change(
            from_adapter=old_adapter,
            to_adapter=adapter,
            from_name=old_served or "",
            to_name=served,
            seconds=seconds,
        )

    async def _bring_up(self, adapter: str) -> str:
        """Load `adapter` under a fresh name and attest it; the name."""
        if adapter == BASE:
            return BASE
        folder = self._registry.adapter_folder(adapter)
        probes = Probes.read(folder)
        served = self._registry.name(adapter, ACTOR, "to serve")
        await self._policy.load_adapter(served, str(folder.resolve()))
        try:
            proof = await attest(self._policy, served, BASE, probes, self._settings.probe)
        except RatchetError:
            await self._take_down(served)
            raise
        log.info("attested", served=served, deviation=round(proof.deviation, 4), effect=round(proof.effect, 4))
        return served

    async def _take_down(self, served: str) -> None:
        if served == BASE:
            return
        try:
            await self._policy.unload_adapter(served)
        except PolicyError as error:
            # It costs memory, and nothing will ever ask for that name again.
            log.warning("an adapter could not be unloaded", served=served, error=str(error))
