"""The id of a task that nobody named: it follows from how its conversations begin."""

from collections.abc import Sequence

from ratchet_client.ids import content_id
from ratchet_client.messages import Message


def task_of(messages: Sequence[Message]) -> str:
    """A hash of the messages up to the user's first: a chat and its continuation must fall into the same split.

    >>> from ratchet_client.messages import assistant, user
    >>> task_of([user("Hello.")]) == task_of([user("Hello."), assistant("Hi."), user("Well?")])
    True
    """
    parts: list[str] = []
    for message in messages:
        # The instructions are one message to some instrumentations, whichever of the two roles they have.
        parts += ("system" if message.role == "developer" else message.role, message.text)
        if not message.is_readable:
            parts.append(message.model_dump_json(include={"content"}))
        for call in message.calls:
            parts += (call.function.name, call.function.arguments) if call.function is not None else (call.type,)
        if message.role == "user":
            break
    return content_id("otlp-task", *parts)
