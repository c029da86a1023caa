"""The environments whose judged episodes share processes: by their author's word, never where tools run in them."""

import asyncio
from pathlib import Path

import pytest

from streams.environments.environment import Observation
from streams.environments.registry import needs_of
from streams.environments.toolbox.scaffold import write_toolbox
from streams.sandboxes.pool import SandboxPool

# All of them started at once take several times as long.
EPISODES, STEP_S = 24, 7.0
HELPDESK = Path(__file__).parents[3] / "examples" / "helpdesk"


def test_a_server_that_keeps_nothing_shares_processes_and_functions_do_not(tmp_path: Path) -> None:
    write_toolbox(tmp_path / "functions", "functions", "functions")
    assert needs_of("toolbox", {"folder": str(HELPDESK)}).shares_processes
    assert not needs_of("toolbox", {"folder": str(tmp_path / "functions")}).shares_processes


async def test_episodes_of_one_side_share_the_process_of_a_server_that_keeps_nothing() -> None:
    async with (
        SandboxPool("toolbox", settings={"folder": str(HELPDESK)}) as pool,
        pool.fresh_session("one side") as first,
        pool.fresh_session("one side") as second,
        pool.fresh_session("the other side") as other,
        pool.fresh_session() as alone,
    ):
        assert first.process is second.process
        assert len({first.process.pid, other.process.pid, alone.process.pid}) == 3


@pytest.mark.slow
async def test_many_processes_that_start_at_once_do_not_run_into_the_time_limit_of_a_step() -> None:
    async with SandboxPool("toolbox", step_timeout_s=STEP_S, settings={"folder": str(HELPDESK)}) as pool:
        (task, *_) = await pool.tasks("helpdesk", "train")

        async def opening(_: int) -> Observation:
            async with pool.fresh_session() as session:
                return await session.reset(task)

        found = await asyncio.gather(*map(opening, range(EPISODES)))
    assert all(observation.messages == found[0].messages for observation in found)


@pytest.mark.parametrize("name", ["textworld_express", "scienceworld"])
def test_what_is_costly_to_start_shares_processes(name: str) -> None:
    assert needs_of(name, {}).shares_processes
