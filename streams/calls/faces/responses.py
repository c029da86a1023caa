"""`/v1/responses`: what was said before are items, and what the model says in one turn are items too.

Items of an assistant that follow each other are one message, in the request and in the reply: its reasoning, its text,
its calls. What a request only refers to, by the id of a response, a conversation, an item or a prompt, is not in it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from pydantic import JsonValue

from ratchet_client.messages import ContentPart, FunctionCall, Message, Messages, ToolCall, Tools, assistant, user
from streams.calls.absence import Absence
from streams.calls.faces.bodies import Body, Stream, refuse
from streams.calls.faces.messages import ended, joined, message_of, reply_message, tools_of
from streams.calls.json_values import compact, mapping, word
from streams.calls.media import kept_part, media_part

# Gives the messages that a response with this id ended, its own the last and its instructions not among them.
Earlier: TypeAlias = Callable[[str], Messages | None]

_ELSEWHERE = ("conversation", "prompt")
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text"})
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_ENDS = {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}


def seen(request: Body, earlier: Earlier | None = None) -> Messages:
    """The messages of a request, its instructions first.

    Raises `AbsentContentError`: incomplete where the request refers to what `earlier` does not know.
    """
    for name in _ELSEWHERE:
        if request.get(name) is not None:
            refuse(Absence.INCOMPLETE, f"the request refers to a {name} that is kept elsewhere")
    return (*instructions(request), *_before(request, earlier), *told(request))


def _before(request: Body, earlier: Earlier | None) -> Messages:
    previous = request.get("previous_response_id")
    if not isinstance(previous, str):
        return ()
    known = earlier(previous) if earlier is not None else None
    if known is None:
        refuse(Absence.INCOMPLETE, "the request continues a response that is not known (previous_response_id)")
    return known


def instructions(request: Body) -> Messages:
    """The messages that a request's `instructions` are, none without any."""
    value = request.get("instructions")
    if isinstance(value, list):
        return tuple(_messages(value, "the request's instructions"))
    return (Message(role="system", content=value),) if isinstance(value, str) and value else ()


def told(request: Body) -> Messages:
    """The messages of a request's `input` alone."""
    value = request.get("input")
    if isinstance(value, str):
        return (user(value),)
    if not isinstance(value, list):
        refuse(Absence.NOT_UNDERSTOOD, "the request's input is neither a text nor a list of items")
    return tuple(_messages(value, "the request's input"))


def offered(request: Body) -> Tools:
    """The tools of a request; those that OpenAI's servers run are kept as they came."""
    return tools_of(request.get("tools"))


def reply_of(reply: Body | Stream) -> Message:
    """The reply. Raises `AbsentContentError` if it is not whole."""
    response = _assembled(reply) if isinstance(reply, Stream) else reply
    output, status = response.get("output"), response.get("status")
    if not isinstance(output, list):
        refuse(Absence.NOT_UNDERSTOOD, "the reply has no output")
    reason: JsonValue = "stop"
    if status == "incomplete":
        reason = mapping(response.get("incomplete_details")).get("reason") or "incomplete"
    elif status in ("failed", "cancelled"):
        reason = status
    elif status != "completed":
        reason = None
    messages = list(_messages(output, "the reply"))
    if not messages:
        return ended(assistant(""), reason)
    if len(messages) != 1 or messages[0].role != "assistant":
        refuse(Absence.NOT_UNDERSTOOD, "the reply is not one assistant's message")
    return ended(messages[0], reason)


def response_id(reply: Body | Stream) -> str | None:
    """The id of a reply, which later requests may name as their `previous_response_id`."""
    bodies = [mapping(event.get("response")) for _, event in reply.events] if isinstance(reply, Stream) else [reply]
    return next((found for body in bodies if isinstance(found := body.get("id"), str)), None)


def _assembled(stream: Stream) -> Body:
    """The response that the last event of a stream tells; its items by their own events where that leaves them out."""
    items: dict[int, JsonValue] = {}
    for name, event in stream.events:
        kind = word(event.get("type")) or name
        if kind == "response.output_item.done":
            index = event.get("output_index")
            items[index if isinstance(index, int) else len(items)] = event.get("item")
        elif kind in _ENDS:
            response = mapping(event.get("response"))
            return response if response.get("output") else response | {"output": [items[at] for at in sorted(items)]}
    refuse(Absence.INCOMPLETE, "the streamed reply has no end")


def _messages(items: Iterable[JsonValue], where: str) -> Iterator[Message]:
    turn = _Turn(where)
    for index, item in enumerate(map(mapping, items)):
        place = f"item {index} of {where}"
        if turn.takes(item, place):
            continue
        yield from turn.end()
        yield _other(item, place)
    yield from turn.end()


class _Turn:
    """Items of an assistant that follow each other."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._begin()

    def _begin(self) -> None:
        self._any = False
        self._parts: list[ContentPart] = []
        self._calls: list[ToolCall] = []
        self._thoughts: list[str] = []
        self._refusals: list[str] = []

    def takes(self, item: Body, where: str) -> bool:
        """Take in an item if it is an assistant's."""
        kind = word(item.get("type")) or "message"
        if kind == "message":
            if item.get("role") != "assistant":
                return False
            self._say(item.get("content"), where)
        elif kind == "reasoning":
            self._thoughts += _thoughts(item)
        elif kind in ("function_call", "custom_tool_call"):
            self._calls.append(_call(item, where))
        elif kind.endswith("_output") or kind in ("item_reference", "mcp_approval_response"):
            return False
        else:
            # Calls that the provider's own tools answered, and marks of its own.
            self._parts.append(kept_part(kind, item))
        self._any = True
        return True

    def _say(self, content: JsonValue, where: str) -> None:
        if isinstance(content, str):
            content = [{"type": "output_text", "text": content}]
        if not isinstance(content, list):
            refuse(Absence.NOT_UNDERSTOOD, f"{where} has no content")
        for part in map(mapping, content):
            if part.get("type") == "refusal":
                self._refusals.append(str(part.get("refusal")))
            elif part.get("text") != "" or word(part.get("type")) not in _TEXTS:
                self._parts.append(_part(part, where))

    def end(self) -> Iterator[Message]:
        """The message that the items are, if there were any."""
        if self._any:
            fields = reply_message(
                joined(self._parts), self._calls, "\n".join(self._thoughts), "\n".join(self._refusals)
            )
            yield message_of(fields, self._where)
        self._begin()


def _thoughts(item: Body) -> list[str]:
    """The texts of what the model thought, of its summary where that is all that is told."""
    for name in ("content", "summary"):
        listed = item.get(name)
        texts = [mapping(part).get("text") for part in listed] if isinstance(listed, list) else []
        if found := [text for text in texts if isinstance(text, str) and text]:
            return found
    return []


def _call(item: Body, where: str) -> ToolCall:
    name = item.get("name")
    if not isinstance(name, str) or not name:
        refuse(Absence.NOT_UNDERSTOOD, f"{where} is a call of a tool without a name")
    identity = value if isinstance(value := item.get("call_id") or item.get("id"), str) else ""
    if item.get("type") == "custom_tool_call":
        custom = {"name": name, "input": item.get("input")}
        return ToolCall.model_validate({"id": identity, "type": "custom", "custom": custom})
    arguments = item.get("arguments")
    written = arguments if isinstance(arguments, str) else compact({} if arguments is None else arguments)
    return ToolCall(id=identity, function=FunctionCall(name=name, arguments=written))


def _other(item: Body, where: str) -> Message:
    """An item that is not an assistant's."""
    kind = word(item.get("type")) or "message"
    if kind == "item_reference":
        refuse(Absence.INCOMPLETE, f"{where} refers to an item that is kept elsewhere")
    if kind in _OUTPUTS:
        output = item.get("output")
        parts = [_part(mapping(part), where) for part in output] if isinstance(output, list) else []
        text = output if isinstance(output, str) else "" if output is None else compact(output)
        content = (joined(parts) or "") if isinstance(output, list) else text
        return message_of({"role": "tool", "content": content, "tool_call_id": item.get("call_id")}, where)
    if kind != "message":
        role, answers = ("user", None) if kind == "mcp_approval_response" else ("tool", item.get("call_id"))
        return message_of({"role": role, "content": [kept_part(kind, item)], "tool_call_id": answers}, where)
    said = item.get("content")
    if not isinstance(said, str | list):
        refuse(Absence.NOT_UNDERSTOOD, f"{where} has no content")
    parts = [_part(mapping(part), where) for part in said] if isinstance(said, list) else []
    content = said if isinstance(said, str) else joined(parts) or ""
    return message_of({"role": item.get("role"), "content": content}, where)


def _part(part: Body, where: str) -> ContentPart:
    kind = word(part.get("type"))
    if not kind:
        refuse(Absence.NOT_UNDERSTOOD, f"a part of {where} has no type")
    if kind in _TEXTS:
        text = part.get("text")
        return ContentPart(type="text", text=text if isinstance(text, str) else "")
    return media_part(kind, part) or kept_part(kind, part)
