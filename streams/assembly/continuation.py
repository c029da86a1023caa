"""The comparison by which a call is known to continue another: digests of what was seen and said. Pure.

Reasoning does not count: most agents send it back never, or only until the turn is over. Neither do blanks around a
reply and the spelling of its arguments, which agents change before they put it into the history.
"""

from collections.abc import Iterable

from ratchet_client.ids import content_id
from ratchet_client.messages import Message
from streams.calls.chat import Chat
from streams.calls.json_values import compact
from streams.otlp.dialects.texts import decoded


def asked(chat: Chat) -> str:
    """Of all that the model saw: the same for a call that is made again."""
    return _digest(chat.messages)


def answered(chat: Chat) -> str:
    """Of all that was seen and the reply: what a call that continues this one has as `continued`."""
    return content_id(_digest(chat.messages), repr(_as_said(chat.action)))


def continued(chat: Chat) -> str | None:
    """Of what was seen up to the newest reply: `answered` of the call that this one continues.

    None where nothing was replied before, or nothing came after the reply.
    """
    replied = newest_reply(chat)
    if replied is None:
        return None
    return content_id(_digest(chat.messages[:replied]), repr(_as_said(chat.messages[replied])))


def newest_reply(chat: Chat) -> int | None:
    """The place of the newest reply among what was seen; None where there is none, or nothing came after it."""
    replies = (place for place, message in enumerate(chat.messages) if message.role == "assistant")
    found = max(replies, default=None)
    return found if found is not None and found + 1 < len(chat.messages) else None


def _digest(messages: Iterable[Message]) -> str:
    return content_id(*(repr(_as_seen(message)) for message in messages))


def _as_seen(message: Message) -> tuple[object, ...]:
    """Return what a model saw of a message: all but its reasoning and its annotations."""
    ids = tuple(call.id for call in message.calls)
    content = message.content if _has_media(message) else message.text
    return (message.role, message.tool_call_id, ids, content, _calls(message))


def _as_said(reply: Message) -> tuple[object, ...]:
    """Return what a reply says and calls, the same for the reply itself and for it in a history."""
    return (reply.content if _has_media(reply) else reply.text.strip(), _calls(reply))


def _calls(message: Message) -> tuple[object, ...]:
    return tuple(
        (call.function.name, _same_json(call.function.arguments)) if call.function is not None else call.type
        for call in message.calls
    )


def _has_media(message: Message) -> bool:
    return isinstance(message.content, tuple) and any(part.text is None for part in message.content)


def _same_json(text: str) -> str:
    """The text, or another of the same JSON value; no arguments are an empty object."""
    value = decoded(text or "{}")
    return text if isinstance(value, str) else compact(value, sort_keys=True)
