"""Chat messages as the OpenAI API has them: the shape in which everything is captured, stored, trained on and served.

A message is kept whole. Fields and parts that are not named here are kept as they came, because the API grows faster
than this module; only the envelope around messages is strict.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter, model_validator
from pydantic_core import PydanticSerializationError

from ratchet_client.settings import FrozenModel


class Record(FrozenModel):
    """Frozen, strict about its fields, and compact as JSON."""

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_none=True, by_alias=True).encode()


class _Open(Record):
    """A record that keeps fields it does not know. Of these, null is the same as absent."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.__pydantic_extra__:
            _drop_nulls(self.__pydantic_extra__)
        return self


def _drop_nulls(extra: dict[str, object]) -> None:
    for name in [name for name, value in extra.items() if value is None]:
        del extra[name]


def _as_text(arguments: object) -> object:
    """Arguments as the API has them: some servers send the object itself, and null for none."""
    if arguments is None:
        return "{}"
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))


class FunctionCall(_Open):
    """A call of a function: `arguments` is JSON text as the model wrote it, which need not be valid.

    An object is read as its JSON text, null or nothing as an empty object.
    """

    name: str
    arguments: Annotated[str, BeforeValidator(_as_text)] = "{}"


class ToolCall(_Open):
    """One call in an assistant's message. `function` is absent in calls of other kinds, which are kept as they are."""

    id: Annotated[str, BeforeValidator(lambda value: "" if value is None else value)] = ""
    type: Annotated[str, BeforeValidator(lambda value: "function" if value is None else value)] = "function"
    function: FunctionCall | None = None


class ContentPart(_Open):
    """A part of a content that is a list. Parts without `text` refer to images, audio or files, and are kept."""

    type: str
    text: str | None = None


# A tool as the OpenAI API describes it: {"type": "function", "function": {"name", "description", "parameters"}}.
ToolDefinition: TypeAlias = dict[str, JsonValue]
Tools: TypeAlias = tuple[ToolDefinition, ...]
# Names of a function's JSON Schema: of OpenAI, Anthropic, MCP and Gemini.
TOOL_PARAMETERS = ("parameters", "input_schema", "inputSchema", "parameters_json_schema", "parametersJsonSchema")
# What a definition in another form says to its API alone, and not of the function.
_NOT_OF_FUNCTION = frozenset({"type", "function", "cache_control", *TOOL_PARAMETERS})


def is_function(tool: ToolDefinition) -> bool:
    """Return whether a tool is a function with a name: chat templates can write no other."""
    function = tool.get("function")
    return isinstance(function, dict) and isinstance(name := function.get("name"), str) and name != ""


def as_definition(tool: ToolDefinition) -> ToolDefinition:
    """The tool in the form above, where another API has its name and schema side by side; any other as it is."""
    if isinstance(tool.get("function"), dict) or not isinstance(tool.get("name"), str):
        return tool
    schema = next((found for key in TOOL_PARAMETERS if (found := tool.get(key)) is not None), None)
    if tool.get("type") not in (None, "function") and schema is None:
        return tool
    said: ToolDefinition = {
        key: value for key, value in tool.items() if value is not None and key not in _NOT_OF_FUNCTION
    }
    return {"type": "function", "function": said if schema is None else said | {"parameters": schema}}


# What an assistant says by fields of which a text model is shown nothing, and no chat template writes.
_NOT_TEXT = ("audio", "function_call", "images", "refusal")
_PLAIN_NAME = re.compile(r"[a-z_]{1,32}")


class Message(_Open):
    """One message of a chat.

    `tool_calls` and `reasoning_content`, what the model thought before it wrote the rest, are an assistant's alone;
    `tool_call_id` says which call a tool's message answers.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    # Nearly all contents are texts: tried in this order, they cost the least.
    content: Annotated[str | tuple[ContentPart, ...] | None, Field(union_mode="left_to_right")] = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    # In the place of the other, so that there is one call for each message: most of reading an event is here.
    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.__pydantic_extra__:
            _drop_nulls(self.__pydantic_extra__)
        if self.role != "assistant" and (self.reasoning_content is not None or self.tool_calls):
            if self.reasoning_content or self.tool_calls:
                raise ValueError(
                    "only an assistant's message has reasoning_content or tool_calls: leave them out of the others"
                )
            self.__dict__["reasoning_content"] = None  # an empty one is none
        return self

    @property
    def text(self) -> str:
        """The text of the content: of a list, its texts joined by line feeds; empty where there is none."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text is not None)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, none for a message without."""
        return self.tool_calls or ()

    @property
    def is_plain(self) -> bool:
        """Return whether it has no calls, no parts and no fields that are not named here, as most messages."""
        return not self.tool_calls and not self.__pydantic_extra__ and not isinstance(self.content, tuple)

    @property
    def is_readable(self) -> bool:
        """Return whether a text model can read all of it: no image, audio or file, and no call but of functions."""
        return next(self.unreadable(), None) is None

    def unreadable(self) -> Iterator[str]:
        """The kinds of its parts and calls that no text model can read: `image_url`, `file`, a call that is `custom`.

        They are the sender's words, so one that is not a plain name is given as `unknown`.
        """
        if self.is_plain:
            return iter(())
        parts = self.content if isinstance(self.content, tuple) else ()
        kinds = [part.type for part in parts if part.text is None]
        kinds += [each.type for each in self.calls if each.function is None]
        kinds += [name for name in _NOT_TEXT if (self.__pydantic_extra__ or {}).get(name)]
        return (kind if _PLAIN_NAME.fullmatch(kind) else "unknown" for kind in kinds)

    def spoken(self) -> "Message":
        """The message without its reasoning, as most APIs want it back in later turns."""
        return self if self.reasoning_content is None else self.model_copy(update={"reasoning_content": None})

    def texts(self) -> Iterable[str]:
        """Every text of the message: its content, its reasoning, and the names and arguments of its calls."""
        thought = () if self.reasoning_content is None else (self.reasoning_content,)
        if not self.tool_calls:
            return (self.text, *thought)
        called = (each.function for each in self.tool_calls if each.function is not None)
        return (self.text, *thought, *(text for call in called for text in (call.name, call.arguments)))


Messages: TypeAlias = tuple[Message, ...]
MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)
MESSAGES: TypeAdapter[Messages] = TypeAdapter(Messages)
TOOLS: TypeAdapter[Tools] = TypeAdapter(Tools)


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str | None, *calls: ToolCall, reasoning: str | None = None) -> Message:
    """An assistant's message with a text, tool calls, or both."""
    return Message(role="assistant", content=text, tool_calls=calls or None, reasoning_content=reasoning)


def call(name: str, arguments: str, identity: str = "") -> ToolCall:
    """A call of the function `name` with `arguments`, which are JSON text."""
    return ToolCall(id=identity, function=FunctionCall(name=name, arguments=arguments))


def tool_result(text: str, identity: str = "") -> Message:
    """The answer to the tool call with the id `identity`."""
    return Message(role="tool", content=text, tool_call_id=identity or None)


def text_of(messages: Iterable[Message]) -> str:
    """The texts of messages, joined by line feeds."""
    return "\n".join(message.text for message in messages)


def as_json(messages: Messages) -> str:
    """The messages as compact JSON, without what is absent: what `MESSAGES` reads again."""
    return MESSAGES.dump_json(messages, exclude_none=True).decode()


def escaped(message: Message) -> Message:
    """The message with every half of a surrogate pair, which JSON in UTF-8 cannot hold, written as `\\ud800`.

    A message without any, which is nearly every one, is returned itself.
    """
    try:
        message.to_json()
    except PydanticSerializationError:
        return MESSAGE.validate_python(_without_surrogates(message.model_dump(exclude_none=True)))
    return message


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(each) for key, each in value.items()}
    return [*map(_without_surrogates, value)] if isinstance(value, list | tuple) else value


def same_message(one: Message, other: Message) -> bool:
    """Return whether two messages say the same: they differ in reasoning, annotations and spelling at most.

    Clients send an earlier reply back with other annotations, an empty content for none, a text as a list of parts or
    without the white space around it, and arguments of calls as their own JSON writer writes them.
    """
    return one == other or _said(one) == _said(other)


def same_conversation(one: Sequence[Message], other: Sequence[Message]) -> bool:
    """Return whether two chats say the same, message by message.

    Results of calls that were made side by side may come in any order, where ids say what they answer.
    """
    if len(one) != len(other):
        return False
    return all(map(same_message, one, other)) or all(map(same_message, _by_call(one), _by_call(other)))


def _by_call(messages: Sequence[Message]) -> Iterator[Message]:
    """The messages with the results of tools that follow each other in the order of the ids that they answer."""
    for is_result, run in groupby(messages, lambda message: message.role == "tool"):
        found = list(run)
        identified = is_result and all(message.tool_call_id for message in found)
        yield from sorted(found, key=lambda message: message.tool_call_id or "") if identified else found


def _said(message: Message) -> tuple[object, ...]:
    text: object = message.text if message.is_readable else message.content
    if isinstance(text, str) and message.role == "assistant":
        text = text.strip()
    calls = tuple(
        (each.id, each.model_dump_json())
        if each.function is None
        else (each.id, each.function.name, _same_arguments(each.function.arguments))
        for each in message.calls
    )
    return message.role, text, calls, message.tool_call_id or None


def _same_arguments(arguments: str) -> str:
    """Arguments in one spelling: some servers and clients write none, or null, where others write an empty object."""
    if not arguments.strip():
        return "{}"
    try:
        value = json.loads(arguments, strict=False, parse_float=_number)
        return "{}" if value is None else json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def _number(digits: str) -> int | float:
    """A number as JavaScript has it, where 1.0 is 1."""
    value = float(digits)
    return int(value) if value.is_integer() else value
