"""Messages of chats as pages show them: cut where they are long, with the address of the whole."""

import json

from daemon.pages.rendering import CUT_AT
from ratchet_client.messages import Message
from ratchet_client.settings import FrozenModel


class Said(FrozenModel):
    """A message by its parts. `whole` is the address of all of it, empty where nothing is cut."""

    role: str
    thinking: str
    text: str
    calls: tuple[str, ...]
    characters: int
    whole: str


def said(message: Message, address: str) -> Said:
    """The message as it is shown; the whole of it is at `address`."""
    calls = tuple(
        f"{each.function.name}({each.function.arguments})" if each.function else each.model_dump_json()
        for each in message.calls
    )
    texts = (message.text, message.reasoning_content or "", *calls)
    is_cut = any(len(each) > CUT_AT for each in texts) or bool(_others(message))
    return Said(
        role=message.role,
        thinking=message.reasoning_content or "",
        text=message.text,
        calls=calls,
        characters=sum(map(len, texts)),
        whole=address if is_cut else "",
    )


def whole_message(message: Message) -> str:
    """All of a message, as JSON that is indented, behind its text."""
    return f"{message.text}\n\n{json.dumps(message.model_dump(exclude_none=True), indent=1, ensure_ascii=False)}\n"


def _others(message: Message) -> tuple[str, ...]:
    """The kinds of the parts of a content that are no text: images, audio, files."""
    if message.content is None or isinstance(message.content, str):
        return ()
    return tuple(part.type for part in message.content if part.text is None)
