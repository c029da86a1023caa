"""From an event as it came to one that may be stored. The record role calls it between admission and the store.

Covered is every text of an event: messages, action, the reasoning of either, observation, flag, the keys and values of
`evidence` at any depth, the reason of a retraction. Identifiers (`event_id`, `episode_id`, `principal`, `agent`,
`verifier`, the task and the adapter) stay: rows are joined by them, holdouts are drawn by them, and a retraction must
still find its principal.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from streams.errors import ConfigurationError, UnjudgeableError
from streams.events import Event, Message, OutcomeEvent, RetractionEvent, StepEvent
from streams.redaction.finder import Finder
from streams.redaction.placeholders import Placeholders
from streams.redaction.secret_keys import names_a_secret
from streams.redaction.settings import Kind, RedactionSettings
from streams.redaction.spans import Span, subtract

log = structlog.get_logger()

__all__ = ["Redacted", "Redactor", "UnjudgeableError"]

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

# A value that was taken out may bring two others together that now form a third; few texts need a third look.
_MAX_ROUNDS = 8
_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Redacted:
    """An event fit for the store, and how often each kind or rule was replaced in it."""

    event: Event
    counts: Mapping[str, int]


class Redactor:
    """Replaces what its settings name. One thread at a time may use it.

    `key` makes the placeholders. It must stay secret, and stay the same: an episode during which it changes has two
    placeholders for one value.
    Raises `ConfigurationError` when the key is empty, or Presidio is wanted and missing.
    """

    def __init__(self, settings: RedactionSettings, key: bytes) -> None:
        if not key:
            raise ConfigurationError("redaction needs a key for its placeholders and the one given is empty")
        self._settings = settings
        self._finder = Finder(settings)
        self._placeholders = Placeholders(key, self._finder.names)
        self._replaced: list[tuple[str, Span]] | None = None

    def redact(self, event: Event) -> Redacted:
        """The event without secrets and personal data: the same object when it held none.

        Raises `UnjudgeableError` for an event that cannot be redacted: it must be refused.
        """
        counts: Counter[str] = Counter()
        if not self._settings.enabled:
            return Redacted(event, counts)
        if isinstance(event, StepEvent):
            return Redacted(self._step(event, counts), counts)
        if isinstance(event, RetractionEvent):
            reason = self._text(event.reason, event.principal, counts)
            changed = reason is not event.reason
            return Redacted(event.model_copy(update={"reason": reason}) if changed else event, counts)
        return Redacted(self._outcome(event, counts), counts)

    def covers(self, environment: str) -> bool:
        """Return whether the steps of episodes of that environment are redacted."""
        return self._settings.enabled and environment not in self._settings.simulators

    def redact_text(self, text: str, episode_id: str) -> tuple[str, Counter[str]]:
        """One text of an episode, and what was replaced in it. Raises `UnjudgeableError`."""
        counts: Counter[str] = Counter()
        return self._text(text, episode_id, counts), counts

    def placeholders(self, text: str) -> tuple[str, ...]:
        """The placeholders that the text holds, whether they stand for something or only look like it."""
        return tuple(text[start:end] for start, end in self._placeholders.within(text))

    def raw_values(self, text: str, episode_id: str) -> Mapping[str, tuple[str, ...]]:
        """The values that would be replaced in a text, by their placeholders: as they are written, then as they are
        read. Raises `UnjudgeableError`.
        """
        self._replaced = []
        try:
            self._text(text, episode_id, Counter())
            found: dict[str, tuple[str, ...]] = {}
            for written, span in self._replaced:
                placeholder = self._placeholders.make(episode_id, span.name, span.value)
                found[placeholder] = (*found.get(placeholder, ()), written, span.value)
            return found
        finally:
            self._replaced = None

    def _step(self, event: StepEvent, counts: Counter[str]) -> StepEvent:
        if not self.covers(event.task.environment):
            return event
        episode = event.episode_id
        messages = tuple(self._message(message, episode, counts) for message in event.messages)
        action = self._message(event.action, episode, counts)
        observation = self._text(event.observation, episode, counts)
        flag = None if event.flag is None else self._text(event.flag, episode, counts)
        if not counts:
            return event
        return event.model_copy(
            update={"messages": messages, "action": action, "observation": observation, "flag": flag}
        )

    def _message(self, message: Message, episode: str, counts: Counter[str]) -> Message:
        content, reasoning = self._text(message.content, episode, counts), message.reasoning_content
        if reasoning is not None:
            reasoning = self._text(reasoning, episode, counts)
        if content is message.content and reasoning is message.reasoning_content:
            return message
        return message.model_copy(update={"content": content, "reasoning_content": reasoning})

    def _outcome(self, event: OutcomeEvent, counts: Counter[str]) -> OutcomeEvent:
        evidence = self._json(event.evidence, event.episode_id, counts, "", 0)
        return event.model_copy(update={"evidence": evidence}) if counts else event

    def _json(self, value: Json, episode: str, counts: Counter[str], key: str, depth: int) -> Json:
        if depth > _MAX_DEPTH:
            raise UnjudgeableError(f"evidence is nested more than {_MAX_DEPTH} deep")
        if isinstance(value, dict):
            redacted = {
                self._text(name, episode, counts): self._json(inner, episode, counts, name, depth + 1)
                for name, inner in value.items()
            }
            if len(redacted) < len(value):
                raise UnjudgeableError("two keys of evidence become the same when they are redacted")
            return redacted
        if isinstance(value, list):
            return [self._json(inner, episode, counts, key, depth + 1) for inner in value]
        if isinstance(value, bool) or value is None:
            return value
        written = str(value)
        redacted_text = self._member(written, episode, counts, key)
        return value if redacted_text == written else redacted_text

    def _member(self, text: str, episode: str, counts: Counter[str], key: str) -> str:
        """The value of a key: the key says what it is where its form does not."""
        if text and Kind.PASSWORD in self._settings.kinds and names_a_secret(key):
            whole = [Span(0, len(text), Kind.PASSWORD, text)]
            return self._replace(text, subtract(text, whole, self._placeholders.within(text)), episode, counts)
        return self._text(text, episode, counts, context=f"{key}: " if key else "")

    def _text(self, text: str, episode: str, counts: Counter[str], context: str = "") -> str:
        if len(text) > self._settings.max_text:
            raise UnjudgeableError(
                f"a text of {len(text)} characters is longer than redaction.max_text ({self._settings.max_text})"
            )
        _refuse_surrogates(text)
        for _ in range(_MAX_ROUNDS):
            whole = context + text
            spans = self._finder.find(whole)
            if not spans:
                return text
            spans = tuple(subtract(whole, spans, self._placeholders.within(whole)))
            own = [
                Span(max(0, span.start - len(context)), span.end - len(context), span.name, span.value)
                for span in spans
                if span.end > len(context)
            ]
            if not own:
                return text
            text = self._replace(text, own, episode, counts)
        raise UnjudgeableError(f"a text still held something after {_MAX_ROUNDS} rounds")

    def _replace(self, text: str, spans: list[Span], episode: str, counts: Counter[str]) -> str:
        pieces: list[str] = []
        copied = 0
        for span in spans:
            pieces += (text[copied : span.start], self._placeholders.make(episode, span.name, span.value))
            if self._replaced is not None:
                self._replaced.append((text[span.start : span.end], span))
            copied = span.end
            counts[str(span.name)] += 1
        return "".join((*pieces, text[copied:]))


def _refuse_surrogates(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnjudgeableError("a text holds half of a surrogate pair and is not Unicode") from error
