"""Tools that reach for the pipes of the worker process that they run in: what they say never passes for an answer."""

from pathlib import Path

import pytest

from streams.errors import SandboxDiedError
from streams.events import Task
from streams.messages import assistant, call
from streams.sandboxes.isolation.settings import Isolation
from streams.sandboxes.pool import SandboxPool
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
