"""Makes the inference servers hold what is to serve: looks at them, brings up what they lack, attests it again.

The promoter calls it, one change at a time. Servers start later than this process, forget their adapters when they
restart, and go; each is brought up again without touching the others.
"""

import asyncio

import structlog

from daemon.registry.canaries import RunningCanary
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.serving.alias import Alias
from daemon.serving.backoff import Backoff
from daemon.serving.canary import Canary, CanaryPhase
from daemon.serving.loading import Loader
from daemon.serving.looking import look
from daemon.serving.replicas import Replica, Replicas
from daemon.serving.room import ACTOR, Seat
from ratchet_client.errors import RatchetError
from streams.errors import NoRoomError, PolicyError, PromotionError

log = structlog.get_logger()

# A candidate that could not be loaded again so often is given up.
_MOST_LOADS = 3


class Reconciler:
    """Has the servers hold the champion and a canary's candidate. Belongs to the promoter, whose turn it works in.

    With a `seat` a champion for which there is no room stays cold until it is asked for.
    """

    def __init__(
        self,
        registry: Registry,
        replicas: Replicas,
        loader: Loader,
        alias: Alias,
        canary: Canary,
        seat: Seat | None = None,
    ) -> None:
        self._registry = registry
        self._replicas = replicas
        self._loader = loader
        self._alias = alias
        self._canary = canary
        self._seat = seat
        self._returns = 0
        self._backoff = Backoff(first_s=2.0)
        self._tried: str | None = None
        self._failure = ""
        self.failed_loads = 0

    async def look(self) -> None:
        """Ask every server what it has. One that comes back begins again, without pauses for what failed before."""
        for replica, is_back in zip(
            self._replicas.all, await asyncio.gather(*map(look, self._replicas.all)), strict=True
        ):
            if is_back:
                replica.failure = ""
                replica.backoff.reset()
                replica.returns += 1

    async def have_champion(self, *, asked_for: bool = False) -> None:
        """Make the alias stand for the champion, and the servers have it; one that is cold only where it is asked for.

        Raises `PolicyError` where no server can be used, and `RatchetError` while the champion cannot serve at any:
        each attempt leaves an entry in the audit log, so they grow rarer.
        """
        champion = self._registry.refs().champion
        usable = self._replicas.usable()
        if not usable:
            raise PolicyError(f"no inference server can be used: {self._replicas.away_reason()}")
        self._forgive()
        if not asked_for and await self._stays_cold(champion):
            return
        served = self._alias.served
        if served is not None and self._alias.adapter == champion and any(each.takes(served) for each in usable):
            await self._have_everywhere(champion, served)
            return
        if champion == self._tried and not self._backoff.due:
            raise PromotionError(self._failure)
        self._registry.reconcile(ACTOR)
        try:
            served = await self._loader.bring_up(champion)
        except NoRoomError:
            raise  # it says nothing of the champion
        except (RatchetError, OSError) as error:
            self._backoff.failed()
            self._tried, self._failure = champion, str(error)
            raise
        self._backoff.reset()
        self._tried = None
        if self._seat is not None and asked_for:
            self._seat.loads += 1
        self._alias.point_to(champion, served)
        log.info("serving", adapter=champion, served=served)
        await self._take_down_stale()

    async def _stays_cold(self, champion: str) -> bool:
        """Return whether the champion is cold; so is one that nothing serves, from now on, where there is no room."""
        if self._seat is None or champion == BASE:
            return False
        served, is_it = self._alias.served, self._alias.adapter == champion
        if self._alias.is_cold and is_it:
            return True
        if any(each.takes(served) for each in self._replicas.usable()) and served is not None and is_it:
            return False
        await self._seat.room.tidy(self._seat)
        if self._seat.room.is_free():
            return False
        self._registry.reconcile(ACTOR)
        self._alias.put_away(champion)
        return True

    def _forgive(self) -> None:
        """Begin again without pauses where a server has come back."""
        returns = sum(each.returns for each in self._replicas.all)
        if returns != self._returns:
            self._returns = returns
            self._backoff.reset()

    async def have_candidate(self, running: RunningCanary) -> str | None:
        """Have the servers hold the candidate of the canary; why it is given up, where it is.

        Raises `RatchetError` or `OSError` when it could not be loaded, and may be tried again.
        """
        served = self._canary.served
        if served is not None and any(each.takes(served) for each in self._replicas.usable()):
            await self._have_everywhere(running.adapter, served)
            return None
        if self._canary.phase is CanaryPhase.ANSWERING:
            self._canary.lose()
        try:
            served = await self._loader.bring_up(running.adapter)
        except (RatchetError, OSError) as error:
            self.failed_loads += 1
            if self.failed_loads < _MOST_LOADS:
                raise
            return f"the candidate could not be loaded again: {error}"
        self.failed_loads = 0
        self._canary.answer(served)
        log.info("canary", adapter=running.adapter, served=served)
        await self._take_down_stale()
        return None

    async def _have_everywhere(self, adapter: str, served: str) -> None:
        """Have the servers that lack `adapter` load it, and attest it again at the others, when it is time to."""
        lacking = [each for each in self._replicas.usable() if not each.takes(served)]
        await asyncio.gather(*(self._loader.attest_again(each, adapter, served) for each in self._holding(served)))
        due = [each for each in lacking if each.backoff.due]
        if due:
            await asyncio.gather(*(self._loader.bring_back(each, adapter, served) for each in due))
            await self._take_down_stale()

    def _holding(self, served: str) -> list[Replica]:
        return [each for each in self._replicas.usable() if each.takes(served) and served != BASE]

    async def _take_down_stale(self) -> None:
        await self._loader.take_down_stale({name for name in (self._alias.served, self._canary.served) if name})
