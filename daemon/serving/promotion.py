"""Puts adapters into service and takes them back: load, attest, flip the alias, drain, unload.

The control API calls it on request, and the serve role at its start and whenever the inference server has lost what
serves. Until the alias is flipped nothing that serves is touched.
"""

import asyncio
import secrets
import time

import structlog
from pydantic import Field

from daemon.registry.canaries import (
    RunningCanary,
    end_canary,
    running_canary,
    start_canary,
    unrecorded_promotion,
)
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, CanaryEnd, CanaryReport, CanaryStart, Change
from daemon.serving.alias import Alias
from daemon.serving.canary import Canary, Phase
from evaluation.attestation import Probes, attest
from evaluation.canary import CanarySettings
from evaluation.settings import ProbeSettings
from streams.errors import PolicyError, PromotionError, RatchetError
from streams.policy.client import PolicyClient
from streams.settings import FrozenModel

log = structlog.get_logger()

# Who gives the names that serve; the learner names its candidates itself.
ACTOR = "serve"
# A candidate that could not be loaded again so often is given up.
_MOST_LOADS = 3


class PromotionSettings(FrozenModel):
    """Settings of promotion."""

    drain_timeout_s: float = Field(
        default=60.0, gt=0, description="Longest wait for requests in flight before the old adapter is unloaded."
    )
    probe: ProbeSettings = ProbeSettings()


class Promoter:
    """Changes what serves, one change at a time. Nothing else flips the alias, or begins and ends canaries.

    Without a `canary` whatever is promoted serves at once.
    """

    def __init__(
        self,
        registry: Registry,
        policy: PolicyClient,
        alias: Alias,
        settings: PromotionSettings,
        canary: Canary | None = None,
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._alias = alias
        self._settings = settings
        self._canary = canary or Canary(CanarySettings(), registry.home)
        self._failed_loads = 0
        self._log_was_read = False
        self._turn = asyncio.Lock()

    async def promote(self, adapter: str, actor: str, reason: str, *, at_once: bool = False) -> Change:
        """Let the approved `adapter` serve. Returns when the old one is drained and unloaded.

        Where the settings ask for a canary this begins one, unless `at_once`. So does a second request for what is in a
        canary not end it.

        Raises `PromotionError`, and records it, when it may not serve, cannot be loaded, or is not what was trained.
        """
        async with self._turn:
            running = running_canary(self._registry)
            if not at_once and running is not None:
                message = f"the canary of {running.adapter[:12]} runs: wait for its end, or promote with at_once"
                self._registry.record_failure(adapter, actor, message)
                raise PromotionError(message)
            asked = self._canary.settings.share > 0 and not at_once
            if asked and self._registry.state(adapter) is State.APPROVED:
                return await self._begin_canary(adapter, actor, reason)
            return await self._change(adapter, actor, reason, roll_back=False)

    async def roll_back(self, to: str | None, actor: str, reason: str) -> Change:
        """Let `to`, or else what served before, serve again. What served until now must win a gate to come back.

        During a canary what is taken back is its candidate, and the champion answers all; with a `to` that is not the
        champion both are.

        Raises `PromotionError` as `promote` does. The base model is always there: rolling back to it loads nothing.
        """
        async with self._turn:
            running = running_canary(self._registry)
            if running is not None and to in (None, running.start.champion):
                return await self._end_canary(CanaryEnd.ROLLED_BACK, actor, reason)
            return await self._change(to or self._registry.refs().previous, actor, reason, roll_back=True)

    async def reconcile(self) -> None:
        """Make the alias stand for the champion, and the inference server have it; does nothing where that is so.

        Raises `PolicyError` when the server cannot be reached, `PromotionError` when the champion cannot serve there.
        """
        async with self._turn:
            loaded = {model.name for model in await self._policy.models()}
            await self._reconcile_champion(loaded)
            await self._reconcile_canary(loaded)

    async def end_canary(self, end: CanaryEnd, adapter: str, reason: str) -> None:
        """End the canary of `adapter` as it was judged; does nothing if it has ended. Raises `PromotionError`."""
        async with self._turn:
            running = running_canary(self._registry)
            if running is None or running.adapter != adapter:
                return
            if end is CanaryEnd.PROMOTED:
                await self._change(adapter, ACTOR, reason, roll_back=False)
            else:
                await self._end_canary(end, ACTOR, reason)

    async def _reconcile_champion(self, loaded: set[str]) -> None:
        champion = self._registry.refs().champion
        if self._alias.served in loaded and self._alias.adapter == champion:
            return
        self._registry.reconcile(ACTOR)
        stale = loaded & self._registry.names_given_by(ACTOR) - {self._canary.served}
        served = await self._bring_up(champion)
        self._alias.point_to(champion, served)
        log.info("serving", adapter=champion, served=served)
        for name in sorted(stale):
            await self._take_down(name)

    async def _reconcile_canary(self, loaded: set[str]) -> None:
        """Have the candidate loaded, or the canary ended, as the audit log says; also one of an earlier process."""
        if self._canary.running is None and self._log_was_read:
            return
        running = running_canary(self._registry)
        if running is None:
            self._complete_report()
            await self._retire(self._canary.end())
        elif running.start.champion != self._registry.refs().champion:
            await self._end_canary(CanaryEnd.CANCELLED, ACTOR, "the champion that it was compared with serves no more")
        elif not self._canary.settings.share:
            await self._end_canary(CanaryEnd.CANCELLED, ACTOR, "canaries were switched off")
        else:
            self._canary.resume(running)
            if self._canary.served not in loaded:
                await self._load_candidate(running.adapter, loaded)
        self._log_was_read = True

    async def _load_candidate(self, adapter: str, loaded: set[str]) -> None:
        if self._canary.phase is Phase.ANSWERING:
            self._canary.lose()
        try:
            served = await self._bring_up(adapter)
        except (RatchetError, OSError) as error:
            self._failed_loads += 1
            if self._failed_loads < _MOST_LOADS:
                raise
            await self._end_canary(CanaryEnd.ROLLED_BACK, ACTOR, f"the candidate could not be loaded again: {error}")
            return
        self._failed_loads = 0
        self._canary.answer(served)
        log.info("canary", adapter=adapter, served=served)
        for name in sorted(loaded & self._registry.names_given_by(ACTOR) - {served, self._alias.served}):
            await self._take_down(name)

    def _complete_report(self) -> None:
        """Report a canary whose candidate was promoted right before a crash."""
        unrecorded = unrecorded_promotion(self._registry)
        if unrecorded is None:
            return
        report = CanaryReport(
            adapter=unrecorded.adapter,
            champion=unrecorded.start.champion,
            share=unrecorded.start.share,
            began=unrecorded.began,
            ended=CanaryEnd.PROMOTED,
            reason="a crash came right after the promotion, so its figures are lost",
        )
        end_canary(self._registry, report, ACTOR)

    async def _begin_canary(self, adapter: str, actor: str, reason: str) -> Change:
        """Load and attest `adapter`, and let it answer its share of the episodes that begin from now on."""
        began = time.monotonic()
        champion, share = self._registry.refs().champion, self._canary.settings.share
        try:
            served = await self._bring_up(adapter)
            try:
                start = CanaryStart(champion=champion, share=share, salt=secrets.token_hex(16))
                self._canary.prepare(start)
                self._canary.resume(start_canary(self._registry, adapter, start, actor, reason))
            except (RatchetError, OSError):
                await self._take_down(served)
                raise
        except (RatchetError, OSError) as error:
            self._registry.record_failure(adapter, actor, str(error))
            raise PromotionError(f"the canary of {adapter[:12]} did not begin: {error}") from error
        self._failed_loads = 0
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
            raise PromotionError(
                f"the end of the canary of {running.adapter[:12]} was not recorded: {error}"
            ) from error
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

    async def _change(self, adapter: str, actor: str, reason: str, *, roll_back: bool) -> Change:
        began = time.monotonic()
        old_adapter, old_served = self._registry.refs().champion, self._alias.served
        canary = running_canary(self._registry)
        answering = self._canary.served if canary is not None and canary.adapter == adapter else None
        try:
            self._registry.check_may_serve(adapter)
            served = answering or await self._bring_up(adapter)
            try:
                exchange = self._registry.roll_back if roll_back else self._registry.promote
                exchange(adapter, actor, reason)
            except (RatchetError, OSError):
                if answering is None:
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
        await self._take_down(served)

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
