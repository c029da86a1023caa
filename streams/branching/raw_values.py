"""The raw values behind the placeholders of one episode.

A recording is redacted and a simulator is not. What the simulator shows, redacted under the episode's own placeholders,
must be what was recorded; and each value that it shows is then known by its placeholder. Actions that name the
placeholder are executed with the value, and what comes back leaves with the placeholder again. All of this happens in
the branch role: a sandbox gets neither the key nor the settings of redaction.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, product
from typing import Self

from ratchet_client.messages import Message, Messages, Tools, same_conversation, text_of
from streams.branch_events import BranchRequest
from streams.redaction.redactor import Redactor

# Spellings of one value, in one action: as it was shown, as it is read, and the next ones that were shown.
_MOST_VARIANTS = 12
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
# A shorter value stands in other words by chance.
_SHORTEST_HIDDEN = 3


@dataclass(slots=True)
class RawValues:
    """The values of one episode, by their placeholders. Without a redactor nothing is a placeholder.

    Methods that redact raise `UnjudgeableError`.
    """

    redactor: Redactor | None
    episode_id: str
    _spellings: dict[str, dict[str, None]] = field(default_factory=dict)
    _executed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: BranchRequest, redactor: Redactor | None) -> Self:
        """Those of the episode of `request`, of which nothing is known yet."""
        covered = redactor is not None and redactor.covers(request.task.environment)
        return cls(redactor if covered else None, request.episode_id)

    def in_recording(self, request: BranchRequest) -> bool:
        """Return whether the recording of the episode holds placeholders."""
        said = (*request.opening, *(message for step in request.steps for message in (step.action, *step.observation)))
        return any(self._placeholders(message) for message in said)

    def learn(self, texts: Iterable[str]) -> None:
        """Take note of every value in raw texts."""
        if self.redactor is None:
            return
        for text in texts:
            for placeholder, values in self.redactor.raw_values(text, self.episode_id).items():
                spellings = self._spellings.setdefault(placeholder, {})
                for value in values:
                    spellings |= dict.fromkeys((_unescaped(value), value))

    def shown(self, texts: Iterable[str]) -> None:
        """Take note of every value in texts of the sandbox. What only looks like a placeholder there is itself one."""
        if self.redactor is None:
            return
        for text in texts:
            self.learn([text])
            for literal in self.redactor.placeholders(text):
                self._spellings.setdefault(literal, {})[literal] = None

    def unknown(self, action: Message) -> tuple[str, ...]:
        """The placeholders of an action of which no value is known."""
        return tuple(each for each in self._placeholders(action) if each not in self._spellings)

    def spellings(self, action: Message) -> Iterator[Message]:
        """The action with raw values, the likeliest spelling first. Unknown placeholders stay as they are."""
        named = self._placeholders(action)
        choices = [self._choices(each, action) for each in named]
        for values in islice(product(*choices), _MOST_VARIANTS):
            yield _replaced(action, dict(chain(*values)))

    def _choices(self, placeholder: str, action: Message) -> list[tuple[tuple[str, str], ...]]:
        """The replacements of a placeholder that may be tried: each has pairs of a text and what takes its place."""
        values = tuple(self._spellings.get(placeholder, (placeholder,)))
        choices: list[tuple[tuple[str, str], ...]] = [((placeholder, value),) for value in values]
        quoted = f'"{placeholder}"'
        if any(call.function is not None and quoted in call.function.arguments for call in action.calls):
            # A number in arguments was redacted to a text.
            numbers = filter(_NUMBER.fullmatch, values)
            choices += [((placeholder, value), (quoted, value)) for value in numbers]
        return choices

    def executable(self, action: Message) -> Message:
        """The action of a policy as the sandbox is to get it."""
        raw = next(self.spellings(action))
        for placeholder in self._placeholders(action):
            value = next(iter(self._spellings.get(placeholder, ())), placeholder)
            if value != placeholder and len(value) >= _SHORTEST_HIDDEN:
                self._executed[value] = placeholder
        return raw

    def redacted(self, messages: Messages) -> Messages:
        """The messages as the record role would have stored them."""
        return messages if self.redactor is None else self.redactor.redact_messages(messages, self.episode_id)[0]

    def agrees(self, shown: Messages, recorded: Messages) -> bool:
        """Return whether the sandbox shows what was recorded, but for what redaction took out of the recording."""
        return same_conversation(shown, recorded) or same_conversation(self.redacted(shown), recorded)

    def agree_but_for_the_key(self, redacted: Messages, recorded: Messages) -> bool:
        """Return whether two redacted texts differ in nothing but the digits of placeholders."""
        one, other = text_of(redacted), text_of(recorded)
        return one != other and self._without_digits(one) == self._without_digits(other)

    def hidden(self, message: Message) -> Message:
        """A raw message as it may leave: redacted, and without the values that actions of the policy were given.

        Those may have been known as secrets by the words around them, which the answer need not repeat.
        """
        if self.redactor is None:
            return message
        (redacted,) = self.redacted((message,))
        return _with_texts(redacted, self._without_executed, self._without_executed)

    def hidden_text(self, text: str) -> str:
        """A text as it may leave."""
        return self._without_executed(self._redact(text))

    def _without_executed(self, text: str) -> str:
        if not self._executed:
            return text
        longest_first = sorted(self._executed, key=len, reverse=True)
        named = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
        return named.sub(lambda match: self._executed[match[0]], text)

    def _without_digits(self, text: str) -> str:
        for placeholder in () if self.redactor is None else self.redactor.placeholders(text):
            text = text.replace(placeholder, placeholder.rpartition("_")[0])
        return text

    def _redact(self, text: str) -> str:
        return text if self.redactor is None else self.redactor.redact_text(text, self.episode_id)[0]

    def _placeholders(self, message: Message) -> tuple[str, ...]:
        if self.redactor is None:
            return ()
        spoken = message.spoken().texts()
        return tuple(dict.fromkeys(each for text in spoken for each in self.redactor.placeholders(text)))


def texts_of(messages: Messages, tools: Tools | None) -> Iterator[str]:
    """Every text that an environment shows."""
    for message in messages:
        yield from message.texts()
    for tool in tools or ():
        yield json.dumps(tool, ensure_ascii=False)


def _replaced(message: Message, values: dict[str, str]) -> Message:
    if not values:
        return message
    named = re.compile("|".join(re.escape(each) for each in sorted(values, key=len, reverse=True)))

    def in_text(match: re.Match[str]) -> str:
        return values[match[0]]

    def in_json(match: re.Match[str]) -> str:
        whole = match[0][0] == '"'
        return values[match[0]] if whole else json.dumps(values[match[0]], ensure_ascii=False)[1:-1]

    return _with_texts(message, lambda text: named.sub(in_text, text), lambda text: named.sub(in_json, text))


def _with_texts(message: Message, change: Callable[[str], str], change_arguments: Callable[[str], str]) -> Message:
    """The message with other texts; the arguments of calls are JSON."""
    content = message.content
    if isinstance(content, str):
        content = change(content)
    elif content is not None:
        content = tuple(
            part if part.text is None else part.model_copy(update={"text": change(part.text)}) for part in content
        )
    calls = message.tool_calls and tuple(
        each
        if each.function is None
        else each.model_copy(
            update={
                "function": each.function.model_copy(update={"arguments": change_arguments(each.function.arguments)})
            }
        )
        for each in message.tool_calls
    )
    reasoning = message.reasoning_content
    if reasoning is not None:
        reasoning = change(reasoning)
    return message.model_copy(update={"content": content, "tool_calls": calls, "reasoning_content": reasoning})


def _unescaped(value: str) -> str:
    """The value that stands in JSON, where it does."""
    if "\\" not in value:
        return value
    try:
        read = json.loads(f'"{value}"')
    except ValueError:
        return value
    return str(read)
