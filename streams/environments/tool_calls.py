"""The calls of an action, read from an assistant's message, and the key by which actions that do the same are one.

Environments whose actions are tool calls read them with it, and `tool_call_mutations.py` changes them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from pydantic import JsonValue

from ratchet_client.ids import content_id
from ratchet_client.messages import Message, ToolCall, assistant
from ratchet_client.messages import call as tool_call
from streams.errors import ToolCallError

_ID_LENGTH = 16
_COMPACT = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool by name. Its arguments belong to its caller: copy before changing them."""

    name: str
    arguments: Mapping[str, JsonValue]


def read(call: ToolCall) -> Call:
    """The function that is called, and its arguments. Raises `ToolCallError` for arguments that are not a JSON object.

    Some servers write no arguments as an empty text.

    >>> read(tool_call("cd", '{"folder": "docs"}'))
    Call(name='cd', arguments={'folder': 'docs'})
    """
    if call.function is None:
        raise ToolCallError(f"A call of the type {call.type!r} is not a call of a function.")
    try:
        arguments = json.loads(call.function.arguments.strip() or "{}", parse_constant=_refuse, parse_float=_finite)
        json.dumps(arguments, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ToolCallError(f"The arguments of {call.function.name} are not valid JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ToolCallError(f"The arguments of {call.function.name} are not a JSON object.")
    return Call(call.function.name, arguments)


def calls_of(action: Message) -> tuple[Call, ...]:
    """The calls of an action; none for a text to the user. Raises `ToolCallError` where one of them is malformed."""
    return tuple(map(read, action.calls))


def calling(calls: Sequence[Call], origin: str) -> Message:
    """An action that makes `calls`. The same calls of the same origin always have the same ids."""
    spelled = [(call.name, _compact(dict(call.arguments))) for call in calls]
    ids = (content_id(origin, str(place), *each) for place, each in enumerate(spelled))
    return assistant(
        None,
        *(
            tool_call(name, arguments, f"call_{identity[:_ID_LENGTH]}")
            for (name, arguments), identity in zip(spelled, ids, strict=True)
        ),
    )


def render(calls: Sequence[Call]) -> str:
    """The one spelling of `calls`, as a key: compact JSON with sorted keys."""
    spelled = (f'{{"name":{_compact(call.name)},"arguments":{_compact(dict(call.arguments))}}}' for call in calls)
    return f"[{','.join(spelled)}]"


def canonical(action: Message) -> str:
    """A key of all actions that do the same: ids, order and spacing of arguments, and a text beside calls do nothing.

    All texts to the user are one action, which calls nothing.

    >>> canonical(assistant(None, tool_call("ls", '{ "b": 1, "a": 2 }', "call_1")))
    '[{"name":"ls","arguments":{"a":2,"b":1}}]'
    >>> canonical(assistant("Done.")), canonical(assistant("I am done."))
    ('[]', '[]')
    """
    return f"[{','.join(map(_canonical, action.calls))}]"


def _canonical(call: ToolCall) -> str:
    try:
        return render([read(call)])[1:-1]
    except ToolCallError:
        if call.function is None:
            return _compact(call.model_dump(mode="json", exclude={"id"}, exclude_none=True))
        return _compact([call.function.name, " ".join(call.function.arguments.split())])


def _compact(value: JsonValue) -> str:
    return _COMPACT.encode(value)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)
