"""`/v1/messages`, Anthropic's: contents are blocks, and the results of tools are a user's.

As in vLLM, a message's thinking is one text, and the line of Claude Code's that differs from call to call is left out.
"""

from collections.abc import Iterator

from pydantic import JsonValue

from ratchet_client.messages import ContentPart, FunctionCall, Message, Messages, ToolCall, Tools
from streams.calls.absence import Absence
from streams.calls.faces.bodies import Body, Stream, refuse
from streams.calls.faces.messages import canonical_arguments, ended, joined, message_of, reply_message, tools_of
from streams.calls.json_values import mapping, word
from streams.calls.media import kept_part, media_part

_BILLING = "x-anthropic-billing-header"
_CALLS = ("tool_use",)
# Claude Code's own roles, as vLLM reads them.
_ROLES = {"ctx": "user", "msg": "user"}
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def seen(request: Body) -> Messages:
    """The messages of a request, the system's text first."""
    listed = request.get("messages")
    if not isinstance(listed, list) or not listed:
        refuse(Absence.NOT_UNDERSTOOD, "the request has no messages")
    found: list[Message] = []
    if system := _system(request.get("system")):
        found.append(Message(role="system", content=system))
    for index, item in enumerate(listed):
        found += _messages(mapping(item), f"message {index} of the request")
    return tuple(found)


def offered(request: Body) -> Tools:
    """The tools of a request; those of Anthropic's own that have no schema are kept as they came."""
    return tools_of(request.get("tools"))


def reply_of(reply: Body | Stream) -> Message:
    """The reply. Raises `AbsentContentError` if it is not whole."""
    whole = _assembled(reply) if isinstance(reply, Stream) else reply
    content, reason = whole.get("content"), whole.get("stop_reason")
    if not isinstance(content, list):
        refuse(Absence.NOT_UNDERSTOOD, "the reply has no content")
    if not reason:
        refuse(Absence.INCOMPLETE, "the reply has no end")
    told = _said(content, "the reply")
    if reason == "refusal":
        told["refusal"] = told["content"] if isinstance(told["content"], str) and told["content"] else "refused"
    return ended(message_of(told, "the reply"), reason)


def _system(value: JsonValue) -> str:
    if isinstance(value, list):
        texts = [text for block in value if isinstance(text := mapping(block).get("text"), str)]
        return "".join(text for text in texts if not text.startswith(_BILLING))
    return value if isinstance(value, str) else ""


def _messages(message: Body, where: str) -> Iterator[Message]:
    role, content = word(message.get("role")), message.get("content")
    role = _ROLES.get(role, role)
    blocks: list[JsonValue] = [{"type": "text", "text": content}] if isinstance(content, str) else []
    blocks = content if isinstance(content, list) else blocks
    if content is None or role not in ("user", "assistant", "system"):
        refuse(Absence.NOT_UNDERSTOOD, f"{where} is not one of a user, an assistant or the system")
    if role == "assistant":
        yield message_of(_said(blocks, where), where)
        return
    if role == "system":
        yield Message(role="system", content=_system(blocks))
        return
    run: list[ContentPart] = []
    for block in map(mapping, blocks):
        if block.get("type") == "tool_result":
            if run:
                yield Message(role="user", content=joined(run))
            yield _result(block, where)
            run = []
        else:
            run.append(_part(block, where))
    if run or not blocks:
        yield Message(role="user", content=joined(run) or "")


def _result(block: Body, where: str) -> Message:
    content = block.get("content")
    parts = [_part(mapping(item), where) for item in content] if isinstance(content, list) else []
    told: dict[str, object] = {
        "role": "tool",
        "content": (content if isinstance(content, str) else joined(parts)) or "",
        "tool_call_id": block.get("tool_use_id"),
    }
    return message_of(told | ({"is_error": True} if block.get("is_error") is True else {}), where)


def _said(blocks: list[JsonValue], where: str) -> dict[str, object]:
    """The fields of the assistant's message that blocks are."""
    parts: list[ContentPart] = []
    calls: list[ToolCall] = []
    thoughts: list[str] = []
    for block in map(mapping, blocks):
        kind = word(block.get("type"))
        if kind == "thinking":
            thoughts.append(thought if isinstance(thought := block.get("thinking"), str) else "")
        elif kind == "redacted_thinking":
            continue
        elif kind in _CALLS:
            calls.append(_call(block, where))
        elif kind == "text" and not block.get("text"):
            continue
        else:
            parts.append(_part(block, where))
    return reply_message(joined(parts), calls, "".join(thoughts))


def _call(block: Body, where: str) -> ToolCall:
    name, identity = block.get("name"), block.get("id")
    if not isinstance(name, str) or not name:
        refuse(Absence.NOT_UNDERSTOOD, f"a call of a tool in {where} has no name")
    arguments = canonical_arguments(block.get("input"), f"a call in {where}")
    return ToolCall(
        id=identity if isinstance(identity, str) else "", function=FunctionCall(name=name, arguments=arguments)
    )


def _part(block: Body, where: str) -> ContentPart:
    kind = word(block.get("type"))
    if not kind:
        refuse(Absence.NOT_UNDERSTOOD, f"a block of {where} has no type")
    if kind == "text":
        text = block.get("text")
        return ContentPart(type="text", text=text if isinstance(text, str) else "")
    return media_part(kind, block) or kept_part(kind, block)


def _assembled(stream: Stream) -> Body:
    """The message that the events of a stream make."""
    blocks: dict[int, Body] = {}
    open_blocks: set[int] = set()
    message: Body = {}
    for name, event in stream.events:
        kind = word(event.get("type")) or name
        index = value if isinstance(value := event.get("index"), int) else len(blocks)
        if kind == "message_start":
            message = dict(mapping(event.get("message")))
            content = message.get("content")
            blocks = dict(enumerate(map(mapping, content))) if isinstance(content, list) else {}
        elif kind == "content_block_start":
            blocks[index] = dict(mapping(event.get("content_block")))
            open_blocks.add(index)
        elif kind == "content_block_delta" and index in blocks:
            _grow(blocks[index], mapping(event.get("delta")))
        elif kind == "content_block_stop":
            open_blocks.discard(index)
        elif kind == "message_delta":
            message |= {key: value for key, value in mapping(event.get("delta")).items() if value is not None}
    if not message.get("stop_reason") or open_blocks:
        refuse(Absence.INCOMPLETE, "the streamed reply has no end")
    return message | {"content": [_closed(blocks[index]) for index in sorted(blocks)]}


def _grow(block: Body, delta: Body) -> None:
    name = _DELTAS.get(word(delta.get("type")))
    if name is not None and isinstance(more := delta.get(name), str):
        before = block.get(name)
        block[name] = (before if isinstance(before, str) else "") + more


def _closed(block: Body) -> Body:
    written = block.pop("partial_json", None)
    return block | {"input": written} if isinstance(written, str) and written.strip() else block
