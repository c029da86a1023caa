"""A chat as tokens, message by message, equal byte for byte to what the server makes of it.

The special token that opens each message also separates the tokenizer's words, so messages that are tokenised one by
one and concatenated are the tokens of the whole chat. That holds for templates in which a message's rendering does not
depend on its neighbours; `ChatTokenizer` refuses any other at its start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from streams.errors import ConfigurationError
from streams.events import Message

# Occurs in no chat template.
_MARK = "\ufffc"


@dataclass(frozen=True, slots=True)
class MessageTokens:
    """A message's tokens; `content` is the half-open range of what its author wrote, the end-of-turn token included."""

    ids: tuple[int, ...]
    content: tuple[int, int]


class ChatTokenizer:
    """Tokenises chats of one base model."""

    def __init__(self, base: Path) -> None:
        """Raises `ConfigurationError` when the chat template cannot be rendered message by message."""
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)
        self._seen: dict[Message, MessageTokens] = {}
        self._check()

    def message(self, message: Message) -> MessageTokens:
        cached = self._seen.get(message)
        if cached is None:
            cached = self._seen[message] = self._tokenise(message)
        return cached

    def text(self, messages: Sequence[Message]) -> str:
        """The whole chat as the server renders it, without a prompt for the next reply."""
        return self._render([message.model_dump() for message in messages])

    def encode(self, text: str) -> list[int]:
        """The tokens of a rendered text; the template has put in every special token already."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _tokenise(self, message: Message) -> MessageTokens:
        # The words themselves may occur in the template's own, such as "assistant", so a mark finds their place.
        head, tail = self._alone(message.model_copy(update={"content": _MARK})).split(_MARK)
        ids = self.encode(self._alone(message))
        # What follows the content begins with the token that ends the turn: a model must learn to stop there.
        end = len(ids) - len(self.encode(tail)) + bool(tail)
        return MessageTokens(tuple(ids), (len(self.encode(head)), end))

    def _alone(self, message: Message) -> str:
        if message.role == "system":
            return self._render([message.model_dump()])
        # A leading system message keeps templates from adding one of their own.
        system = {"role": "system", "content": "-"}
        return self._render([system, message.model_dump()])[len(self._render([system])) :]

    def _render(self, messages: list[dict[str, str]]) -> str:
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False))

    def _check(self) -> None:
        chat = [
            Message(role="system", content="Rules."),
            Message(role="user", content="You see a desk.\n\nIt is closed."),
            Message(role="assistant", content="open desk"),
            Message(role="user", content="Done. [score 0.50]"),
        ]
        by_message = [token for message in chat for token in self.message(message).ids]
        if by_message != self.encode(self.text(chat)):
            raise ConfigurationError(
                f"the chat template of {self._tokenizer.name_or_path} renders a message differently in context, "
                "so episodes cannot be packed: choose another base model"
            )
