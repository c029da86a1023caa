"""Programs that want more than their share, or more time than they have."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.sandboxes.isolation.landlock import Unconfined
from streams.sandboxes.isolation.launching import Tier
from streams.sandboxes.isolation.resource_monitor import ResourceMonitor
from streams.sandboxes.isolation.settings import Limits
from streams.sandboxes.isolation.tree import Process, descendants, processes
from tests.streams.sandboxes.isolated import HERE, started
from tests.waiting import until

GREED = HERE / "greed"
SMALL = Limits(memory_mib=150, processes=40, disk_mib=50, cpu_s=1)
LARGE = Limits(memory_mib=3000, processes=400, disk_mib=1000, cpu_s=100)

GREEDY = (
    "fork_many",
    "start_many_threads",
    "eat_memory",
    "eat_memory_together",
    "eat_shared_memory",
    "hide_memory",
    "fill_the_disk",
    "fill_the_disk_unseen",
    "compute_in_orphans",
    "compute_in_forgotten_children",
    "make_many_files",
)
# The resource monitor lets it have nothing, whatever the limits.
HIDDEN = "fill_the_disk_deep_down"


def living(those: list[Process]) -> list[Process]:
    now = {(process.pid, process.started) for process in processes()}
    return [process for process in those if (process.pid, process.started) in now]


def until_dead(those: list[Process]) -> None:
    until(lambda: not living(those), lambda: f"these end: {living(those)}", within_s=20)


@pytest.mark.parametrize("program", [*GREEDY, HIDDEN])
def test_no_program_gets_more_than_the_limit(program: str, tier: Tier, monitor: ResourceMonitor) -> None:
    with started(tier, monitor, GREED / f"{program}.py", limits=SMALL) as sandbox:
        assert "ESCAPED" not in sandbox.finish()
        assert not descendants(sandbox.process.pid, processes())


@pytest.mark.parametrize("program", GREEDY)
def test_the_same_program_gets_what_it_wants_where_the_limits_are_high(program: str, monitor: ResourceMonitor) -> None:
    with started(Unconfined(), monitor, GREED / f"{program}.py", limits=LARGE) as sandbox:
        assert sandbox.process.stdout is not None
        assert sandbox.process.stdout.readline() == "ESCAPED\n"
        assert not sandbox.watch.breach


def test_a_disk_that_fills_up_is_looked_at_before_it_is_time_to(tier: Tier, monitor: ResourceMonitor) -> None:
    with started(tier, monitor, GREED / "fill_the_disk_after_a_while.py", limits=SMALL) as sandbox:
        if sandbox.watch.files is None:
            pytest.skip("a file system in memory is looked at all the time")
        until(lambda: sandbox.watch._look_again > 0, "it was looked at")
        sandbox.watch._look_again = math.inf
        assert "ESCAPED" not in sandbox.finish()
        assert "MiB of files" in sandbox.watch.breach


def test_a_fork_bomb_ends_with_its_sandbox(tier: Tier, monitor: ResourceMonitor) -> None:
    with started(tier, monitor, GREED / "fork_without_end.py", limits=SMALL) as sandbox:
        until(lambda: len(descendants(sandbox.process.pid, processes())) > SMALL.processes // 2, "it forks")
        sandbox.watch.kill()
        sandbox.finish()
        assert not descendants(sandbox.process.pid, processes())


def test_processor_time_is_an_allowance_for_each_request(tier: Tier, monitor: ResourceMonitor) -> None:
    with started(tier, monitor, GREED / "loop_without_end.py", limits=SMALL) as sandbox:
        spent: dict[int, float] = {}

        def has_spent_more_than_one_request_may() -> bool:
            """Processor time of all that is there, of which each look grants a new request."""
            spent.update((process.pid, process.cpu_s) for process in descendants(sandbox.process.pid, processes()))
            sandbox.watch.renew()
            return sum(spent.values()) > 1.5 * SMALL.cpu_s

        until(has_spent_more_than_one_request_may)
        assert not sandbox.watch.breach
        sandbox.finish()
        assert "processor time for one request" in sandbox.watch.breach


def test_nothing_outlives_its_sandbox(tier: Tier, monitor: ResourceMonitor) -> None:
    with started(tier, monitor, GREED / "outlive.py", "stay") as sandbox:
        assert sandbox.process.stdout is not None
        assert sandbox.process.stdout.readline() == "READY\n"
        below = descendants(sandbox.process.pid, processes())
        assert len(below) >= 2
        sandbox.watch.kill()
        assert not living(below)


def test_no_process_outlives_the_program_that_the_sandbox_was_for(tier: Tier, monitor: ResourceMonitor) -> None:
    with started(tier, monitor, GREED / "outlive.py") as sandbox:
        below = descendants(sandbox.process.pid, processes())
        sandbox.finish()
        until_dead(below)


def command_line(process: Process) -> str:
    """The arguments of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_killing_its_process_group_would_not_be_enough(tmp_path: Path) -> None:
    mark = str(tmp_path)
    command = (sys.executable, str(GREED / "outlive.py"), "stay", mark)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "READY\n"
        programs = [p for p in processes() if mark in command_line(p)]
        os.killpg(process.pid, 9)
        process.wait()
        try:
            assert living(programs)
        finally:
            for survivor in living(programs):
                os.kill(survivor.pid, 9)


def test_nothing_outlives_a_pool_that_is_killed(tier: Tier, tmp_path: Path) -> None:
    pool = f"""
import sys, time
from tests.streams.sandboxes.isolated import *
tier = tier_called({tier.name!r})
program = HERE / "greed" / "outlive.py"
with ResourceMonitor() as monitor, started(tier, monitor, program, "stay") as sandbox:
    assert sandbox.process.stdout.readline() == "READY\\n"
    print("READY", flush=True)
    time.sleep(600)
"""
    variables = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", pool], stdout=subprocess.PIPE, text=True, env=variables) as process:
        assert process.stdout is not None
        assert "READY\n" in iter(process.stdout.readline, "")
        below = descendants(process.pid, processes())
        assert len(below) >= 3
        process.kill()
    until_dead(below)
