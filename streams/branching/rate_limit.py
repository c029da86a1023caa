"""How many branches may be run: so many a minute, over all episodes of a worker."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic


class Budget:
    """A bucket that fills at `per_minute` and holds one minute's worth; with None it is never empty.

    Whoever takes more than there is waits until it is made up for, so that the rate holds whatever single takings are.
    """

    def __init__(
        self,
        per_minute: int | None,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._sleep = sleep
        self._left = float(per_minute or 0)
        self._filled_at = clock()

    async def take(self, branches: int) -> None:
        """Take `branches` out; returns when they may be run."""
        if self._per_minute is None:
            return
        now = self._clock()
        filled = self._left + (now - self._filled_at) * self._per_minute / 60
        self._left = min(float(self._per_minute), filled) - branches
        self._filled_at = now
        if self._left < 0:
            await self._sleep(-self._left * 60 / self._per_minute)
