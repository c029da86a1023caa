import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Task
from ratchet_client.messages import assistant
from streams.errors import SandboxDiedError, SandboxError
from streams.sandboxes.isolation.settings import Isolation, Limits
from streams.sandboxes.isolation.tiers import choose
from streams.sandboxes.isolation.tree import descendants, processes
from streams.sandboxes.pool import SandboxPool
from tests.waiting import until

PLAY = tuple(map(assistant, ("open clothes drier", "take dirty white shirt", "fly away")))


def inside(root: int) -> list[int]:
    """The living processes of the sandbox that begins with `root`, parents before children, without the root."""
    return [process.pid for process in descendants(root, processes())]


def workers(pool: SandboxPool) -> list[int]:
    """In each sandbox the process that is the worker."""
    return [next(pid for pid in (root, *inside(root)) if is_worker(pid)) for root in pool.pids]


def is_worker(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return words[0] == sys.executable.encode() and b"streams.sandboxes.worker" in words


def variables_of(pid: int) -> set[str]:
    return {line.partition("=")[0] for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if line}


def until_gone(pids: list[int]) -> None:
    until(lambda: not {process.pid for process in processes()} & set(pids), f"these end: {pids}", within_s=20)


async def test_a_replay_gives_what_single_steps_give(task: Task) -> None:
    async with SandboxPool("textworld_express") as pool, pool.session() as one, pool.session() as other:
        stepped = [await one.reset(task), *[await one.step(action) for action in PLAY]]
        assert list(await other.replay(task, PLAY)) == stepped
        assert await other.valid_actions() == await one.valid_actions()
        assert await other.fingerprint() == await one.fingerprint()


async def test_the_tasks_of_a_fold_and_their_demonstrations_come_from_the_sandbox() -> None:
    async with SandboxPool("textworld_express") as pool:
        tasks = await pool.tasks("coin", "train")
        actions = await pool.demonstration(tasks[0])
        async with pool.session() as session:
            assert (await session.replay(tasks[0], actions))[-1].success
        with pytest.raises(SandboxError, match="reserved"):
            await pool.tasks("coin", "test")


async def test_a_refusal_does_not_end_the_session(task: Task) -> None:
    async with SandboxPool("textworld_express") as pool, pool.session() as session:
        with pytest.raises(SandboxError, match="reserved"):
            await session.reset(Task(environment="textworld_express", task_id="twc/test/1"))
        assert not (await session.reset(task)).done


async def test_many_sessions_share_few_processes(task: Task) -> None:
    async with SandboxPool("textworld_express", size=2) as pool:

        async def play() -> tuple[str, ...]:
            async with pool.session() as session:
                return tuple(observation.text for observation in await session.replay(task, PLAY))

        seen = await asyncio.gather(*[play() for _ in range(20)])
        assert len(set(seen)) == 1
        assert len(pool.pids) == 2


async def test_a_killed_process_fails_its_sessions_and_is_replaced(task: Task) -> None:
    async with SandboxPool("textworld_express") as pool:
        async with pool.session() as session:
            await session.reset(task)
            (victim,) = workers(pool)
            os.kill(victim, signal.SIGKILL)
            for _ in range(2):
                with pytest.raises(SandboxError, match="died during step"):
                    await session.step(assistant("look around"))
        until_gone([victim])
        async with pool.session() as session:
            assert not (await session.reset(task)).done
        assert workers(pool) != [victim]


async def test_what_was_played_outlives_a_process_that_dies_before_its_session_is_closed(task: Task) -> None:
    async with SandboxPool("textworld_express") as pool:
        async with pool.session() as session:
            played = await session.replay(task, PLAY)
            os.kill(workers(pool)[0], signal.SIGKILL)
        async with pool.session() as session:
            assert await session.replay(task, PLAY) == played


@pytest.mark.slow
async def test_a_step_over_its_time_limit_kills_the_process(task: Task) -> None:
    async with SandboxPool("textworld_express", step_timeout_s=2) as pool:
        async with pool.session() as session:
            await session.reset(task)
            (stuck,) = workers(pool)
            os.kill(stuck, signal.SIGSTOP)
            with pytest.raises(SandboxError, match=r"longer than 2 s"):
                await session.step(assistant("look around"))
        until_gone([stuck])
        async with pool.session() as session:
            assert not (await session.reset(task)).done


async def test_the_answer_to_a_cancelled_request_is_not_given_to_the_next(task: Task) -> None:
    async with SandboxPool("textworld_express") as pool, pool.session() as session:
        await session.reset(task)
        (pid,) = workers(pool)
        os.kill(pid, signal.SIGSTOP)
        impatient = asyncio.create_task(session.step(assistant("take dirty white shirt")))
        await asyncio.sleep(0.2)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        os.kill(pid, signal.SIGCONT)
        assert (await session.step(assistant("inventory"))).text.startswith("Inventory:")


async def test_environment_variables_of_the_parent_are_not_visible(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_SECRET", "hunter2")
    async with SandboxPool("textworld_express") as pool, pool.session() as session:
        await session.reset(task)
        members = inside(pool.pids[0])
        assert len(members) >= 2  # the worker and its Java virtual machine
        for member in members:
            assert "RATCHET_SECRET" not in variables_of(member)


async def test_no_process_and_no_folder_is_left_when_the_pool_ends(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with SandboxPool("textworld_express", size=2) as pool, pool.session() as one, pool.session() as other:
        await asyncio.gather(one.reset(task), other.reset(task))
        members = [member for root in pool.pids for member in (root, *inside(root))]
        assert len(pool.pids) == 2
        assert os.listdir(tmp_path)
    until_gone(members)
    assert not os.listdir(tmp_path)


def test_a_sandbox_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = """
import asyncio
from ratchet_client.events import Task
from streams.sandboxes.pool import SandboxPool

async def main():
    async with SandboxPool("textworld_express") as pool, pool.session() as session:
        await session.reset(Task(environment="textworld_express", task_id="twc/train/17"))
        print(pool.pids[0], flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""
    # A killed parent cannot remove the sandbox's folder, so it goes where the test's own files go.
    variables = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=variables) as parent:
        assert parent.stdout is not None
        root = next(int(line) for line in parent.stdout if line.strip().isdecimal())
        members = [root, *inside(root)]
        assert len(members) >= 2
        parent.kill()
    until_gone(members)


@pytest.mark.parametrize("isolation", ["bubblewrap", "landlock"])
async def test_every_tier_runs_every_kind_of_environment(isolation: Isolation) -> None:
    usable(isolation)
    for name, game in (("textworld_express", "twc"), ("bfcl", "multi_turn_base")):
        async with SandboxPool(name, isolation=isolation) as pool:
            (task, *_) = await pool.tasks(game, "train")
            async with pool.session() as session:
                assert (await session.replay(task, await session.demonstration(task)))[-1].success


@pytest.mark.parametrize("isolation", ["bubblewrap", "landlock"])
async def test_a_sandbox_that_may_not_start_enough_processes_ends_with_an_error_that_says_where(
    isolation: Isolation, task: Task
) -> None:
    usable(isolation)
    limits = Limits(processes=4)
    async with SandboxPool("textworld_express", isolation=isolation, limits=limits) as pool:
        # The kernel refuses a process, or the resource monitor looks in between.
        with pytest.raises(SandboxDiedError, match=r"died during open(.|\n)*_jvm|processes and threads, and 4 are"):
            async with pool.session() as session:
                await session.reset(task)


def usable(isolation: Isolation) -> None:
    """Skips the test where this machine does not have the tier."""
    try:
        choose(isolation)
    except ConfigurationError as reason:
        pytest.skip(f"{reason}; install bubblewrap, or run on Linux 6.2 or newer, to run this test")


async def test_an_environment_that_is_not_installed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not installed"):
        async with SandboxPool("production"):
            pass


@pytest.mark.usefixtures("faulty_environments")
async def test_sessions_of_a_group_share_a_process_that_is_costly_to_start_unless_none_is_named() -> None:
    async def processes_of(name: str, group: str | None) -> set[int]:
        """The processes that two sessions, one after the other, were in."""
        async with SandboxPool(name) as pool:
            seen = set()
            for _ in range(2):
                async with pool.fresh_session(group) as session:
                    await session.reset(Task(environment=name, task_id="walk/train/1"))
                    seen.add(session.process.pid)
            return seen

    assert len(await processes_of("faulty_costly", "side")) == 1
    assert len(await processes_of("faulty_costly", None)) == 2
    assert len(await processes_of("faulty_sound", "side")) == 2
