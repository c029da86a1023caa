"""Puts adapters into service and takes them back: load, attest, flip the alias, drain, unload.

The control API calls it on request, and the serve role at its start and whenever the inference server has lost what
serves. Until the alias is flipped nothing that serves is touched.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial

import structlog

from daemon.registry import holds
from daemon.registry.audit import AuditEntry
from daemon.registry.canaries import (
    RunningCanary,
    check_no_canary_runs,
    complete_report,
    end_canary,
    running_canary,
    start_canary,
)
from daemon.registry.lifecycle import State
from daemon.registry.refs import Refs
from daemon.registry.registry import Registry
from daemon.registry.schemas import CanaryEnd, CanaryStart, Change, HeldAdapter
from daemon.serving.alias import Alias
from daemon.serving.canary import Canary
from daemon.serving.loading import Loader
from daemon.serving.reconciling import Reconciler
from daemon.serving.replicas import Replicas
from daemon.serving.room import ACTOR, Room
from daemon.serving.settings import PromotionSettings as PromotionSettings
from evaluation.settings import CanarySettings
from ratchet_client.errors import RatchetError
from streams.errors import PromotionError

log = structlog.get_logger()


class Promoter:
    """Changes what serves, one change at a time. Nothing else flips the alias, or begins and ends canaries.

    Without a `canary` whatever is promoted serves at once. With a `room` it shares the servers with other groups.
    """

    def __init__(
        self,
        registry: Registry,
        replicas: Replicas,
        alias: Alias,
        settings: PromotionSettings,
        canary: Canary | None = None,
        turn: asyncio.Lock | None = None,
        room: Room | None = None,
    ) -> None:
        self._registry = registry
        self._alias = alias
        self._settings = settings
        self._canary = canary or Canary(CanarySettings(), registry.home)
        self._turn = turn or asyncio.Lock()
        self.seat = None if room is None else room.seat(registry, alias, self._canary, self._turn)
        self.loader = Loader(registry, replicas, settings.probe, self.seat)
        if self.seat is not None:
            self.seat.take(self.loader)
        self._reconciler = Reconciler(registry, replicas, self.loader, alias, self._canary, self.seat)
        self._log_was_read = False

    async def promote(self, adapter: str, actor: str, reason: str, *, at_once: bool = False) -> Change:
        """Let the approved `adapter` serve. Returns when the old one is drained and unloaded.

        Where the settings ask for a canary this begins one, unless `at_once`. So does a second request for what is in a
        canary not end it. While promotion is on hold nothing is promoted but `at_once`, which is a person's word.

        Raises `PromotionError`, and records it, when it may not serve, cannot be loaded, or is not what was trained.
        """
        async with self._turn:
            if not at_once:
                check_no_canary_runs(self._registry, adapter, actor)
            asked = self._canary.settings.share > 0 and not at_once
            checked = partial(self._registry.check_may_serve, automatic=not at_once)
            if asked and self._registry.state(adapter) is State.APPROVED:
                return await self._begin_canary(adapter, actor, reason, checked)
            promote = partial(self._registry.promote, automatic=not at_once)
            return await self._change(adapter, actor, reason, checked, promote)

    async def approve(self, adapter: str, actor: str, reason: str) -> Change:
        """Let `adapter`, which waits for a person, serve, because the person `actor` says so; else as `promote`.

        A candidate that is held stays so where it cannot be loaded or attested.
        """
        async with self._turn:
            self.lapse()
            check_no_canary_runs(self._registry, adapter, actor)
            checked = self._registry.check_may_be_approved
            if self._canary.settings.share > 0:
                return await self._begin_canary(adapter, actor, reason, checked, self._registry.accept)
            return await self._change(adapter, actor, reason, checked, self._registry.approve)

    async def roll_back(self, to: str | None, actor: str, reason: str) -> Change:
        """Let `to`, or else what served before, serve again. What served until now must win a gate to come back.

        During a canary what is taken back is its candidate, and the champion answers all; with a `to` that is not the
        champion both are. Where the settings say so, promotion is on hold afterwards.

        Raises `PromotionError` as `promote` does. The base model is always there: rolling back to it loads nothing.
        """
        async with self._turn:
            running = running_canary(self._registry)
            hold = self._settings.hold_after_rollback
            if running is not None and to in (None, running.start.champion):
                if hold:
                    why = f"the canary of {running.adapter[:12]} was rolled back: {reason}"
                    holds.begin(self._registry.audit, running.start.champion, actor, why)
                return await self._end_canary(CanaryEnd.ROLLED_BACK, actor, reason)
            refs = self._registry.refs()
            to = to or refs.previous
            if to == refs.champion:
                # Nobody tried to change what serves, so that nothing failed either.
                raise PromotionError(f"there is nothing to roll back: {to[:12]} already serves")
            roll_back = self._alias.timed(partial(self._registry.roll_back, hold=hold))
            return await self._change(to, actor, reason, self._registry.check_may_serve, roll_back)

    async def restore(self, adapter: str, actor: str, reason: str) -> Change:
        """Let `adapter`, which was rolled back, serve again, because the person `actor` says so.

        A rollback undoes it. One that serves already stays as it is. Raises `PromotionError` as `promote` does.
        """
        async with self._turn:
            served = self._alias.served
            if adapter == self._registry.refs().champion and self._alias.adapter == adapter and served is not None:
                return Change(from_adapter=adapter, to_adapter=adapter, from_name=served, to_name=served, seconds=0.0)
            checked = self._registry.check_may_be_restored
            return await self._change(adapter, actor, reason, checked, self._registry.restore)

    def held(self) -> tuple[HeldAdapter, ...]:
        """The candidates that wait for a person."""
        return self._registry.held(self._settings.approval_age_s)

    def lapse(self) -> list[AuditEntry]:
        """End those candidates that have waited for a person for too long."""
        lapsed = self._registry.lapse(self._settings.approval_age_s, ACTOR)
        for entry in lapsed:
            log.warning("a held candidate lapsed", adapter=entry.subject, reason=entry.reason)
        return lapsed

    async def warm(self) -> None:
        """Have the champion loaded, which may be cold. Raises as `reconcile` does, also where there is no room."""
        async with self._turn:
            await self._reconciler.have_champion(asked_for=True)

    async def reconcile(self, *, looked: bool = False) -> None:
        """Make the alias stand for the champion, and the inference servers have it; does nothing where that is so.

        The servers are not looked at where they were `looked` at just now.
        Raises `PolicyError` when no server can be used, `PromotionError` when the champion cannot serve at any.
        """
        async with self._turn:
            if not looked:
                await self._reconciler.look()
            await self._reconciler.have_champion()
            await self._reconcile_canary()

    async def end_canary(self, end: CanaryEnd, adapter: str, reason: str) -> None:
        """End the canary of `adapter` as it was judged; does nothing if it has ended. Raises `PromotionError`.

        While promotion is on hold no candidate is promoted, unless a person approved it during the hold.
        """
        async with self._turn:
            running = running_canary(self._registry)
            if running is None or running.adapter != adapter:
                return
            if end is CanaryEnd.PROMOTED:
                hold = holds.standing(self._registry.audit.read())
                if hold is not None and hold.sequence > running.sequence:
                    log.warning("a canary goes on, promotion is on hold", adapter=adapter, found=reason)
                    return
                checked, promote = self._registry.check_may_serve, self._registry.promote
                await self._change(adapter, ACTOR, reason, checked, promote)
            else:
                await self._end_canary(end, ACTOR, reason)

    async def _reconcile_canary(self) -> None:
        """Have the candidate loaded, or the canary ended, as the audit log says; also one of an earlier process."""
        if self._canary.running is None and self._log_was_read:
            return
        running = running_canary(self._registry)
        if running is None:
            complete_report(self._registry, ACTOR)
            await self._retire(self._canary.end())
        elif running.start.champion != self._registry.refs().champion:
            await self._end_canary(CanaryEnd.CANCELLED, ACTOR, "the champion that it was compared with serves no more")
        elif not self._canary.settings.share:
            await self._end_canary(CanaryEnd.CANCELLED, ACTOR, "canaries were switched off")
        else:
            self._canary.resume(running)
            given_up = await self._reconciler.have_candidate(running)
            if given_up is not None:
                await self._end_canary(CanaryEnd.ROLLED_BACK, ACTOR, given_up)
        self._log_was_read = True

    async def _begin_canary(
        self,
        adapter: str,
        actor: str,
        reason: str,
        checked: Callable[[str], None],
        accept: Callable[[str, str, str], None] | None = None,
    ) -> Change:
        """Load and attest `adapter`, and let it answer its share of the episodes that begin from now on.

        `accept` records that a person approved it.
        """
        began = time.monotonic()
        champion, share = self._registry.refs().champion, self._canary.settings.share
        try:
            checked(adapter)
            served = await self.loader.bring_up(adapter)
            try:
                checked(adapter)
                if accept is not None:
                    accept(adapter, actor, reason)
                start = CanaryStart(champion=champion, share=share, salt=secrets.token_hex(16))
                self._canary.prepare(start)
                self._canary.resume(start_canary(self._registry, adapter, start, actor, reason))
            except (RatchetError, OSError):
                await self.loader.take_down(served)
                raise
        except (RatchetError, OSError) as error:
            self._registry.record_failure(adapter, actor, str(error))
            raise PromotionError(f"the canary of {adapter[:12]} did not begin: {error}") from error
        self._reconciler.failed_loads = 0
        self._canary.answer(served)
        log.info("canary", adapter=adapter, served=served, share=share)
        return Change(
            from_adapter=champion,
            to_adapter=adapter,
            from_name=self._alias.served or "",
            to_name=served,
            seconds=time.monotonic() - began,
            share=share,
        )

    async def _end_canary(self, end: CanaryEnd, actor: str, reason: str) -> Change:
        """Record the end, let the champion answer all, also in the middle of episodes, and unload the candidate.

        Raises `PromotionError` when it cannot be recorded: the canary goes on then.
        """
        began = time.monotonic()
        running = running_canary(self._registry)
        if running is None:
            raise PromotionError("no canary runs, so none can end")
        try:
            self._canary.resume(running)
            report = self._canary.report(end, reason)
            assert report is not None
            end_canary(self._registry, report, actor)
        except OSError as error:
            what = f"the end of the canary of {running.adapter[:12]}"
            raise PromotionError(f"{what} was not recorded: {error}") from error
        served = self._canary.end()
        seconds = time.monotonic() - began
        log.info("canary ended", adapter=running.adapter, end=end.value, reason=reason)
        await self._retire(served)
        return Change(
            from_adapter=running.adapter,
            to_adapter=running.start.champion,
            from_name=served or "",
            to_name=self._alias.served or "",
            seconds=seconds,
            share=running.start.share,
        )

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
        canary = running_canary(self._registry)
        answering = self._canary.served if canary is not None and canary.adapter == adapter else None
        try:
            checked(adapter)
            served = answering or await self.loader.bring_up(adapter)
            try:
                exchange(adapter, actor, reason)
            except (RatchetError, OSError):
                if answering is None:
                    await self.loader.take_down(served)
                raise
        except (RatchetError, OSError) as error:
            self._registry.record_failure(adapter, actor, str(error))
            what = f"{adapter[:12]} was not put into service, {old_served or old_adapter[:12]} still serves"
            raise PromotionError(f"{what}: {error}") from error
        self._alias.point_to(adapter, served)
        seconds = time.monotonic() - began
        log.info("serving", adapter=adapter, served=served, instead_of=old_served, seconds=round(seconds, 3))
        if canary is not None:
            await self._end_with_change(adapter, canary, actor, reason)
        await self._retire(old_served)
        return Change(
            from_adapter=old_adapter,
            to_adapter=adapter,
            from_name=old_served or "",
            to_name=served,
            seconds=seconds,
        )

    async def _end_with_change(self, adapter: str, canary: RunningCanary, actor: str, reason: str) -> None:
        """The champion has changed, to the candidate of the canary that ran or to another adapter: the canary is over.

        One whose end cannot be recorded now is ended by `reconcile`.
        """
        try:
            if canary.adapter != adapter:
                await self._end_canary(CanaryEnd.CANCELLED, actor, f"the champion has changed: {reason}")
                return
            report = self._canary.report(CanaryEnd.PROMOTED, reason)
            self._canary.end()
            if report is not None:
                end_canary(self._registry, report, actor)
        except (RatchetError, OSError) as error:
            log.warning("the end of a canary was not recorded", adapter=canary.adapter, error=str(error))

    async def _retire(self, served: str | None) -> None:
        """Unload what gets no new requests, once it has answered those that it has."""
        if served is None or served == self._alias.served:
            return
        if not await self._alias.drained(served, self._settings.drain_timeout_s):
            log.warning("requests were cut off", served=served, count=self._alias.in_flight(served))
        await self.loader.take_down(served)
