"""A sandbox that is killed at any moment of its start is gone with all that it started."""

import asyncio
import os
import random
from pathlib import Path

import psutil
import pytest

from streams.environments.environment import Network
from streams.sandboxes.isolation.resource_monitor import ResourceMonitor
from streams.sandboxes.isolation.settings import Isolation, Limits
from streams.sandboxes.isolation.tree import processes
from streams.sandboxes.process import SandboxProcess
from streams.sandboxes.protocol import Start
from tests.streams.sandboxes.isolated import TIERS, tier_called

STARTS = 25
# As long as a start takes, up to the worker's own imports.
LONGEST_S = 0.03


@pytest.mark.parametrize("isolation", TIERS)
async def test_a_kill_at_any_moment_of_the_start_ends_and_leaves_nothing(isolation: Isolation, tmp_path: Path) -> None:
    tier, draw = tier_called(isolation), random.Random(0)
    start = Start(
        environment="textworld_express",
        settings={},
        working_folder=str(tmp_path),
        step_timeout_s=10,
        observation_bytes=2**20,
    )
    here = {process.pid for process in processes()}
    with ResourceMonitor() as monitor:
        for _ in range(STARTS):
            process = await SandboxProcess.start(start, Network.NONE, tier, Limits(), monitor, asyncio.Semaphore())
            await asyncio.sleep(draw.uniform(0, LONGEST_S))
            async with asyncio.timeout(30):
                await process.kill("the test says so")
    others = here - {1, os.getpid(), *(each.pid for each in psutil.Process().parents())}
    left = [each.pid for each in processes() if each.pid not in here and _is_sandbox(each.pid, others)]
    assert left == []


def _is_sandbox(pid: int, others: set[int]) -> bool:
    """Return whether it is a sandbox, and not below one of `others`, such as the tests that run beside this one."""
    try:
        process = psutil.Process(pid)
        is_one = "streams.sandboxes.worker" in process.cmdline()
        return is_one and not any(parent.pid in others for parent in process.parents())
    except psutil.Error:
        return False
