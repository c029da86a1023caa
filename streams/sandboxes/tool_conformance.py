"""The part of the contract that environments with tools keep besides; `conformance.py` asks it of their walks.

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

_UNKNOWN_TOOL = "no_tool_of_any_environment"
_BROKEN_ARGUMENTS = '{"broken'


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


def check_answers(action: Message, answer: Observation) -> None:
    """Every call has one answer, a tool's message with its id. These come before anything else that is said."""
    roles = [message.role for message in answer.messages]
    if "tool" in roles[roles.count("tool") :]:
        raise BrokenPromiseError(f"after {_spelled(action)} a tool answers behind something else: {_outline(answer)}")
    wanted = Counter(call.id for call in action.calls)
    given = Counter(message.tool_call_id or "" for message in answer.messages if message.role == "tool")
    if wanted != given:
        raise BrokenPromiseError(
            f"each call of {_spelled(action)} is to be answered once, by its id, and the answers are {_outline(answer)}"
        )


def check_own_ids(action: Message) -> None:
    """The calls of a demonstrated action have ids by which answers can be told apart."""
    ids = [call.id for call in action.calls]
    if "" in ids or len(set(ids)) < len(ids):
        raise BrokenPromiseError(f"the calls of a demonstration have no ids of their own: {_spelled(action)}")


def check_refused(action: Message, answer: Observation) -> None:
    """A call that nothing can be made of is answered as such."""
    check_answers(action, answer)
    if answer.understood:
        raise BrokenPromiseError(f"it says that it has understood {_spelled(action)}")


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


def _spelled(action: Message) -> str:
    called = [(call.id, call.function and call.function.name) for call in action.calls]
    return f"the calls {called}" if called else f"the text {action.text[:100]!r}"


def _outline(answer: Observation) -> str:
    return str([(each.role, each.tool_call_id, each.text[:60]) for each in answer.messages])[:400]
