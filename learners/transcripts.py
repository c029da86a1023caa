"""Chats as text, for questions about them: of lessons, of rationales, and of which action led to a state. Pure."""

from ratchet_client.messages import Message, Messages


def transcript(messages: Messages) -> str:
    """A chat as text, without its system message."""
    return "\n".join(f"{each.role}: {said(each)}" for each in messages if each.role != "system")


def said(message: Message) -> str:
    """The content and the calls of a message as one text."""
    calls = (call.model_dump_json(include={"function"}, exclude_none=True) for call in message.calls)
    return " ".join(part for part in (message.text.strip(), *calls) if part)
