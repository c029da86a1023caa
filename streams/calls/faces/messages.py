"""Messages of the form that all faces are brought to, from what their requests and replies hold."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from ratchet_client.messages import ContentPart, Message, ToolCall, Tools, as_definition
from streams.calls.absence import Absence
from streams.calls.faces.bodies import refuse
from streams.calls.json_values import compact

# Reasons for which a reply ended that say that it is not all of what the model would have said.
_WITHHELD = frozenset({"content_filter"})
_ENDED_EARLY = frozenset({"abort", "cancelled", "canceled", "incomplete"})
_FAILED = frozenset({"error", "failed"})
CUT_BY_LENGTH = frozenset({"length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"})


def message_of(told: dict[str, Any], where: str) -> Message:
    """The message with these fields. Raises `AbsentContentError` where they are none; the text quotes nothing."""
    try:
        return Message.model_validate(told)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors(include_input=False, include_url=False)[0]["loc"])
        refuse(Absence.NOT_UNDERSTOOD, f"{where} is not a message{f': {place}' if place else ''}")


def tools_of(value: JsonValue) -> Tools:
    """The tools that a request offers, functions in the form of chat completions; none for null."""
    if value is None:
        return ()
    if not isinstance(value, list):
        refuse(Absence.NOT_UNDERSTOOD, "the request's tools are not a list")
    return tuple(
        as_definition(tool) if isinstance(tool, dict) else refuse(Absence.NOT_UNDERSTOOD, "a tool is not an object")
        for tool in value
    )


def joined(parts: Sequence[ContentPart]) -> str | tuple[ContentPart, ...] | None:
    """The content that parts are: texts alone joined by line feeds, None for none."""
    if all(part.type == "text" and part.text is not None for part in parts):
        return "\n".join(part.text or "" for part in parts) if parts else None
    return tuple(parts)


def reply_message(
    content: str | tuple[ContentPart, ...] | None,
    calls: Iterable[ToolCall],
    reasoning: str | None,
    refusal: str | None = None,
    **more: JsonValue,
) -> dict[str, Any]:
    """The fields of an assistant's message: a content that is empty is None beside calls, and "" where nothing is."""
    made = tuple(calls)
    said = more | ({"refusal": refusal} if refusal else {})
    return {
        "role": "assistant",
        "content": content or (None if made or said else ""),
        "tool_calls": made or None,
        "reasoning_content": reasoning or None,
        **said,
    }


def ended(message: Message, reason: JsonValue) -> Message:
    """The message of a reply that ended for this reason, if it is whole.

    One that a limit of tokens ended, or that says nothing, is what the client got. Calls that were cut are none.

    Raises `AbsentContentError`.
    """
    if not isinstance(reason, str) or not reason:
        refuse(Absence.INCOMPLETE, "the reply has no end")
    if reason in _WITHHELD:
        refuse(Absence.CUT_OFF, f"the reply ended early: {reason}")
    if reason in _ENDED_EARLY:
        refuse(Absence.INCOMPLETE, f"the reply ended early: {reason}")
    if reason in _FAILED:
        refuse(Absence.FAILED, f"the reply ended early: {reason}")
    if reason in ("tool_calls", "tool_use") and not message.calls and message.is_readable:
        refuse(Absence.INCOMPLETE, "the reply ended with calls of tools and has none")
    if reason in CUT_BY_LENGTH and not all(_is_json(call) for call in message.calls):
        refuse(Absence.CUT_OFF, f"a call of a tool was cut: {reason}")
    return message


def canonical_arguments(value: JsonValue, where: str) -> str:
    """Arguments that an API has as an object, as JSON text; of a streamed text, the same for every spelling."""
    if not isinstance(value, str):
        return compact({} if value is None else value)
    if not value.strip():
        return "{}"
    try:
        return compact(from_json(value, allow_inf_nan=False))
    except ValueError:
        refuse(Absence.CUT_OFF, f"the arguments of {where} are not JSON")


def _is_json(call: ToolCall) -> bool:
    if call.function is None:
        return False
    try:
        from_json(call.function.arguments)
    except ValueError:
        return False
    return True
