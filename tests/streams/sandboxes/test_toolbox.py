"""Toolboxes in real sandboxes: episodes of theirs are restored, branched and replayed, and they keep the contract."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from ratchet_client.events import StepEvent, Task
from ratchet_client.messages import MESSAGES, Message, assistant, call, tool_result, user
from streams.branch_events import BranchRequest, RecordedStep
from streams.branching.branch import branch
from streams.branching.replay import replay
from streams.branching.selectors import Uniform
from streams.branching.settings import BranchingSettings
from streams.environments.tool_definitions import Tool
from streams.environments.toolbox.scaffold import write_toolbox
from streams.errors import SandboxError
from streams.sandboxes.conformance import Suite
from streams.sandboxes.isolation.settings import Isolation
from streams.sandboxes.pool import SandboxPool
from streams.task_ids import task_of
from streams.trust.rules import StoredStep, branch_request
from tests.builders.captured import Desk
from tests.builders.captured import call as captured_call
from tests.builders.policies import FixedPolicy

TODOS = (
    '[{"number": 1, "title": "buy milk", "due": "Friday", "done": false}, '
    '{"number": 2, "title": "call the bank", "due": "Monday", "done": false}, '
    '{"number": 3, "title": "water the plants", "due": "Friday", "done": true}]'
)


def captured(listed: str = TODOS, done: str = '{"done": 2}') -> BranchRequest:
    """An episode as production's agent had it, with instructions of its own and nothing after its last words."""
    steps = (
        (assistant(None, call("list_todos", "{}", "c1")), (tool_result(listed, "c1"),)),
        (assistant(None, call("finish_todo", '{"number": 2}', "c2")), (tool_result(done, "c2"),)),
        (assistant("It is ticked off."), ()),
    )
    return BranchRequest(
        event_id="request-1",
        episode_id="episode-1",
        task=Task(environment="toolbox", task_id="todos/finish-1"),
        opening=(
            Message(role="system", content="You are production's agent."),
            user("I have done this: the call to the bank. Tick it off."),
        ),
        steps=tuple(
            RecordedStep(action=action, observation=observation, tools=() if number else TOOLS)
            for number, (action, observation) in enumerate(steps)
        ),
    )


PROPERTIES: dict[str, JsonValue] = {"number": {"type": "integer"}}
TOOLS = (
    Tool("list_todos", "", {"type": "object", "properties": {}}).definition,
    Tool("finish_todo", "", {"type": "object", "properties": PROPERTIES}).definition,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toolboxes") / "todos"
    write_toolbox(folder, "todos", "functions")
    return folder


@pytest.fixture
async def pool(folder: Path) -> AsyncIterator[SandboxPool]:
    async with SandboxPool("toolbox", settings={"folder": str(folder)}) as pool:
        yield pool


async def test_a_captured_episode_is_branched_with_mutations_and_the_policys_calls(pool: SandboxPool) -> None:
    policy = FixedPolicy((assistant(None, call("finish_todo", '{"number": 1}', "p1")),))
    results = await branch(captured(), pool, policy, Uniform(), BranchingSettings(samples=1, temperatures=(1.0,)))
    assert [(result.fidelity, result.reason) for result in results] == [("sandbox_exact", "")] * 3
    assert {each.source for result in results for each in result.alternatives} == {"policy", "mutation"}
    assert results[0].alternatives[0].observation == (tool_result('{"done": 1}', "p1"),)


async def test_calls_that_name_no_task_are_branched_in_the_task_that_begins_as_they_do(
    pool: SandboxPool, tmp_path: Path
) -> None:
    recorded = captured()
    messages, calls = list(recorded.opening[1:]), []
    for step in recorded.steps:
        sent = json.loads(MESSAGES.dump_json(tuple(messages), exclude_none=True))
        request = json.dumps({"model": "assistant", "messages": sent, "tools": TOOLS})
        calls.append(captured_call(sent, json.loads(step.action.to_json()), request=request))
        messages += [step.action, *step.observation]
    desk = Desk(tmp_path, {"environment": "toolbox"})
    events = [event for event in desk.take(*calls, wait=120.0) if isinstance(event, StepEvent)]
    desk.close()
    steps = [
        StoredStep(
            number, each.task, each.messages, each.action, each.observation, "policy", each.principal, each.tools
        )
        for number, each in enumerate(events)
    ]
    task = Task(environment="toolbox", task_id=task_of(recorded.opening[1:]))
    assert [step.task for step in steps] == [task] * 3
    wanted = branch_request("episode-1", steps, "trusted")
    assert wanted is not None
    results = await branch(wanted, pool, FixedPolicy(()), Uniform(), BranchingSettings(samples=1, temperatures=(1.0,)))
    assert [(result.task, result.fidelity, result.reason) for result in results] == [(task, "sandbox_exact", "")] * 3
    assert {each.source for result in results for each in result.alternatives} == {"mutation"}
    assert (await replay(wanted, pool)).success is True


async def test_an_episode_that_is_reproduced_is_judged_and_of_another_it_is_said_where_they_part(
    pool: SandboxPool,
) -> None:
    same = await replay(captured(), pool)
    assert (same.exact, same.reproduced, same.steps, same.success, same.parts_at) == (True, 3, 3, True, None)
    other = await replay(captured(done='{"done": 3}'), pool)
    assert (other.exact, other.reproduced, other.parts_at) == (False, 1, 1)
    assert other.diff == (
        *("--- recorded", "+++ sandbox", "@@ -2,3 +2,3 @@", " {"),
        *('- "done": 3', '+ "done": 2', " }"),
    )
    opening = (user("I have done nothing."),)
    begun = await replay(captured().model_copy(update={"opening": opening}), pool)
    assert (begun.reproduced, begun.parts_at) == (0, -1)
    assert "-I have done nothing." in begun.diff
    unknown = Task(environment="toolbox", task_id="todos/none")
    lost = await replay(captured().model_copy(update={"task": unknown}), pool)
    assert (lost.reproduced, lost.parts_at) == (0, None)
    assert "'todos/none' is not a task of the toolbox" in lost.reason
    last = captured().model_copy(
        update={"steps": (*captured().steps[:2], RecordedStep(action=assistant("Done."), observation=(user("And?"),)))}
    )
    spoken = await replay(last, pool)
    assert (spoken.reproduced, spoken.parts_at, spoken.exact) == (2, 2, False)
    assert "-And?" in spoken.diff


async def test_a_folder_that_does_not_exist_and_code_that_cannot_be_imported_are_named(tmp_path: Path) -> None:
    async with SandboxPool("toolbox", settings={"folder": str(tmp_path / "nowhere")}) as pool:
        with pytest.raises(SandboxError, match=r"is to read .*nowhere, which does not exist"):
            await pool.describe()
    write_toolbox(tmp_path / "box", "box", "functions")
    (tmp_path / "box" / "tools.py").write_text("import my_company\n")
    async with SandboxPool("toolbox", settings={"folder": str(tmp_path / "box")}) as pool:
        with pytest.raises(SandboxError, match=r"tools\.py cannot be imported: .*my_company.*branching\.readable"):
            await pool.describe()


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["bubblewrap", "landlock"])
async def test_tools_of_an_mcp_server_keep_every_promise_in_each_tier(isolation: Isolation, tmp_path: Path) -> None:
    write_toolbox(tmp_path / "todos", "todos", "mcp")
    settings = {"folder": str(tmp_path / "todos")}
    async with SandboxPool("toolbox", size=2, step_timeout_s=60, settings=settings, isolation=isolation) as pool:
        tasks = await pool.tasks("todos", "train")
        checks = await Suite(pool, await pool.describe(), tasks[:3], 10, random.Random(0)).run(lambda *told: None)
    assert [check for check in checks if check.kept is False] == []
