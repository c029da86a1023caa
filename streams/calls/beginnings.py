"""Says whether a call begins an episode or continues one, as far as the call alone tells. Pure.

The gateway asks it during a canary: an episode that began with the champion stays with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from streams.calls.records import Face

_SAID_BEFORE = frozenset({"user", "system", "developer"})


def may_begin(face: Face, body: Mapping[str, Any]) -> bool:
    """Return whether nothing in a request shows that its episode had a reply before.

    Examples in the form of earlier replies count as replies. A prompt for completions tells nothing, so it may begin
    one.

    >>> may_begin(Face.CHAT, {"messages": [{"role": "user", "content": "Hi."}]})
    True
    >>> may_begin(Face.RESPONSES, {"input": "And then?", "previous_response_id": "resp_1"})
    False
    """
    if face is Face.COMPLETIONS:
        return True
    if face is Face.RESPONSES:
        return not body.get("previous_response_id") and not body.get("conversation") and _only_said(body.get("input"))
    return _only_said(body.get("messages"))


def _only_said(messages: object) -> bool:
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return True
    return all(
        isinstance(message, str) or (isinstance(message, Mapping) and message.get("role") in _SAID_BEFORE)
        for message in messages
    ) and not any(_answers_a_tool(message) for message in messages)


def _answers_a_tool(message: object) -> bool:
    """Anthropic's results of tools are parts of a message of the user."""
    content = message.get("content") if isinstance(message, Mapping) else None
    return isinstance(content, list) and any(
        isinstance(part, Mapping) and part.get("type") == "tool_result" for part in content
    )
