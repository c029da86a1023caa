"""The inference servers behind the gateway: which of them take requests, and which one takes the next.

`reconciling.py` looks at them and has them hold what is to serve, `upstream.py` asks them.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

import structlog

from daemon.registry.schemas import BASE, ReplicaStatus
from daemon.serving.backoff import Backoff
from streams.policy.client import PolicyClient

log = structlog.get_logger()

# A server that has so many more requests than the least busy one does not get more of them for its prefix cache.
_MOST_AHEAD = 8
_FIRST_PAUSE_S = 2.0


class Replica:
    """One inference server, asked through `policy`. Belongs to one event loop.

    `held` are the names that the gateway knows adapters by, each with the name under which this server has that
    adapter and was seen to serve it as it was trained: another name where it had to load it alone, since a name is
    never used twice. `away` says why the server as such cannot be used, `failure` why it could not be given an adapter
    that the others serve; both are empty otherwise. `returns` counts how often it came back, or was restarted.
    """

    def __init__(self, policy: PolicyClient) -> None:
        self.policy = policy
        self.url = policy.base_url
        self.held: dict[str, str] = {}
        self.models: frozenset[str] = frozenset()
        self.away = "it was not asked yet"
        self.failure = ""
        self.silent = self.returns = 0
        self.attested_at: dict[str, float] = {}
        self.attested = self.refuted = 0
        self.backoff = Backoff(_FIRST_PAUSE_S)
        self._asked: set[asyncio.Timeout] = set()

    @property
    def in_flight(self) -> int:
        return len(self._asked)

    @property
    def reason(self) -> str:
        """Why it takes no requests; empty where it does."""
        return self.away or self.failure

    def takes(self, served: str | None) -> bool:
        """Return whether a request for `served` can go there, or, for None, one that names no model."""
        return not self.away and (served is None or served in self.held)

    def name_there(self, served: str) -> str:
        """Return the server's own name for what the gateway calls `served`."""
        return self.policy.name_there(self.held.get(served, served))

    def be_away(self, reason: str) -> None:
        """Take it out of the rotation until it is looked at again."""
        if reason != self.away:
            log.warning("an inference server takes no requests", url=self.url, reason=reason)
        self.away = reason

    def hold(self, served: str, name: str, attested_at: float) -> None:
        """It has the adapter that the gateway calls `served`, under `name`."""
        self.held[served] = name
        self.attested_at[served] = attested_at
        self.attested += served != BASE

    def drop(self, served: str) -> str | None:
        """Send it no more requests for `served`; its own name for that."""
        self.attested_at.pop(served, None)
        return self.held.pop(served, None)

    @contextmanager
    def asking(self, cut: asyncio.Timeout) -> Iterator[None]:
        """Count a request that it answers meanwhile; `cut` is what ends the waiting for it."""
        self._asked.add(cut)
        try:
            yield
        finally:
            self._asked.discard(cut)

    def cut(self) -> None:
        """End all requests in flight there: it is gone, and would leave them waiting."""
        if self._asked:
            log.warning("requests were cut off, their inference server is gone", url=self.url, count=len(self._asked))
        now = asyncio.get_running_loop().time()
        for waiting in self._asked:
            waiting.reschedule(now)

    def status(self) -> ReplicaStatus:
        return ReplicaStatus(
            url=self.url,
            reason=self.reason,
            models=tuple(sorted(self.models)),
            in_flight=self.in_flight,
            attested=self.attested,
            refuted=self.refuted,
        )


class Replicas:
    """All inference servers, in the order of the settings; `first` is the one that gates are played on.

    `changed` is set when a request found one to be other than it was seen last.
    """

    def __init__(self, policies: Sequence[PolicyClient]) -> None:
        self.all = tuple(Replica(policy) for policy in policies)
        self.changed = asyncio.Event()

    @property
    def first(self) -> Replica:
        return self.all[0]

    def usable(self) -> tuple[Replica, ...]:
        """Those that answer, whatever they hold."""
        return tuple(replica for replica in self.all if not replica.away)

    def away_reason(self) -> str:
        """Why none is usable."""
        return "; ".join(f"{replica.url}: {replica.away}" for replica in self.all)

    def choose(
        self, served: str | None, key: str | None = None, without: Sequence[Replica] = (), *, pinned: bool = False
    ) -> Replica | None:
        """The server for the next request for `served`; None where no other than those `without` takes it.

        Requests with the same `key` go to the same one while the servers stay the same, because it has the beginning
        of their chats in its cache (rendezvous hashing: a server that goes moves no other's keys), unless it is much
        busier than others. With `pinned` they do so in any case. All others go to the one with the fewest in flight.
        """
        ready = [replica for replica in self.all if replica.takes(served) and replica not in without]
        if not ready:
            return None
        least = min(ready, key=lambda replica: replica.in_flight)
        if key is None or len(ready) == 1:
            return least
        usual = max(ready, key=lambda replica: blake2b(f"{replica.url} {key}".encode()).digest())
        return usual if pinned or usual.in_flight <= least.in_flight + _MOST_AHEAD else least

    def lost(self, replica: Replica, served: str) -> None:
        """A request for `served` found that `replica` has it no more."""
        replica.drop(served)
        self.changed.set()

    def unreachable(self, replica: Replica, reason: str) -> None:
        """A request found nothing at `replica` that takes connections."""
        replica.be_away(reason)
        self.changed.set()
