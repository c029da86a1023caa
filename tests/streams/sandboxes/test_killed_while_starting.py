"""A sandbox that is killed at any moment of its start is gone with all that it started."""

import asyncio
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from streams.environments.environment import Network
from streams.sandboxes.isolation.launching import Confinement, Launch, bare_variables
from streams.sandboxes.isolation.resource_monitor import ResourceMonitor
from streams.sandboxes.isolation.settings import Isolation, Limits
from streams.sandboxes.isolation.tree import processes
from streams.sandboxes.process import SandboxProcess
from streams.sandboxes.protocol import Start
from tests.streams.sandboxes.isolated import TIERS, tier_called

STARTS = 25
# As long as a start takes, up to the worker's own imports.
LONGEST_S = 0.03


TURNS = 20
"""Turns of the event loop that a start takes, and more."""


class Below:
    """Isolates nothing. The first process starts the sandbox below it, as bubblewrap does, and does not see it end."""

    name = "below"

    @contextmanager
    def launch(self, command: Sequence[str], confinement: Confinement) -> Iterator[Launch]:
        yield Launch(("sh", "-c", 'exec 3<&0; "$@" <&3 & wait', "sh", *command), bare_variables(confinement.folder), ())


@pytest.mark.parametrize("isolation", TIERS)
async def test_a_kill_at_any_moment_of_the_start_ends_and_leaves_nothing(isolation: Isolation, tmp_path: Path) -> None:
    tier, draw = tier_called(isolation), random.Random(0)
    here = {process.pid for process in processes()}
    with ResourceMonitor() as monitor:
        for _ in range(STARTS):
            process = await SandboxProcess.start(
                start_in(tmp_path), Network.NONE, tier, Limits(), monitor, asyncio.Semaphore()
            )
            await asyncio.sleep(draw.uniform(0, LONGEST_S))
            async with asyncio.timeout(30):
                await process.kill("the test says so")
    assert left_since(here) == []


async def test_a_start_that_is_cancelled_at_any_moment_ends_and_leaves_nothing(tmp_path: Path) -> None:
    here = {process.pid for process in processes()}
    with ResourceMonitor() as monitor:
        for turns in range(1, TURNS):
            starting = asyncio.create_task(
                SandboxProcess.start(start_in(tmp_path), Network.NONE, Below(), Limits(), monitor, asyncio.Semaphore())
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            time.sleep(LONGEST_S)  # noqa: ASYNC251 - the processes go on, and the event loop does not
            starting.cancel()
            ended, _ = await asyncio.wait({starting}, timeout=30)
            assert ended, f"cancelled after {turns} turns, the start does not end"
            if not starting.cancelled():
                await starting.result().kill("it had started before it was cancelled")
    assert left_since(here) == []


def start_in(folder: Path) -> Start:
    return Start(
        environment="textworld_express",
        settings={},
        working_folder=str(folder),
        step_timeout_s=10,
        observation_bytes=2**20,
    )


def left_since(here: set[int]) -> list[int]:
    """The sandboxes of this test that live; `here` are the processes that lived before it."""
    others = here - {1, os.getpid(), *(each.pid for each in psutil.Process().parents())}
    return [each.pid for each in processes() if each.pid not in here and _is_sandbox(each.pid, others)]


def _is_sandbox(pid: int, others: set[int]) -> bool:
    """Return whether it is a sandbox, and not below one of `others`, such as the tests that run beside this one."""
    try:
        process = psutil.Process(pid)
        is_one = "streams.sandboxes.worker" in process.cmdline()
        return is_one and not any(parent.pid in others for parent in process.parents())
    except psutil.Error:
        return False
