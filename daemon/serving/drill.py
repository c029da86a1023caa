"""Drills of the rollback: all that it does but the change of who serves, timed. On a schedule, or for an operator.

The adapter that a rollback would bring back is checked, loaded under a name of its own, attested and asked for a reply.
No request of an agent ever goes to that name. Neither store nor broker nor learner is needed.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from daemon.registry.audit import Action, AuditEntry, AuditEvent
from daemon.registry.canaries import running_canary
from daemon.registry.hints import command
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, Drill
from daemon.serving.alias import Alias
from daemon.serving.loading import Loader
from daemon.serving.replicas import Replicas
from daemon.serving.room import ACTOR, Seat
from daemon.serving.settings import DrillSettings
from daemon.serving.turn import Turn
from evaluation.settings import ProbeSettings
from ratchet_client.errors import RatchetError
from ratchet_client.messages import Message
from streams.errors import PolicyError, PromotionError
from streams.policy.client import Sampling

log = structlog.get_logger()

_PROBE = (Message(role="user", content="Are you there?"),)
_LOOK_EVERY_S = 60.0


def last_drill(entries: Sequence[AuditEntry]) -> Drill | None:
    """The result of the last drill; None where none was ever held."""
    return next((entry.drill for entry in reversed(entries) if entry.drill is not None), None)


class RollbackDrill:
    """Holds drills. The control API and the serve role's schedule call it."""

    def __init__(
        self,
        registry: Registry,
        replicas: Replicas,
        alias: Alias,
        turn: Turn,
        settings: DrillSettings,
        probe: ProbeSettings,
        seat: Seat | None = None,
    ) -> None:
        self._registry = registry
        self._replicas = replicas
        self._probe = probe
        self._alias = alias
        self._turn = turn
        self._settings = settings
        self._seat = seat

    async def hold(self, actor: str, reason: str) -> Drill:
        """Hold a drill and record it. One that fails is a result too.

        Raises `PromotionError`, and records nothing, where a canary runs, or a change of what serves does or begins.
        """
        if running_canary(self._registry) is not None:
            raise PromotionError("a canary runs, and a rollback would end it and load nothing: ask again after it")
        return await self._turn.lend(self._hold(actor, reason))

    async def keep_holding(self) -> None:
        """Hold a drill whenever one is due, until cancelled; never where the settings say so."""
        while self._settings.every_s:
            try:
                if self._is_due():
                    await self.hold(ACTOR, "it was due")
            except (RatchetError, OSError) as error:
                log.info("no drill was held", error=str(error))
            await asyncio.sleep(min(_LOOK_EVERY_S, self._settings.every_s))
        await asyncio.Event().wait()

    def _is_due(self) -> bool:
        """From the last drill on, or else from the beginning of the audit log, the interval is over."""
        entries = self._registry.audit.read()
        since = next((entry.at for entry in reversed(entries) if entry.action is Action.DRILLED), None)
        if since is None and entries:
            since = entries[0].at
        # With nothing in the log no adapter ever served.
        return since is not None and datetime.now(UTC) - since >= timedelta(seconds=self._settings.every_s)

    async def _hold(self, actor: str, reason: str) -> Drill:
        began, started = datetime.now(UTC), time.monotonic()
        entries = self._registry.audit.read()
        before = last_drill(entries)
        flip_s = self._alias.flip_s if self._alias.flip_s is not None else before and before.flip_s
        adapter = self._registry.refs().previous
        seconds, failed = None, ""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                seconds = await self._first_reply(adapter, started)
        except TimeoutError:
            failed = f"the adapter had not replied after {self._settings.timeout_s:g} s (serving.drill.timeout_s)"
        except (RatchetError, OSError) as error:
            failed = str(error)
        drill = Drill(adapter=adapter, began=began, seconds=seconds, flip_s=flip_s, failed=failed)
        self._registry.audit.append(
            AuditEvent(actor=actor, action=Action.DRILLED, subject=adapter, reason=reason, drill=drill)
        )
        if failed:
            remedy = f"{command('rollback', self._registry.group, '--to')} another"
            log.error("a rollback would fail", adapter=adapter, error=failed, remedy=remedy)
        else:
            log.info("a rollback would work", adapter=adapter, seconds=seconds, flip_s=flip_s)
        return drill

    async def _first_reply(self, adapter: str, started: float) -> float:
        """Seconds from `started` to the first reply of `adapter`, which is loaded for that and unloaded again.

        One inference server is tried, the first that answers, and whether it takes requests does not depend on that.
        """
        if adapter != self._registry.refs().champion:
            self._registry.check_may_serve(adapter)
        usable = self._replicas.usable()
        if not usable:
            raise PolicyError(f"no inference server can be used: {self._replicas.away_reason()}")
        policy = usable[0].policy
        tried = Replicas([policy])
        tried.first.away, tried.first.models = "", usable[0].models
        loader = Loader(self._registry, tried, self._probe, self._seat)
        served = await loader.bring_up(adapter)
        if self._seat is not None:
            self._seat.room.coming.add(served)
        try:
            (reply,) = await policy.chat(served, _PROBE, Sampling(max_tokens=1))
            if reply.model != served and adapter != BASE:
                raise PromotionError(f"the inference server answered for {served} with {reply.model}")
            return time.monotonic() - started
        finally:
            await loader.take_down(served)
            if self._seat is not None:
                self._seat.room.coming.discard(served)
