"""Waiting for what another process or thread does: the one place where tests sleep."""

import inspect
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable
from contextlib import suppress

POLL_S = 0.02

Errors = tuple[type[Exception], ...]


def until(
    holds: Callable[[], object],
    what: str | Callable[[], str] = "the condition holds",
    *,
    within_s: float = 60.0,
    every_s: float = POLL_S,
    errors: Errors = (),
) -> None:
    """Return when `holds` gives something true. One of `errors`, raised by it, means not yet.

    Raises `AssertionError`, with what did not happen, after `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while True:
        with suppress(*errors):
            if holds():
                return
        _check(deadline, what, within_s)
        time.sleep(every_s)


async def eventually(
    holds: Callable[[], object | Awaitable[object]],
    what: str | Callable[[], str] = "the condition holds",
    *,
    within_s: float = 60.0,
    errors: Errors = (),
) -> None:
    """Do the same on an event loop; `holds` may be a coroutine function."""
    deadline = time.monotonic() + within_s
    while True:
        with suppress(*errors):
            found = holds()
            if await found if inspect.isawaitable(found) else found:
                return
        _check(deadline, what, within_s)
        await sleep(POLL_S)


def _check(deadline: float, what: str | Callable[[], str], within_s: float) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"not within {within_s:.0f} s: {what if isinstance(what, str) else what()}")
