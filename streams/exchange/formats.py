"""The formats of conversations, by name. One is a module with `read` and `write`; list a new one here."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from streams.exchange import atif, chat_jsonl
from streams.exchange.conversation import Conversation, JsonObject


class FormatName(StrEnum):
    """The formats that can be imported and exported."""

    CHAT_JSONL = "chat-jsonl"
    ATIF = "atif"


@dataclass(frozen=True, slots=True)
class Format:
    """`read` makes a conversation of a document or raises `ExchangeError`; `write` makes a line of JSON of one."""

    read: Callable[[JsonObject], Conversation]
    write: Callable[[Conversation], bytes]


FORMATS = {
    FormatName.CHAT_JSONL: Format(chat_jsonl.read, chat_jsonl.write),
    FormatName.ATIF: Format(atif.read, atif.write),
}
