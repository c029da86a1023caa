"""The part of the contract that is about tools and calls; `conformance.py` asks it of the trajectories that it played.

Every function raises `BrokenPromiseError` with what it saw.
"""

from collections import Counter
from collections.abc import Sequence

from ratchet_client.messages import Message, ToolCall, Tools, assistant
from ratchet_client.messages import call as tool_call
from streams.environments.environment import Observation
from streams.environments.harness import ChatHarness
from streams.environments.tool_definitions import Tool, usable
from streams.errors import BrokenPromiseError, ToolCallError
from streams.sandboxes.pool import SandboxPool
from streams.sandboxes.promises import NO_ACTIONS, NotTried
from streams.sandboxes.walks import Walk, answered, path, spelled

_UNKNOWN_TOOL = "no_tool_of_any_environment"
_BROKEN_ARGUMENTS = '{"broken'


def definitions(walks: Sequence[Walk], harness: ChatHarness) -> str | NotTried:
    """The tools that are offered on the way, as models are given them."""
    most = 0
    for walk in walks:
        for observation in walk.observations:
            check_definitions(observation.tools or (), harness)
            most = max(most, len(observation.tools or ()))
    return f"{most} tools at most" if most else NotTried("it offers no tools")


async def answers(pool: SandboxPool, walks: Sequence[Walk]) -> str | NotTried:
    """The answers to the calls that were made, and to the first of each walk made twice in one message."""
    told = 0
    for walk in walks:
        check_opening(walk.observations[0])
        for number, action in enumerate(walk.actions):
            check_answers(action, walk.observations[number + 1], path(walk.task, walk.actions[: number + 1]))
            told += len(action.calls)
        if calling := next((action for action in walk.actions if action.calls), None):
            both = side_by_side(calling)
            async with pool.session() as session:
                await session.reset(walk.task)
                tried = path(walk.task, [both])
                check_answers(both, await answered(session, both, tried), tried)
            told += len(both.calls)
    if told:
        return f"{told} calls"
    return NotTried("no calls were made") if any(walk.actions for walk in walks) else NO_ACTIONS


async def impossible_calls(pool: SandboxPool, walk: Walk) -> str | NotTried:
    """Calls of the task of `walk` that nothing can be made of."""
    tools = walk.observations[0].tools
    if not tools:
        return NotTried("it offers no tools at first")
    actions = impossible_actions(tools)
    async with pool.session() as session:
        await session.reset(walk.task)
        for number, action in enumerate(actions):
            tried = path(walk.task, actions[: number + 1])
            check_refused(action, await answered(session, action, tried), tried)
    return f"{len(actions)} answers"


def check_definitions(tools: Tools, harness: ChatHarness) -> None:
    """Tools have valid definitions, each a name of its own, and the harness lets a policy call them."""
    names: Counter[str] = Counter()
    for definition in tools:
        try:
            names[Tool.of(definition).name] += 1
        except ToolCallError as error:
            raise BrokenPromiseError(f"a tool's definition is not what models are given: {error}") from error
    if doubled := [name for name, number in names.items() if number > 1]:
        raise BrokenPromiseError(f"several tools have the name {doubled[0]!r}")
    if tools and harness.reply != "message":
        raise BrokenPromiseError("it offers tools, and its harness takes a line of a reply: set reply to 'message'")


def check_opening(first: Observation) -> None:
    """A first observation is something said, and no answer to a call."""
    if not first.messages or any(message.role == "tool" for message in first.messages):
        raise BrokenPromiseError(f"a reset gives messages, none of which is a tool's, and not {_outline(first)}")


def check_answers(action: Message, answer: Observation, tried: str) -> None:
    """Every call has one answer, a tool's message with its id. These come before anything else that is said."""
    roles = [message.role for message in answer.messages]
    if "tool" in roles[roles.count("tool") :]:
        raise BrokenPromiseError(f"a tool answers behind something else: {_outline(answer)}", tried)
    wanted = Counter(call.id for call in action.calls)
    given = Counter(message.tool_call_id or "" for message in answer.messages if message.role == "tool")
    if wanted != given:
        raise BrokenPromiseError(_outline(answer), tried, f"one answer to each of the ids {sorted(wanted)}")


def check_own_ids(action: Message) -> None:
    """The calls of a demonstrated action have ids by which answers can be told apart."""
    ids = [call.id for call in action.calls]
    if "" in ids or len(set(ids)) < len(ids):
        raise BrokenPromiseError(f"the calls have the ids {ids}", f"the demonstrated action {spelled(action)}")


def check_refused(action: Message, answer: Observation, tried: str) -> None:
    """A call that nothing can be made of is answered as such."""
    check_answers(action, answer, tried)
    if answer.understood:
        raise BrokenPromiseError(f"it says that it has understood; its answer is {_outline(answer)}", tried)


def impossible_actions(tools: Tools) -> Sequence[Message]:
    """Calls of a tool that does not exist, alone and beside others, and calls whose arguments are not JSON."""
    unknown = tool_call(_UNKNOWN_TOOL, "{}", "call_unknown")
    broken = [tool_call(name, _BROKEN_ARGUMENTS, "call_broken") for name in list(usable(tools))[:1]]
    return [
        assistant(None, unknown),
        *(assistant("I try.", call) for call in broken),
        assistant(None, *broken, unknown),
    ]


def side_by_side(action: Message) -> Message:
    """The calls of an action twice in one message."""
    again = [ToolCall(id=f"{call.id}_again", function=call.function) for call in action.calls]
    return assistant(None, *action.calls, *again)


def _outline(answer: Observation) -> str:
    return str([(each.role, each.tool_call_id, each.text[:60]) for each in answer.messages])[:400]
