"""The room for adapters at the inference servers, where groups share it: who has a place, and who gives one up.

Each group has a `Seat`. An adapter is loaded in a `place`; where all are taken, the champion that was asked for least
recently is unloaded, and loaded again when a call asks for it. One that answers, is in a canary or is played at a gate
keeps its place.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import Protocol

import structlog

from daemon.registry.lifecycle import State
from daemon.registry.refs import states_of
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.serving.alias import Alias
from daemon.serving.canary import Canary
from daemon.serving.replicas import Replica, Replicas
from streams.errors import NoRoomError
from streams.trust.groups import FOR_GATES, AdapterSettings

log = structlog.get_logger()

# Who gives the names that serve; the learner names its candidates itself.
ACTOR = "serve"
_LOOK_EVERY_S = 0.05


class Unloads(Protocol):
    """Has adapters unloaded: the part of a group's `Loader` that the room needs."""

    async def take_down(self, served: str) -> None: ...

    async def take_down_stale(self, kept: Collection[str], loading: Collection[str] = ()) -> None: ...


class Seat:
    """The place of one group's champion.

    `loads` and `unloads` count those for calls, and those to make room; `refused` the calls that it was not loaded for.
    """

    def __init__(self, room: "Room", registry: Registry, alias: Alias, canary: Canary, turn: asyncio.Lock) -> None:
        self.room = room
        self.alias = alias
        self.loads = self.unloads = self.refused = 0
        self._registry = registry
        self._canary = canary
        self._turn = turn
        self._loader: Unloads | None = None
        self._asking = 0
        self.used = next(room.clock)

    def take(self, loader: Unloads) -> None:
        """`loader` is what unloads the group's adapters from now on."""
        self._loader = loader

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Note that a call asks for the champion; meanwhile it is not unloaded."""
        self.used = next(self.room.clock)
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1

    @property
    def is_idle(self) -> bool:
        """Whether the champion takes a place, and can give it up at this moment."""
        served = self.alias.served
        return (
            served not in (None, BASE)
            and not self._asking
            and not self.alias.is_answering
            and not self.is_changing
            and self._canary.running is None
            and State.EVALUATING not in states_of(self._registry.audit.read()).values()
        )

    async def give_up(self) -> None:
        """Unload the champion; calls have it loaded again."""
        served = self.alias.put_away(self.alias.adapter)
        self.unloads += 1
        log.info("unloaded to make room", served=served)
        if served is not None and self._loader is not None:
            await self._loader.take_down(served)

    async def tidy(self) -> None:
        """Unload what nothing of the group asks for any more, such as what an earlier process left."""
        if self._loader is not None:
            kept = {name for name in (self.alias.served, self._canary.served) if name}
            await self._loader.take_down_stale(kept, self.room.coming)

    @property
    def is_changing(self) -> bool:
        """Whether what serves the group is being changed, so that nothing of it may be unloaded."""
        return self._turn.locked()

    @property
    def names(self) -> frozenset[str]:
        """Every name that the serve role has ever loaded an adapter of the group under."""
        return self._registry.names_given_by(ACTOR)


class Room:
    """The places at the `replicas`. Belongs to one event loop.

    `coming` are the names that are being loaded, and that of a drill. Adapters of other processes, such as candidates
    at gates, are seen when a server is looked at, so `FOR_GATES` places are left for them in any case.
    """

    def __init__(self, replicas: Replicas, settings: AdapterSettings) -> None:
        self._replicas = replicas
        self._settings = settings
        self._lock = asyncio.Lock()
        self._seats: list[Seat] = []
        self.coming: set[str] = set()
        self.clock = count()

    def seat(self, registry: Registry, alias: Alias, canary: Canary, turn: asyncio.Lock) -> Seat:
        """The seat of one more group."""
        seat = Seat(self, registry, alias, canary, turn)
        self._seats.append(seat)
        return seat

    async def tidy(self, seat: Seat) -> None:
        """Unload what nothing asks for any more, of `seat`, whose turn it is, and of all that do not change."""
        for each in self._seats:
            if each is seat or not each.is_changing:
                await each.tidy()

    def is_free(self) -> bool:
        """Return whether one more adapter may be loaded at every server that answers."""
        return all(self._has_place(replica) for replica in self._replicas.usable())

    @asynccontextmanager
    async def place(self, name: str, seat: Seat, at: Sequence[Replica] | None = None) -> AsyncIterator[None]:
        """Keep a place for `name`, which is loaded meanwhile for the group of `seat`, at the servers `at`.

        Raises `NoRoomError` where none of the champions could give up its place for `wait_s` seconds.
        """
        # One after the other, so that none takes the place that another has made.
        async with self._lock:
            await self._make_room(seat, self._replicas.usable() if at is None else at)
            self.coming.add(name)
        try:
            yield
        finally:
            self.coming.discard(name)

    async def _make_room(self, seat: Seat, at: Sequence[Replica]) -> None:
        deadline = time.monotonic() + self._settings.wait_s
        while not all(self._has_place(replica) for replica in at):
            await self.tidy(seat)
            if all(self._has_place(replica) for replica in at):
                return
            idle = [each for each in self._seats if each is not seat and each.is_idle]
            if idle:
                await min(idle, key=lambda each: each.used).give_up()
            elif time.monotonic() > deadline:
                raise NoRoomError(
                    f"all {self._settings.max_loras} places for adapters are taken by those that answer calls, are in "
                    "a canary or at a gate: try again later, or raise adapters.max_loras"
                )
            else:
                # Other processes, such as the learner, make room too: nothing but a look tells.
                await asyncio.sleep(_LOOK_EVERY_S)

    def _has_place(self, replica: Replica) -> bool:
        given = frozenset[str]().union(*(each.names for each in self._seats))
        ours = {*replica.held.values(), *self.coming, *(replica.models & given)} - {BASE}
        others = replica.models - ours - {BASE}
        return len(ours) + max(len(others), FOR_GATES) < self._settings.max_loras
