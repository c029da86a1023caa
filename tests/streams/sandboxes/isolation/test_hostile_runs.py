"""What is left of five hundred hostile sandboxes, one after the other."""

import os
import resource
import subprocess
import tempfile
from itertools import cycle, islice, product
from pathlib import Path

import pytest

from streams.environments.environment import Network
from streams.sandboxes.isolation.resource_monitor import ResourceMonitor
from streams.sandboxes.isolation.settings import Limits
from streams.sandboxes.isolation.tree import descendants, processes
from tests.streams.sandboxes.isolated import ESCAPES, HERE, TIERS, outside, started, tier_called

PATIENCE_S = 0.5
LIMITS = Limits(memory_mib=100, processes=30, disk_mib=20, cpu_s=2)
GREED = sorted((HERE / "greed").glob("*.py"))


def children() -> set[int]:
    return {process.pid for process in descendants(os.getpid(), processes())}


def memory_of_this_process() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.nightly
@pytest.mark.parametrize(
    "count",
    [pytest.param(100, marks=pytest.mark.slow), pytest.param(500, marks=[pytest.mark.slow, pytest.mark.nightly])],
)
def test_hostile_sandboxes_leave_no_process_no_file_and_no_memory_behind(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = tmp_path / "homes"
    homes.mkdir()
    homes.chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(homes))
    tiers = [tier_called(name) for name in TIERS]
    programs = islice(cycle(product(tiers, (*ESCAPES, *GREED))), count)
    already_here = children()
    memory, files = [], []
    with outside(tmp_path) as world, ResourceMonitor() as monitor:
        for tier, program in programs:
            told = world.as_argument()
            with started(tier, monitor, program, told, network=Network.LOOPBACK, limits=LIMITS) as sandbox:
                try:
                    said = sandbox.finish(PATIENCE_S)
                except subprocess.TimeoutExpired:
                    said = ""
            assert "ESCAPED" not in said, program
            memory.append(memory_of_this_process())
            files.append(len(os.listdir("/proc/self/fd")))
        assert not world.harm()
        world.victim.kill()
        world.victim.wait()
    assert children() <= already_here
    assert not list(homes.iterdir())
    # The whole machine shares this folder; a program of these would leave a number.
    assert not [name for name in os.listdir("/dev/shm") if name.isdecimal()]
    assert files[-1] <= files[count // 5]
    assert memory[-1] - memory[count // 5] < 20 * 2**20
