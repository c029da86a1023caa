"""Messages as steps and results of ATIF, and back. `streams.exchange.atif` calls it."""

import json
import mimetypes
from collections.abc import Collection, Mapping
from typing import Any, get_args

from atif import AudioMediaType, AudioSource, ImageMediaType, ImageSource, ObservationResult, Step, ToolCall
from atif import ContentPart as Part
from pydantic import JsonValue
from pydantic_core import from_json

from ratchet_client.messages import MESSAGE, ContentPart, FunctionCall, Message
from ratchet_client.messages import ToolCall as Call

# The name in `extra` under which Ratchet keeps what ATIF has no field for.
OURS = "ratchet"
_SOURCES = {"assistant": "agent", "user": "user"}
_ROLES = {"agent": "assistant", "user": "user", "system": "system"}
_AUDIO_FORMATS: dict[AudioMediaType, str] = {"audio/wav": "wav", "audio/mpeg": "mp3"}


def message_of(message: Message, number: int) -> Step:
    """The step number `number` of a trajectory, which says what `message` says."""
    acts = message.role == "assistant"
    step = Step.model_validate(
        {
            "step_id": number,
            "source": _SOURCES.get(message.role, "system"),
            "message": _parts(message),
            "reasoning_content": message.reasoning_content if acts else None,
            "tool_calls": [_tool_call(call) for call in message.calls if call.function is not None] or None,
        }
    )
    if said_by(step) != message:
        step.extra = {OURS: {"message": _whole(message)}}
    return step


def said_by(step: Step) -> Message:
    """The message of a step, without its results."""
    if (own := _own(step.extra)) is not None:
        return own
    content = _content(step.message)
    return Message(
        role=_ROLES[step.source],
        content=None if step.tool_calls and content == "" else content,
        tool_calls=tuple(_call(call) for call in step.tool_calls) if step.tool_calls else None,
        reasoning_content=step.reasoning_content,
    )


def result_of(message: Message, calls: Collection[str]) -> ObservationResult:
    """A tool's message as a result in the step that has `calls`."""
    identity = message.tool_call_id
    result = ObservationResult(source_call_id=identity if identity in calls else None, content=_parts(message))
    if said_in(result) != message:
        result.extra = {OURS: {"message": _whole(message)}}
    return result


def said_in(result: ObservationResult) -> Message:
    """The message of a result: a tool's where it answers a call, else the user's, as agents without tools see it."""
    if (own := _own(result.extra)) is not None:
        return own
    references = [reference.model_dump(exclude_none=True) for reference in result.subagent_trajectory_ref or ()]
    kept: dict[str, Any] = {"subagent_trajectory_ref": references} if references else {}
    content = "" if result.content is None else _content(result.content)
    if result.source_call_id is None:
        return Message(role="user", content=content, **kept)
    return Message(role="tool", content=content, tool_call_id=result.source_call_id, **kept)


def ours(extra: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what Ratchet wrote into an `extra`."""
    own = (extra or {}).get(OURS)
    return own if isinstance(own, dict) else {}


def _own(extra: Mapping[str, Any] | None) -> Message | None:
    whole = ours(extra).get("message")
    return None if whole is None else MESSAGE.validate_python(whole)


def _whole(message: Message) -> dict[str, JsonValue]:
    whole: dict[str, JsonValue] = json.loads(message.to_json())
    return whole


def _tool_call(call: Call) -> ToolCall:
    assert call.function is not None
    written = call.function.arguments
    try:
        arguments = from_json(written, allow_inf_nan=False)
    except ValueError:
        arguments = None
    exact = isinstance(arguments, dict) and _text_of(arguments) == written
    return ToolCall(
        tool_call_id=call.id,
        function_name=call.function.name,
        arguments=arguments if isinstance(arguments, dict) else {},
        extra=None if exact else {OURS: {"arguments": written}},
    )


def _call(call: ToolCall) -> Call:
    written = ours(call.extra).get("arguments")
    arguments = written if isinstance(written, str) else _text_of(call.arguments)
    return Call(id=call.tool_call_id, function=FunctionCall(name=call.function_name, arguments=arguments))


def _text_of(arguments: Mapping[str, JsonValue]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _parts(message: Message) -> str | list[Part]:
    if not isinstance(message.content, tuple):
        return message.content or ""
    parts = [_part(part) for part in message.content]
    return [part for part in parts if part is not None]


def _part(part: ContentPart) -> Part | None:
    """The part as ATIF has it; None where it has no such parts."""
    if part.text is not None:
        return Part(type="text", text=part.text)
    extra = part.model_extra or {}
    image, audio = extra.get("image_url"), extra.get("input_audio")
    if isinstance(image, dict) and isinstance(url := image.get("url"), str):
        kind = url[5:].partition(";")[0] if url.startswith("data:") else mimetypes.guess_type(url)[0]
        if kind in get_args(ImageMediaType):
            return Part(type="image", source=ImageSource(media_type=kind, path=url))
    if isinstance(audio, dict) and isinstance(data := audio.get("data"), str):
        for kind, name in _AUDIO_FORMATS.items():
            if audio.get("format") == name:
                return Part(type="audio", source=AudioSource(media_type=kind, path=f"data:{kind};base64,{data}"))
    return None


def _content(content: str | list[Part]) -> str | tuple[ContentPart, ...]:
    return content if isinstance(content, str) else tuple(_content_part(part) for part in content)


def _content_part(part: Part) -> ContentPart:
    if part.source is None:
        return ContentPart(type="text", text=part.text)
    path, kind = part.source.path, part.source.media_type
    if isinstance(part.source, ImageSource):
        return ContentPart.model_validate({"type": "image_url", "image_url": {"url": path}})
    if kind in _AUDIO_FORMATS and path.startswith(prefix := f"data:{kind};base64,"):
        audio = {"data": path.removeprefix(prefix), "format": _AUDIO_FORMATS[kind]}
        return ContentPart.model_validate({"type": "input_audio", "input_audio": audio})
    return ContentPart.model_validate({"type": "audio_url", "audio_url": {"url": path}})
