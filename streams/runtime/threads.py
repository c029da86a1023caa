"""Blocking work in a thread that nothing waits for in the end."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises, from a thread of its own.

    Where the caller is cancelled, the work goes on unheeded, and neither the end of the event loop nor that of the
    process waits for it, as they do with `asyncio.to_thread`. So it is for what only reads and may take long.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(take: Callable[[Any], None], value: object) -> None:
        if not answer.cancelled():
            take(value)

    def run() -> None:
        take: Callable[[Any], None] = answer.set_result
        value: object
        try:
            value = work()
        except Exception as error:  # noqa: BLE001 - it is the caller's to handle
            take, value = answer.set_exception, error
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(settle, take, value)

    Thread(target=run, name="in_daemon_thread", daemon=True).start()
    return await answer
