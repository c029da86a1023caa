"""Actions that are tool calls, as text: a JSON array `[{"name": …, "arguments": {…}}]`; anything else is for the user.

Environments whose actions are tool calls read them with it, and `tool_call_mutations.py` changes them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from pydantic import JsonValue

from streams.errors import ToolCallError


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool by name. Its arguments belong to its caller: copy before changing them."""

    name: str
    arguments: Mapping[str, JsonValue]


def parse(action: str) -> tuple[Call, ...]:
    """The calls of an action; none for a text to the user. Raises `ToolCallError` for what is neither.

    >>> parse('[{"name": "cd", "arguments": {"folder": "docs"}}]')
    (Call(name='cd', arguments={'folder': 'docs'}),)
    >>> parse("All done.")
    ()
    """
    action = action.strip()
    if not action.startswith(("[", "{")):
        return ()
    try:
        calls = json.loads(action, parse_constant=_refuse_constant)
        json.dumps(calls, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ToolCallError(f"The tool calls are not valid JSON: {error}") from error
    if not isinstance(calls, list):
        raise ToolCallError("Tool calls are a JSON array, also when there is only one.")
    return tuple(_call(call) for call in calls)


def render(calls: Sequence[Call]) -> str:
    """The one spelling of `calls`: compact JSON, the name first because a policy chooses it first."""
    spelled = (f'{{"name":{_compact(call.name)},"arguments":{_compact(dict(call.arguments))}}}' for call in calls)
    return f"[{','.join(spelled)}]"


def canonical(action: str) -> str:
    """The one spelling of all actions that do the same: all texts to the user are one action, which calls nothing.

    >>> canonical('[{"arguments": {}, "name": "ls"}]')
    '[{"name":"ls","arguments":{}}]'
    >>> canonical("Done."), canonical("I am done.")
    ('[]', '[]')
    """
    try:
        return render(parse(action))
    except ToolCallError:
        return " ".join(action.split())


def _call(call: JsonValue) -> Call:
    match call:
        case {"name": str(name), "arguments": dict(arguments), **others} if not others:
            return Call(name, arguments)
    raise ToolCallError('A tool call is an object with exactly a "name" and an object of "arguments".')


def _compact(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
