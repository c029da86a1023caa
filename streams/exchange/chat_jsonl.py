"""Chat JSONL: TRL's conversational data sets and OpenAI's fine-tuning files, a JSON object for each conversation.

`messages` has the conversation, or `prompt` and `completion` its two halves, of which the second is learned from.
`tools` are definitions of functions, as a list or as JSON text. An assistant's message with `weight` 0 is not learned
from. Other columns are left out, but for `ratchet`, which files of Ratchet have.

- https://huggingface.co/docs/trl/dataset_formats (conversational, tool calling)
- https://platform.openai.com/docs/guides/supervised-fine-tuning (chat format)
"""

import json

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from ratchet_client.messages import MESSAGE, TOOLS, Record, Tools, as_definition
from streams.errors import ExchangeError
from streams.exchange.conversation import Conversation, Facts, JsonObject, Said, conversation_of, first_fault

_HALVES = ("prompt", "completion")
_READ = frozenset({"messages", "tools", "functions", "ratchet", "id", *_HALVES})
# Other spellings of reasoning_content: of gpt-oss' data sets, of OpenRouter and vLLM.
_REASONING = ("thinking", "reasoning")


class _Line(Record):
    messages: tuple[dict[str, JsonValue], ...]
    tools: Tools | None
    ratchet: dict[str, JsonValue]


def read(document: JsonObject) -> Conversation:
    """The conversation of one line. Raises `ExchangeError`, which says what is wrong where in it."""
    try:
        facts = Facts.model_validate(document.get("ratchet") or {})
        exact = "ratchet" in document
        said = [_said(raw, at, exact=exact) for at, raw in enumerate(_messages(document))]
        halved = "messages" not in document
        if halved:
            prompted = len(_list(document, "prompt"))
            said = [Said(one.message, one.learned and at >= prompted) for at, one in enumerate(said)]
        return conversation_of(
            said,
            _tools(document),
            facts,
            identity=facts.episode_id or str(document.get("id") or ""),
            left_out=frozenset(document) - _READ,
        )
    except ValidationError as error:
        raise ExchangeError(first_fault(error)) from error


def write(conversation: Conversation) -> bytes:
    """The conversation as one line, without its line feed."""
    opening = len(conversation.opening)
    facts = conversation.facts.model_copy(update={"opening": opening, "tools": conversation.changes})
    messages = tuple(json.loads(message.to_json()) for message in conversation.messages)
    for message in messages[:opening]:
        if message["role"] == "assistant":
            message.setdefault("weight", 0)
    return _Line(messages=messages, tools=conversation.offered or None, ratchet=facts.to_json()).to_json()


def _messages(document: JsonObject) -> list[JsonValue]:
    if "messages" in document:
        return _list(document, "messages")
    if all(name in document for name in _HALVES):
        return [message for name in _HALVES for message in _list(document, name)]
    raise ExchangeError(
        f"messages: the column is missing; there are {', '.join(sorted(document)) or 'none'}: write each line as "
        '{"messages": [{"role": …, "content": …}, …], "tools": […]}'
    )


def _list(document: JsonObject, name: str) -> list[JsonValue]:
    value = document[name]
    if not isinstance(value, list):
        raise ExchangeError(f"{name}: it is not a list of messages")
    return value


def _said(raw: JsonValue, at: int, *, exact: bool) -> Said:
    if not isinstance(raw, dict):
        raise ExchangeError(f"messages.{at}: it is not an object with role and content")
    message = dict(raw)
    learned = message.get("weight") != 0
    if message.get("role") == "assistant" and (not learned or not exact):
        message.pop("weight", None)
    try:
        return Said(MESSAGE.validate_python(message if exact else _as_openai(message)), learned)
    except ValidationError as error:
        raise ExchangeError(f"messages.{at}.{first_fault(error)}") from error


def _as_openai(message: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The message as today's OpenAI API spells it: data sets have older and other spellings."""
    if message.get("role") == "function":
        message["role"] = "tool"
    if message.get("role") != "assistant":
        if not message.get("tool_calls"):
            message.pop("tool_calls", None)
        return message
    if isinstance(called := message.get("function_call"), dict):
        message["tool_calls"] = [{"type": "function", "function": called}]
        del message["function_call"]
    if isinstance(calls := message.get("tool_calls"), list):
        message["tool_calls"] = [_call(each) for each in calls]
    for name in _REASONING:
        if message.get("reasoning_content") is None and isinstance(message.get(name), str):
            message["reasoning_content"] = message.pop(name)
    return message


def _call(call: JsonValue) -> JsonValue:
    if isinstance(call, dict) and "function" not in call and "name" in call:
        return {"type": "function", "function": call}
    return call


def _tools(document: JsonObject) -> Tools:
    name = "functions" if document.get("tools") is None and "functions" in document else "tools"
    value = _parsed(document.get(name), name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ExchangeError(f"{name}: it is neither a list of tools nor the JSON text of one")
    tools = [_tool(_parsed(each, f"{name}.{at}"), f"{name}.{at}") for at, each in enumerate(value)]
    return TOOLS.validate_python(tuple(tools))


def _tool(tool: JsonValue, place: str) -> JsonValue:
    if not isinstance(tool, dict):
        raise ExchangeError(f"{place}: it is not the definition of a tool")
    return as_definition(tool)


def _parsed(value: JsonValue, place: str) -> JsonValue:
    """The value, or what its JSON text says; None for an empty text."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        parsed: JsonValue = from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise ExchangeError(f"{place}: its text is not JSON: {error}") from error
    return parsed
