"""The lists of a trial, from what an environment lists and generates, and the counting of what is played."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.config import DomainSettings, Settings
from daemon.learning.domain import DomainTasks, domain_tasks, golden_tasks
from daemon.learning.task_lists import TaskSupply, counting, drawn_lists, labels_of, trial_name
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import CycleReport
from daemon.registry.task_uses import TaskUses, account_summary
from evaluation.gates.gate import TaskLists
from evaluation.gates.verdict import Verdict
from evaluation.settings import GateSettings, TaskListSettings
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Task
from streams.environments.toolbox.definition import DEFINITION
from streams.environments.toolbox.scaffold import write_toolbox
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.builders.trials import evidence

CANDIDATE = "b" * 64
PROGRAM = """
def todo(seed, fold):
    return {"opening": f"{fold} {seed}", "setup": "domain:prepare", "data": {"todos": []}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists") / "todos"
    write_toolbox(folder, "todos", "functions")
    (folder / "more.py").write_text(PROGRAM)
    (folder / DEFINITION).write_text((folder / DEFINITION).read_text() + 'generate = "more:todo"\n')
    return folder


@pytest.fixture
async def pool(folder: Path) -> AsyncIterator[SandboxPool]:
    async with SandboxPool("toolbox", settings={"folder": str(folder)}) as opened:
        yield opened


def cycle(adapter: str) -> CycleReport:
    return CycleReport(
        cycle=1,
        adapter=adapter,
        champion="base",
        verdict=Verdict.INCONCLUSIVE,
        reason="r",
        champion_success=0.5,
        candidate_success=0.5,
        tasks=0,
        gates=(),
        seconds=1.0,
    )


async def test_a_trial_is_given_the_same_lists_until_it_ends_and_then_other_tasks(
    pool: SandboxPool, tmp_path: Path
) -> None:
    lists = TaskListSettings(selection_tasks=40, fresh_tasks=15)
    settings = Settings(home=tmp_path, gate=GateSettings(lists=lists)).settled()
    registry, supply = Registry(settings.home), TaskSupply((), (), "todos", "train")

    async def drawn() -> TaskLists:
        return await drawn_lists(settings, registry, pool, supply, CANDIDATE)

    first = await drawn()
    assert (len(first.selection), first.played) == (40, 0)
    assert len(first.confirmation) >= 15
    trial = evidence()
    trial.tasks, trial.arena = first, trial.arena.for_gate("improvement", {})
    count = counting(TaskUses(settings.home), trial_name(registry, CANDIDATE), trial)
    other = Task(environment="toolbox", task_id="todos/dev/seed-1")
    count([*first.selection[:32], first.confirmation[0], other])
    # It was broken off, and begins again.
    assert await drawn() == first
    count(first.selection[:32])
    account = TaskUses(settings.home).account()
    assert sum(account.uses().values()) == 33
    assert {entry.gate for entry in account.used} == {"improvement"}
    assert account_summary(registry).fresh == len(first.confirmation) - 1

    registry.enter(CANDIDATE, State.TRAINED, "learner", "trained")
    registry.record_cycle(cycle(CANDIDATE), "learner")
    second = await drawn()
    played = {task.task_id for task in (*first.selection[:32], first.confirmation[0])}
    assert not played & {task.task_id for task in second.selection}
    assert (len(second.selection), second.played) == (40, 0)
    assert second.confirmation[0].task_id in second.unplayed()


async def test_tasks_are_generated_until_enough_are_fresh_and_never_those_of_training(pool: SandboxPool) -> None:
    settings = Settings()
    supply = TaskSupply((), (), "todos", "train")
    made = await supply.tasks(pool, TaskUses(Path("nowhere")).account().uses(), settings.holdout, TaskListSettings())
    split = {task.task_id: settings.holdout.split(task.task_id) for task in made}
    assert Split.TRAIN not in split.values()
    assert sum(each is Split.SELECTION for each in split.values()) >= 2000
    assert sum(each is Split.CONFIRMATION for each in split.values()) >= 400
    assert (
        await TaskSupply(()).tasks(pool, TaskUses(Path("x")).account().uses(), settings.holdout, TaskListSettings())
        == ()
    )


async def test_tasks_that_come_twice_are_no_further_tasks() -> None:
    class Repeating(SandboxPool):
        """Makes the same tasks three times, and then others."""

        async def generate(self, game: str, fold: str, first: int, count: int) -> tuple[Task, ...]:
            made = 0 if first < 3000 else first
            return tuple(Task(environment="toolbox", task_id=f"made/{made + n}") for n in range(count))

    holdout, lists = HoldoutSettings(), TaskListSettings(selection_tasks=500, fresh_tasks=1)
    pool = Repeating("toolbox")
    supply = TaskSupply((await pool.generate("made", "train", 0, 1))[:1] * 2, (), "made", "train")
    made = await supply.tasks(pool, Counter(), holdout, lists)
    ids = [task.task_id for task in made]
    assert len(ids) == len(set(ids))
    assert sum(holdout.split(each) is Split.SELECTION for each in ids) >= 500


async def test_an_environment_that_lists_a_task_twice_has_it_once(folder: Path) -> None:
    class Twice(SandboxPool):
        async def tasks(self, game: str, fold: str) -> tuple[Task, ...]:
            return 2 * await super().tasks(game, fold)

    async with Twice("toolbox", settings={"folder": str(folder)}) as pool:
        found = await domain_tasks(DomainSettings(environment="toolbox", out_of_domain_fold=""), pool)
    assert found.tasks
    assert len(found.tasks) == len({task.task_id for task in found.tasks})


async def test_a_golden_task_that_the_environment_does_not_have_is_refused_before_anything_is_trained(
    pool: SandboxPool,
) -> None:
    domain = DomainSettings(environment="toolbox")
    found = DomainTasks("todos", await pool.tasks("todos", "train"), ())
    listed = found.tasks[0].task_id
    golden = await golden_tasks(found, domain, [listed, "todos/train/seed-5"], pool)
    assert [task.task_id for task in golden] == [listed, "todos/train/seed-5"]
    with pytest.raises(ConfigurationError, match="the golden task 'todos/misspelt' is none of its own"):
        await golden_tasks(found, domain, ["todos/misspelt"], pool)


async def test_agents_and_tenants_of_a_task_are_those_of_production_and_tenants_are_not_named(
    served_store: ServedStore,
) -> None:
    task = TASKS[Split.SELECTION][0]
    Log(served_store.store).publish(*episode("episode-1", task))
    async with StoreClient(served_store.url) as store:
        (row,) = (await store.query("SELECT DISTINCT principal, task_id, environment FROM transitions")).to_pylist()
        played = Task(environment=row["environment"], task_id=row["task_id"])
        labels = await labels_of([played], store, Settings().holdout)
        assert list(labels) == [row["task_id"]]
        assert row["principal"] not in str(labels)
        assert len(labels[row["task_id"]]["tenant"]) == 1
        assert await labels_of([], store, Settings().holdout) == {}
