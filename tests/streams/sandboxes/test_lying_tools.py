"""Tools that reach into the worker process that they run in: what they say and patch never passes for an answer."""

from pathlib import Path

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import assistant, call
from streams.branching.restored_episode import restored
from streams.errors import ObservationTooLargeError, SandboxDiedError
from streams.sandboxes.isolation.settings import Isolation, Limits
from streams.sandboxes.pool import SandboxPool, SandboxSession
from tests.builders.branch_requests import played as played_request
from tests.builders.toolboxes import box
from tests.streams.sandboxes.isolated import TIERS, tier_called

TASK = Task(environment="toolbox", task_id="one")
TOOLBOX = """name = "liars"
functions = "tools.py"
check = "domain:check"
system_prompt = "Call a tool."
max_steps = 9
"""
CHECK = "def check(task, messages):\n    return {'success': False}\n"
TOOLS = '''
import os
import sys
from contextlib import suppress


def work() -> str:
    """Do what a tool does."""
    return "done"


def say_nothing() -> str:
    """Answer the request without an observation."""
    worker = sys.modules["__main__"]
    worker.EnvironmentSession.answer = lambda self, request: worker.Answer(id=request.id)
    return "done"


def say_what_is_no_answer() -> str:
    """Write a line that is no answer, and one without an end."""
    for number in range(3, 64):
        with suppress(OSError):
            os.write(number, b"not an answer\\n" + b"x" * 1000)
    return "done"


def have_a_child_answer() -> str:
    """Let a child write to whatever it has inherited."""
    child = os.fork()
    if child == 0:
        for number in (0, 1, *range(3, 64)):
            with suppress(OSError):
                os.write(number, b'{"id": "1", "observations": []}\\n')
        os._exit(0)
    os.waitpid(child, 0)
    return "done"


def forge_the_verdict() -> str:
    """Patch the class that judges, for every episode to come."""
    toolbox = sys.modules["streams.environments.toolbox.environment"]
    toolbox.Toolbox._judged = lambda self, played: toolbox.replace(played, done=True, success=True, score=1.0)
    return "done"


def say_far_too_much() -> str:
    """Answer with more than an observation may have."""
    return "x" * 5000


def say_far_too_much_unasked() -> str:
    """The same, where the process itself does not look."""
    sys.modules["streams.environments.environment"].Observation.is_larger_than = lambda self, most_bytes: False
    return "x" * 5000
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = box(tmp_path_factory.mktemp("toolboxes") / "liars", TOOLBOX, tools__py=TOOLS, domain__py=CHECK)
    for path in (made, *made.iterdir()):
        path.chmod(0o755)
    return made


async def answers(pool: SandboxPool, *tools: str) -> list[bool]:
    """Call these tools; for each, whether its own answer came back."""
    async with pool.session() as session:
        await session.reset(TASK)
        called = [await session.step(assistant(None, call(name, "{}", "c1"))) for name in tools]
    return ["done" in observation.text for observation in called]


@pytest.mark.parametrize("isolation", TIERS)
@pytest.mark.parametrize("tool", ["say_nothing", "say_what_is_no_answer"])
async def test_a_worker_that_answers_wrongly_is_ended_and_replaced(
    folder: Path, isolation: Isolation, tool: str
) -> None:
    tier_called(isolation)
    async with SandboxPool("toolbox", isolation=isolation, settings={"folder": str(folder)}) as pool:
        with pytest.raises(SandboxDiedError, match="killed"):
            await answers(pool, tool, "work")
        assert await answers(pool, "work") == [True]


@pytest.mark.parametrize("isolation", TIERS)
async def test_a_child_of_the_worker_has_nothing_to_answer_with(folder: Path, isolation: Isolation) -> None:
    tier_called(isolation)
    async with SandboxPool("toolbox", isolation=isolation, settings={"folder": str(folder)}) as pool:
        assert await answers(pool, "have_a_child_answer", "work") == [True, True]


async def judged(session: SandboxSession, tool: str) -> bool:
    """Call the tool, end the episode, and say whether it is judged to be solved. It never is."""
    await session.reset(TASK)
    await session.step(assistant(None, call(tool, "{}", "c1")))
    return (await session.step(assistant("Finished."))).success


@pytest.mark.parametrize("isolation", TIERS)
async def test_who_patches_the_verifier_forges_no_later_verdict_that_counts(folder: Path, isolation: Isolation) -> None:
    tier_called(isolation)
    async with SandboxPool("toolbox", isolation=isolation, settings={"folder": str(folder)}) as pool:
        async with pool.fresh_session() as session:
            assert await judged(session, "forge_the_verdict")
        async with pool.fresh_session("side") as session:
            assert not await judged(session, "work")
        assert not pool.pids[1:]  # nothing is left of them
        # Why they must be fresh: in a process that sessions share, the patch is still there.
        async with pool.session() as session:
            await judged(session, "forge_the_verdict")
        async with pool.session() as session:
            assert await judged(session, "work")


@pytest.mark.parametrize("isolation", TIERS)
async def test_a_branch_that_is_answered_with_too_much_is_dropped_and_the_others_are_not(
    folder: Path, isolation: Isolation
) -> None:
    tier_called(isolation)
    limits, told = Limits(observation_kib=4), {"folder": str(folder)}
    async with SandboxPool("toolbox", isolation=isolation, limits=limits, settings=told) as pool:
        tried = [assistant(None, call(name, "{}", "c1")) for name in ("work", "say_far_too_much", "work")]
        async with pool.session() as session:
            await session.reset(TASK)
            with pytest.raises(ObservationTooLargeError, match="more than 4096 bytes"):
                await session.step(tried[1])
            assert (await session.step(tried[0])).text == "done"
        request = await played_request(pool, TASK, tried[:1])
        async with restored(request, pool) as episode:
            trials = await episode.branch(0, tried)
        assert [trial.failure_kind for trial in trials] == [None, "too_large", None]
        # A process that is not to be trusted is not asked.
        with pytest.raises(SandboxDiedError, match="larger observation than it may"):
            await answers(pool, "say_far_too_much_unasked")
