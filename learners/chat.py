"""Chats as tokens: the one rendering that the embedded server, the trainer and the probes share.

A chat is tokenised whole, as the chat template renders it, so that the prompt a model is trained on is the prompt it is
served with, whatever the template does: a system message of its own, a BOS token, a message that is written differently
in context. Text is tokenised as text: a special token that somebody writes into a message is not that token.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from learners.chat_template import ChatTemplate
from learners.reply_format import ReplyFormat, reply_format
from learners.special_tokens import MARK, SpecialTokens
from ratchet_client.errors import ConfigurationError
from ratchet_client.messages import Message, Tools, assistant, user
from streams.errors import ChatTemplateError


@dataclass(frozen=True, slots=True)
class Turn:
    """A chat's tokens up to the end of its last message.

    `written` is the half-open range of the tokens that the author of the last message writes, or of the last messages,
    the end of the turn included.
    """

    ids: tuple[int, ...]
    written: tuple[int, int]


class ChatTokenizer:
    """Tokenises chats of one base model.

    Attributes:
        tokenizer: the base model's own tokenizer.
        template: its chat template.
        end_of_turn: the token with which the template ends an assistant's message.
        configured_stops: the tokens that end a reply by the base model's files, as vLLM reads them.
    """

    def __init__(self, base: Path) -> None:
        """Raises `ConfigurationError` when the folder has no tokenizer or chat template that can be used."""
        self.tokenizer = load_tokenizer(base)
        self._name = base.name
        self._special = SpecialTokens(self.tokenizer, self._name)
        self.template = ChatTemplate(self.tokenizer, self._special, self._name)
        self._by_effort: dict[str, ChatTokenizer] = {}
        self.configured_stops = _configured_stops(base, self.tokenizer)
        self.end_of_turn = self._end_of_turn()

    def with_effort(self, effort: str) -> "ChatTokenizer":
        """The tokenizer of chats in which the model is to reason with that `effort`, as the template has it.

        It is this one where the template knows no efforts.
        """
        if effort not in self._by_effort:
            template, other = self.template.with_effort(effort), self
            if template is not self.template:
                other = copy(self)
                other.__dict__.pop("reply_format", None)
                other.template = template
            self._by_effort[effort] = other
        return self._by_effort[effort]

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens at which the embedded server ends a reply."""
        return self.configured_stops | {self.end_of_turn}

    @cached_property
    def reply_format(self) -> ReplyFormat:
        """The syntax in which this model's replies hold reasoning and tool calls."""
        return reply_format(self.template, {self._special.text_of(token) for token in self.stop_tokens} - {""})

    def prompt(self, messages: Sequence[Message], tools: Tools = (), *, generation: bool = True) -> list[int]:
        """The tokens that a server reads for the chat `messages`; with `generation` an assistant's message follows.

        Raises `ChatTemplateError` when the template refuses the chat.
        """
        literal = self.template.names_special(messages, tools)
        text = self.template.render(messages, tools, literal=literal, prompt=generation)
        return list(self._special.encode(text, literal=literal).ids)

    def reply(self, messages: Sequence[Message], reply: Message, tools: Tools = ()) -> Turn:
        """The served prompt of `messages`, followed by `reply` as the model itself would generate it.

        Reasoning is left out where the template writes none. Raises `ChatTemplateError` when the template refuses the
        chat, or does not write `reply` behind that prompt.
        """
        literal = self.template.names_special([*messages, reply], tools)
        before, text = self.template.turn(messages, reply, tools, literal=literal)
        prompt = self._special.encode(before, literal=literal).ids
        ids = self._special.encode(before + text, literal=literal).ids
        if ids[: len(prompt)] != prompt:
            # The tokenizer merges across the end of the prompt, which a server never does.
            ids = prompt + self._special.encode_after(text, literal=literal)
        for index in range(len(prompt), len(ids)):
            if ids[index] in self.stop_tokens:
                return Turn(tuple(ids[: index + 1]), (len(prompt), index + 1))
        raise ChatTemplateError(f"the chat template of {self._name} does not end this reply: choose another base model")

    def observation(self, messages: Sequence[Message], count: int = 1, tools: Tools = ()) -> Turn:
        """The chat `messages`, whose last `count`, at least one, answer an action.

        Written is all from the first content among them to the end of the last one's turn. Raises `ChatTemplateError`
        when the template refuses the chat, or does not write those messages in one piece.
        """
        literal = self.template.names_special(messages, tools)
        whole = self.template.render(messages, tools, literal=literal, prompt=False)
        head, _ = self._around(messages, len(messages) - count, tools, literal=literal)
        _, tail = self._around(messages, len(messages) - 1, tools, literal=literal)
        if not (whole.startswith(head) and whole.endswith(tail) and len(head) + len(tail) <= len(whole)):
            raise ChatTemplateError(f"the chat template of {self._name} does not write an observation in one piece")
        encoding = self._special.encode(whole, literal=literal)
        starts = [start for start, _ in encoding.offsets]
        begin = next((index for index, start in enumerate(starts) if start >= len(head)), len(starts))
        end = next((index for index, start in enumerate(starts) if start >= len(whole) - len(tail)), len(starts))
        # The first special token behind the content ends the turn; without one, the first token does.
        ends = (index for index in range(end, len(starts)) if encoding.ids[index] in self._special.ids)
        end = min(next(ends, end) + bool(tail), len(starts))
        return Turn(tuple(encoding.ids[:end]), (min(begin, end), end))

    def check_replies(self) -> None:
        """Raises `ConfigurationError` when no reply of this base model could be trained as it is served."""
        try:
            self.reply([user("Go.")], assistant("look"))
        except ChatTemplateError as error:
            raise ConfigurationError(str(error)) from error

    def refused_system_message(self) -> str | None:
        """The reason for which chats with a system message cannot be served or trained, None where they can."""
        try:
            self.reply([Message(role="system", content="Rules."), user("Go.")], assistant("look"))
        except ChatTemplateError as error:
            return str(error)
        return None

    def check_configured_stop(self) -> None:
        """Raises `ConfigurationError` when a server that reads only the model's files would not end a trained reply."""
        if self.end_of_turn not in self.configured_stops:
            raise ConfigurationError(
                f"the chat template of {self._name} ends a reply with {self._special.text_of(self.end_of_turn)!r}, at "
                f"which a server does not stop: add {self.end_of_turn} to eos_token_id in its generation_config.json"
            )

    def encode(self, text: str) -> list[int]:
        """The tokens of a rendered text, in which special tokens are themselves."""
        return list(self._special.encode(text, literal=False).ids)

    def _around(self, messages: Sequence[Message], number: int, tools: Tools, *, literal: bool) -> tuple[str, str]:
        """The rendered chat before and behind the content of its message `number`."""
        marked = [*messages[:number], messages[number].model_copy(update={"content": MARK}), *messages[number + 1 :]]
        head, mark, tail = self.template.render(marked, tools, literal=literal, prompt=False).rpartition(MARK)
        if not mark:
            raise ChatTemplateError(f"the chat template of {self._name} does not write an observation in one piece")
        return head, tail

    def _end_of_turn(self) -> int:
        try:
            rendered = self.template.render([user("Go."), assistant(MARK)], prompt=False)
        except ChatTemplateError as error:
            raise ConfigurationError(f"{error}; choose another base model") from error
        _, mark, tail = rendered.rpartition(MARK)
        for are_special, run in groupby(self.encode(tail) if mark else (), key=self._special.ids.__contains__):
            if are_special:
                ends = list(run)
                return next((token for token in ends if token in self.configured_stops), ends[-1])
        raise ConfigurationError(
            f"the chat template of {self._name} ends an assistant's message with {tail[:20]!r}, which is not a special "
            "token, so no server would stop there: choose another base model or template"
        )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in `folder`. Raises `ConfigurationError` if there is none, or none that decodes as it goes."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # The library raises bare exceptions for files that are damaged.
    except Exception as error:
        raise ConfigurationError(f"{folder} holds no tokenizer that can be read: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigurationError(f"the tokenizer in {folder} has no tokenizer.json: save it as a fast one")
    return tokenizer


def _configured_stops(base: Path, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """The end tokens of the generation settings, or else of the model's own, and the tokenizer's."""
    try:
        ends = GenerationConfig.from_pretrained(base, local_files_only=True).eos_token_id
    except OSError:
        ends = None
    try:
        if ends is None:
            ends = getattr(AutoConfig.from_pretrained(base, local_files_only=True), "eos_token_id", None)
        found = ends if isinstance(ends, list) else [ends]
        return frozenset(int(end) for end in [*found, tokenizer.eos_token_id] if end is not None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{base} does not say at which tokens a reply ends: correct eos_token_id in its generation_config.json or "
            f"config.json: {error}"
        ) from error
