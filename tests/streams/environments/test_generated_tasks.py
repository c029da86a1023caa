"""Tasks beyond those that an environment lists: stable, playable, and none where a program fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet_client.events import Task
from streams.environments.environment import GeneratesTasks
from streams.environments.toolbox.definition import DEFINITION
from streams.environments.toolbox.environment import Toolbox
from streams.environments.toolbox.generated import generated_id
from streams.environments.toolbox.scaffold import write_toolbox
from streams.environments.toolbox.settings import ToolboxSettings
from streams.errors import SandboxError
from streams.sandboxes.pool import SandboxPool

PROGRAM = """
def todo(seed, fold):
    title = f"{fold} {seed}"
    return {
        "opening": f"Please put down: {title}, due Monday.",
        "setup": "domain:prepare",
        "data": {"todos": [], "wanted": [(title, "Monday", 0)]},
        "demonstration": [{"name": "add_todo", "arguments": {"title": title, "due": "Monday"}}, "Done."],
    }

def nonsense(seed, fold):
    return 7

def failing(seed, fold):
    raise ValueError("no idea")
"""


def toolbox(folder: Path, generate: str = "") -> ToolboxSettings:
    write_toolbox(folder, "todos", "functions")
    (folder / "more.py").write_text(PROGRAM)
    definition = folder / DEFINITION
    definition.write_text(definition.read_text() + (f'generate = "{generate}"\n' if generate else ""))
    return ToolboxSettings(folder=folder)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ToolboxSettings:
    return toolbox(tmp_path_factory.mktemp("generating") / "todos", "more:todo")


@pytest.fixture
def world(settings: ToolboxSettings) -> Iterator[Toolbox]:
    session = Toolbox(settings)
    yield session
    session.close()


def test_generated_tasks_are_the_same_however_they_are_asked_for(world: Toolbox) -> None:
    assert isinstance(world, GeneratesTasks)
    made = world.generate("todos", "train", 0, 6)
    assert [task.task_id for task in made] == [f"todos/train/seed-{n}" for n in range(6)]
    assert world.generate("todos", "train", 2, 3) == made[2:5]
    assert world.generate("todos", "train", 0, 0) == ()
    listed = {task.task_id for task in world.task_list("todos", "train")}
    assert not listed & {task.task_id for task in made}
    texts = {world.reset(task).text for task in made}
    assert len(texts) == 6
    assert world.reset(Task(environment="toolbox", task_id="todos/train/seed-3")).text in texts


def test_a_generated_task_is_solved_by_its_demonstration(world: Toolbox) -> None:
    (task,) = world.generate("todos", "dev", 41, 1)
    world.reset(task)
    last = [world.step(action) for action in world.demonstration(task)][-1]
    assert (last.done, last.success, last.score) == (True, True, 1.0)


@pytest.mark.parametrize(
    "task_id",
    ["todos/test/seed-1", "todos/train/seed-01", "todos/train/seed-", "shop/train/seed-1", "todos/other/seed-1"],
)
def test_what_cannot_be_generated_is_no_task(task_id: str, world: Toolbox) -> None:
    with pytest.raises(SandboxError, match="is not a task of the toolbox"):
        world.reset(Task(environment="toolbox", task_id=task_id))
    with pytest.raises(SandboxError, match="reserved or unknown"):
        world.generate("todos", "test", 0, 1)


@pytest.mark.parametrize(
    ("program", "said"), [("more:nonsense", r"seed 0 is no task: it is int"), ("more:failing", "no idea")]
)
def test_a_program_that_fails_is_found_out_when_it_is_asked(program: str, said: str, tmp_path: Path) -> None:
    world = Toolbox(toolbox(tmp_path / "todos", program))
    with pytest.raises(SandboxError, match=said):
        world.generate("todos", "train", 0, 5)
    world.close()


def test_without_a_program_there_are_none(tmp_path: Path) -> None:
    world = Toolbox(toolbox(tmp_path / "todos"))
    assert world.generate("todos", "train", 0, 5) == ()
    with pytest.raises(SandboxError, match="is not a task"):
        world.reset(Task(environment="toolbox", task_id=generated_id("todos", "train", 0)))
    world.close()


async def test_a_sandbox_generates_what_it_can_then_play(settings: ToolboxSettings) -> None:
    async with SandboxPool("toolbox", settings={"folder": str(settings.folder)}) as pool:
        assert (await pool.describe()).generates_tasks
        (task,) = await pool.generate("todos", "train", 7, 1)
        async with pool.session() as session:
            assert "train 7" in (await session.reset(task)).text
            for action in await session.demonstration(task):
                last = await session.step(action)
        assert last.success


async def test_an_environment_that_generates_nothing_says_so(faulty_environments: tuple[str, ...]) -> None:
    async with SandboxPool("faulty_sound") as pool:
        assert not (await pool.describe()).generates_tasks
        assert await pool.generate("any", "train", 0, 5) == ()
