"""Changes of what serves take turns. A drill gets a turn too, and gives it back as soon as a change wants one."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from streams.errors import PromotionError

T = TypeVar("T")


class Turn(asyncio.Lock):
    """A lock that `lend` gives away for work that must not hold up what `acquire` is for."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted: asyncio.Event | None = None

    @property
    def lent(self) -> bool:
        return self._wanted is not None

    async def acquire(self) -> Literal[True]:
        if self._wanted is not None:
            self._wanted.set()
        return await super().acquire()

    async def lend(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out `work`, which is cancelled when somebody else wants the turn. It must clean up behind itself.

        Raises `PromotionError` when the turn is taken, and when it was wanted before `work` was done.
        """
        if self.locked():
            work.close()
            raise PromotionError("what serves is changing at this moment: ask again when that is done")
        await super().acquire()
        self._wanted = asyncio.Event()
        doing, wanted = asyncio.ensure_future(work), asyncio.ensure_future(self._wanted.wait())
        try:
            await asyncio.wait({doing, wanted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Before the work has cleaned up: nobody waits for that.
            self._wanted = None
            self.release()
            given_up = not doing.done()
            doing.cancel()
            wanted.cancel()
        if given_up:
            await asyncio.gather(doing, return_exceptions=True)
            raise PromotionError("it was broken off, because what serves was to change: ask again when that is done")
        return doing.result()
