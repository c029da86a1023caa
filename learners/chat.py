"""Chats as tokens: the one rendering that the embedded server, the trainer and the probes share.

A chat is tokenised whole, as the chat template renders it, so that the prompt a model is trained on is the prompt it is
served with, whatever the template does: a system message of its own, a BOS token, a message that is written differently
in context. Text is tokenised as text: a special token that somebody writes into a message is not that token.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from tokenizers import Encoding, Tokenizer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from streams.errors import ChatTemplateError, ConfigurationError
from streams.events import Message

# Stands in texts for what is put in later: drawn for each process, so that nobody can write it into a message.
_NONCE = secrets.token_hex(8)
_MARK = f"\U000ffff0{_NONCE}"


@dataclass(frozen=True, slots=True)
class Turn:
    """A chat's tokens up to the end of its last message.

    `written` is the half-open range of the tokens that the author of that message writes, the end of the turn included.
    """

    ids: tuple[int, ...]
    written: tuple[int, int]


class ChatTokenizer:
    """Tokenises chats of one base model.

    Attributes:
        tokenizer: the base model's own tokenizer.
        end_of_turn: the token with which the template ends an assistant's message.
        configured_stops: the tokens that end a reply by the base model's files, as vLLM reads them.
    """

    def __init__(self, base: Path) -> None:
        """Raises `ConfigurationError` when the folder has no tokenizer or chat template that can be used."""
        self.tokenizer = load_tokenizer(base)
        self._name = base.name
        if not self.tokenizer.chat_template:
            raise ConfigurationError(
                f"the tokenizer in {base} has no chat template: add chat_template.jinja, or name an instruct model"
            )
        document = json.loads(self.tokenizer.backend_tokenizer.to_str())
        document |= {"truncation": None, "padding": None, "post_processor": None}
        self._specials = {token["content"]: token for token in document["added_tokens"] if token["special"]}
        self._special = re.compile("|".join(re.escape(text) for text in sorted(self._specials, key=len, reverse=True)))
        self._plain = Tokenizer.from_str(json.dumps(document))
        self._literal = self._with_aliases(document)
        # Such special tokens are also found in text that becomes their name, such as letters of another width.
        normalized = any(token["normalized"] for token in self._specials.values())
        self._normalizer = self._plain.normalizer if normalized else None
        self.configured_stops = _configured_stops(base, self.tokenizer)
        self.end_of_turn = self._end_of_turn()

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens at which the embedded server ends a reply."""
        return self.configured_stops | {self.end_of_turn}

    def prompt(self, messages: Sequence[Message], *, generation: bool = True) -> list[int]:
        """The tokens that a server reads for the chat `messages`; with `generation` an assistant's message follows.

        Raises `ChatTemplateError` when the template refuses the chat.
        """
        literal = self._has_specials(messages)
        return list(self._encode(self._render(messages, literal=literal, generation=generation), literal=literal).ids)

    def reply(self, messages: Sequence[Message], reply: Message) -> Turn:
        """The served prompt of `messages`, followed by `reply` as the model itself would generate it.

        Raises `ChatTemplateError` when the template refuses the chat, or does not write `reply` behind that prompt.
        """
        chat = [*messages, reply]
        literal = self._has_specials(chat)
        before = self._render(messages, literal=literal, generation=True)
        whole = self._render(chat, literal=literal, generation=False)
        if not whole.startswith(before):
            raise ChatTemplateError(
                f"the chat template of {self._name} does not write an assistant's message as it prompts for one "
                f"(its prompt ends with {before[-20:]!r}), so replies cannot be trained as they are served: "
                "choose another base model or template"
            )
        prompt = self._encode(before, literal=literal).ids
        ids = self._encode(whole, literal=literal).ids
        if ids[: len(prompt)] != prompt:
            # The tokenizer merges across the end of the prompt, which a server never does.
            ids = prompt + self._continuation(whole[len(before) :], literal=literal)
        for index in range(len(prompt), len(ids)):
            if ids[index] == self.end_of_turn:
                return Turn(tuple(ids[: index + 1]), (len(prompt), index + 1))
        raise ChatTemplateError(f"the chat template of {self._name} does not end this reply: choose another base model")

    def observation(self, messages: Sequence[Message]) -> Turn:
        """The chat `messages`, whose last one answers an action.

        Raises `ChatTemplateError` when the template refuses the chat, or does not write that message in one piece.
        """
        literal = self._has_specials(messages)
        whole = self._render(messages, literal=literal, generation=False)
        marked = [*messages[:-1], messages[-1].model_copy(update={"content": _MARK})]
        head, mark, tail = self._render(marked, literal=literal, generation=False).rpartition(_MARK)
        if not mark or not (whole.startswith(head) and whole.endswith(tail)):
            raise ChatTemplateError(f"the chat template of {self._name} does not write an observation in one piece")
        encoding = self._encode(whole, literal=literal)
        starts = [start for start, _ in encoding.offsets]
        begin = next((index for index, start in enumerate(starts) if start >= len(head)), len(starts))
        end = next((index for index, start in enumerate(starts) if start >= len(whole) - len(tail)), len(starts))
        # What follows the content begins with the token that ends the turn.
        end = min(end + bool(tail), len(starts))
        return Turn(tuple(encoding.ids[:end]), (min(begin, end), end))

    def check_replies(self) -> None:
        """Raises `ConfigurationError` when no reply of this base model could be trained as it is served."""
        user = Message(role="user", content="Go.")
        try:
            self.reply([user], Message(role="assistant", content="look"))
        except ChatTemplateError as error:
            raise ConfigurationError(str(error)) from error

    def refused_system_message(self) -> str | None:
        """The reason for which chats with a system message cannot be served or trained, None where they can."""
        chat = [Message(role="system", content="Rules."), Message(role="user", content="Go.")]
        try:
            self.reply(chat, Message(role="assistant", content="look"))
        except ChatTemplateError as error:
            return str(error)
        return None

    def check_configured_stop(self) -> None:
        """Raises `ConfigurationError` when a server that reads only the model's files would not end a trained reply."""
        if self.end_of_turn not in self.configured_stops:
            raise ConfigurationError(
                f"the chat template of {self._name} ends a reply with {self._word(self.end_of_turn)!r}, at which a "
                f"server does not stop: add {self.end_of_turn} to eos_token_id in its generation_config.json"
            )

    def encode(self, text: str) -> list[int]:
        """The tokens of a rendered text, in which special tokens are themselves."""
        return list(self._encode(text, literal=False).ids)

    def _render(self, messages: Sequence[Message], *, literal: bool, generation: bool) -> str:
        """The rendered chat; with `literal`, special tokens of the template are aliases, and those of contents text."""
        chat = [message.model_dump(exclude_none=True) for message in messages]
        masks: dict[str, str] = {}
        if literal:
            masks = {text: f"\U000ffff1{_NONCE}{number}\U000ffff2" for number, text in enumerate(self._specials)}
            chat = cast(list[dict[str, Any]], self._masked(chat, masks))
        try:
            text = cast(str, self.tokenizer.apply_chat_template(chat, add_generation_prompt=generation, tokenize=False))
        # A template is a program of somebody else's: it may fail in any way.
        except Exception as error:
            raise ChatTemplateError(
                f"the chat template of {self._name} refuses the roles {_roles(messages)}: {error}"
            ) from error
        if literal:
            text = self._special.sub(lambda found: _alias(self._specials[found[0]]), text)
            for special, mask in masks.items():
                text = text.replace(mask, special)
        return text

    def _masked(self, value: Any, masks: dict[str, str]) -> Any:
        if isinstance(value, str):
            return self._special.sub(lambda found: masks[found[0]], value)
        if isinstance(value, dict):
            return {key: self._masked(item, masks) for key, item in value.items()}
        return [self._masked(item, masks) for item in value] if isinstance(value, list | tuple) else value

    def _has_specials(self, messages: Sequence[Message]) -> bool:
        texts = (text for message in messages for text in (message.content, message.reasoning_content) if text)
        return bool(self._specials) and any(self._names_special(text) for text in texts)

    def _names_special(self, text: str) -> bool:
        normalized = self._normalizer.normalize_str(text) if self._normalizer is not None else ""
        return bool(self._special.search(text) or self._special.search(normalized))

    def _encode(self, text: str, *, literal: bool) -> Encoding:
        # The template has written every special token already.
        return (self._literal if literal else self._plain).encode(text, add_special_tokens=False)

    def _continuation(self, text: str, *, literal: bool) -> list[int]:
        """The tokens of a text that follows another: some tokenizers write a space before a text of its own."""
        for special, token in self._specials.items():
            if not token["rstrip"]:
                anchor = _alias(token) if literal else special
                return list(self._encode(anchor + text, literal=literal).ids[1:])
        return list(self._encode(text, literal=literal).ids)

    def _end_of_turn(self) -> int:
        chat = [Message(role="user", content="Go."), Message(role="assistant", content=_MARK)]
        try:
            _, mark, tail = self._render(chat, literal=False, generation=False).rpartition(_MARK)
        except ChatTemplateError as error:
            raise ConfigurationError(f"{error}; choose another base model") from error
        special = {token["id"] for token in self._specials.values()} - {self.tokenizer.unk_token_id}
        for are_special, run in groupby(self.encode(tail) if mark else (), key=special.__contains__):
            if are_special:
                ends = list(run)
                return next((token for token in ends if token in self.configured_stops), ends[-1])
        raise ConfigurationError(
            f"the chat template of {self._name} ends an assistant's message with {tail[:20]!r}, which is not a special "
            "token, so no server would stop there: choose another base model or template"
        )

    def _with_aliases(self, document: dict[str, Any]) -> Tokenizer:
        """The tokenizer of `document` with special tokens under aliases, so that their own names are ordinary text."""
        aliases = {text: _alias(token) for text, token in self._specials.items()}
        model = dict(document["model"])
        vocabulary = model["vocab"]
        if isinstance(vocabulary, dict):
            model["vocab"] = {aliases.get(piece, piece): number for piece, number in vocabulary.items()}
        else:
            model["vocab"] = [[aliases.get(piece, piece), score] for piece, score in vocabulary]
        if model.get("unk_token") is not None:
            model["unk_token"] = aliases.get(model["unk_token"], model["unk_token"])
        added = [
            token | {"content": aliases[token["content"]], "normalized": False} if token["special"] else token
            for token in document["added_tokens"]
        ]
        try:
            return Tokenizer.from_str(json.dumps(document | {"model": model, "added_tokens": added}))
        # The library raises bare exceptions.
        except Exception as error:
            raise ConfigurationError(
                f"the special tokens of {self._name} cannot be told from text that names them: {error}; "
                "choose another base model"
            ) from error

    def _word(self, token: int) -> str:
        return str(self._plain.decode([token], skip_special_tokens=False))


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


def _alias(token: dict[str, Any]) -> str:
    return f"\U000ffff3{_NONCE}{token['id']}\U000ffff4"


def _roles(messages: Sequence[Message]) -> str:
    return ", ".join(message.role for message in messages[:6]) + (", …" if len(messages) > 6 else "")
