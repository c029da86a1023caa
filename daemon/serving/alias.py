"""The one model name that agents use, and the adapter behind it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from daemon.registry.refs import Refs
from daemon.registry.schemas import BASE

Exchange = Callable[[str, str, str], Refs]


class Alias:
    """The name agents use, what stands behind it, and the requests in flight. Belongs to one event loop.

    `served` is the name at the inference server; None until the champion was brought up, and while it `is_cold`:
    unloaded to make room for others, until a call asks for it. `flip_s` is how long the last rollback took from the
    beginning of its exchange in the registry; None before there was one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.adapter = BASE
        self.served: str | None = None
        self.is_cold = False
        self.flip_s: float | None = None
        self._exchanging: float | None = None
        self._in_flight: Counter[str] = Counter()
        self._draining: dict[str, asyncio.Event] = {}

    def point_to(self, adapter: str, served: str) -> None:
        """From now on requests go to `served`. Those in flight end where they began."""
        self.adapter, self.served, self.is_cold = adapter, served, False
        if self._exchanging is not None:
            self.flip_s, self._exchanging = time.monotonic() - self._exchanging, None

    def put_away(self, adapter: str) -> str | None:
        """From now on `adapter`, the champion, is cold; the name that it was served under."""
        served, self.served = self.served, None
        self.adapter, self.is_cold = adapter, True
        return served

    def timed(self, exchange: Exchange) -> Exchange:
        """`exchange`, of who serves in the registry: from its beginning to `point_to` is the time of the flip."""

        def exchanged(adapter: str, actor: str, reason: str) -> Refs:
            began = time.monotonic()
            refs = exchange(adapter, actor, reason)
            self._exchanging = began
            return refs

        return exchanged

    def begin(self, served: str) -> None:
        self._in_flight[served] += 1

    def end(self, served: str) -> None:
        self._in_flight[served] -= 1
        if not self._in_flight[served] and served in self._draining:
            self._draining.pop(served).set()

    def in_flight(self, served: str) -> int:
        return self._in_flight[served]

    @property
    def is_answering(self) -> bool:
        """Whether any request is in flight."""
        return any(self._in_flight.values())

    def all_in_flight(self) -> dict[str, int]:
        """The requests in flight by the name that they are answered under: what serves, and what has any."""
        current = {} if self.served is None else {self.served: 0}
        return current | {served: count for served, count in list(self._in_flight.items()) if count}

    async def drained(self, served: str, timeout_s: float) -> bool:
        """Wait until no request is in flight to `served`, which must get no new ones; False when the time ran out."""
        if not self._in_flight[served]:
            return True
        empty = self._draining.setdefault(served, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await empty.wait()
        except TimeoutError:
            return False
        return True
