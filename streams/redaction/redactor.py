"""From an event as it came to one that may be stored. The record role calls it between admission and the store.

Covered is every text of an event: of messages their content, reasoning, arguments of calls and every field they have
besides; the definitions of tools, advice, the flag, the keys and values of `evidence` at any depth, the reason of a
retraction. JSON in arguments and in results of tools is redacted value by value, and stays JSON. Identifiers
(`event_id`, `episode_id`, `principal`, `agent`, `verifier`, the task, the adapter, names of functions, ids of calls)
stay: rows are joined by them, holdouts are drawn by them, and a retraction must still find its principal.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ratchet_client.events import Event, RetractionEvent, StepEvent
from ratchet_client.messages import ContentPart, FunctionCall, Message, Messages, ToolCall, Tools
from streams.branch_events import BranchResult, RecordedStep, RecoveryResult
from streams.errors import UnjudgeableError
from streams.redaction.settings import RedactionSettings
from streams.redaction.texts import TextRedactor

__all__ = ["Redacted", "Redactor", "UnjudgeableError"]

_Open = TypeVar("_Open", Message, ContentPart, ToolCall, FunctionCall)


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
        self._settings = settings
        self._texts = TextRedactor(settings, key)

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
            reason = self._texts.text(event.reason, event.principal, counts)
            changed = reason is not event.reason
            return Redacted(event.model_copy(update={"reason": reason}) if changed else event, counts)
        evidence = self._texts.json(event.evidence, event.episode_id, counts) if event.evidence else event.evidence
        return Redacted(event.model_copy(update={"evidence": evidence}) if counts else event, counts)

    def redact_result(
        self, result: BranchResult | RecoveryResult
    ) -> tuple[BranchResult | RecoveryResult, Counter[str]]:
        """A result of branch workers, and what was replaced in it: nothing where episodes are not redacted either.

        Raises `UnjudgeableError`.
        """
        if not self.covers(result.task.environment):
            return result, Counter()
        walk = _Episode(self._texts, result.episode_id)
        update: dict[str, object] = {"reason": walk.text(result.reason)}
        if isinstance(result, BranchResult):
            update["alternatives"] = tuple(
                each.model_copy(
                    update={"action": walk.message(each.action), "observation": walk.messages(each.observation)}
                )
                for each in result.alternatives
            )
            update["failures"] = tuple(
                each.model_copy(update={"action": walk.message(each.action)}) for each in result.failures
            )
        else:
            update["recoveries"] = tuple(
                each.model_copy(update={"steps": tuple(map(walk.step, each.steps))}) for each in result.recoveries
            )
        return result.model_copy(update=update) if walk.counts else result, walk.counts

    def redact_messages(self, messages: Iterable[Message], episode_id: str) -> tuple[Messages, Counter[str]]:
        """Messages of an episode, and what was replaced in them. Raises `UnjudgeableError`."""
        walk = _Episode(self._texts, episode_id)
        return walk.messages(messages), walk.counts

    def covers(self, environment: str) -> bool:
        """Return whether the steps of episodes of that environment are redacted."""
        return self._settings.enabled and environment not in self._settings.simulators

    def redact_text(self, text: str, episode_id: str) -> tuple[str, Counter[str]]:
        """One text of an episode, and what was replaced in it. Raises `UnjudgeableError`."""
        counts: Counter[str] = Counter()
        return self._texts.text(text, episode_id, counts), counts

    def placeholders(self, text: str) -> tuple[str, ...]:
        """The placeholders that the text holds, whether they stand for something or only look like it."""
        return self._texts.placeholders(text)

    def raw_values(self, text: str, episode_id: str) -> Mapping[str, tuple[str, ...]]:
        """The values that would be replaced in a text, by their placeholders: as they are written, then as they are
        read. Raises `UnjudgeableError`.
        """
        return self._texts.raw_values(text, episode_id)

    def _step(self, event: StepEvent, counts: Counter[str]) -> StepEvent:
        if not self.covers(event.task.environment):
            return event
        walk = _Episode(self._texts, event.episode_id, counts)
        messages, observation = walk.messages(event.messages), walk.messages(event.observation)
        action, tools = walk.message(event.action), walk.tools(event.tools)
        update: dict[str, object] = {"messages": messages, "action": action, "observation": observation, "tools": tools}
        update["flag"] = None if event.flag is None else walk.text(event.flag)
        if event.advice is not None:
            update["advice"] = event.advice.model_copy(update={"text": walk.text(event.advice.text)})
        return event.model_copy(update=update) if counts else event


class _Episode:
    """Redacts the parts of one episode; `counts` says what was replaced in them."""

    def __init__(self, texts: TextRedactor, episode_id: str, counts: Counter[str] | None = None) -> None:
        self._texts = texts
        self._id = episode_id
        self.counts: Counter[str] = Counter() if counts is None else counts

    def text(self, text: str) -> str:
        return self._texts.text(text, self._id, self.counts)

    def messages(self, messages: Iterable[Message]) -> Messages:
        return tuple(map(self.message, messages))

    def step(self, step: RecordedStep) -> RecordedStep:
        action, observation = self.message(step.action), self.messages(step.observation)
        tools = None if step.tools is None else self.tools(step.tools)
        return step.model_copy(update={"action": action, "observation": observation, "tools": tools})

    def tools(self, tools: Tools) -> Tools:
        return tuple(self._texts.json(tools, self._id, self.counts)) if tools else tools

    def message(self, message: Message) -> Message:
        """The message; the same object when it held nothing."""
        content, role = message.content, message.role
        if isinstance(content, str) and role != "tool" and not message.__pydantic_extra__:
            silent = role != "assistant" or (message.reasoning_content is None and not message.tool_calls)
            if silent and message.tool_call_id is None:  # a mere text, as most messages are
                told = self._texts.text(content, self._id, self.counts)
                return message if told is content else message.model_copy(update={"content": told})
        before = self.counts.total()
        if isinstance(content, str):
            content = self._told(content, message.role)
        elif content is not None:
            content = tuple(self._part(part, message.role) for part in content)
        update: dict[str, object] = {"content": content}
        if message.reasoning_content is not None:
            update["reasoning_content"] = self.text(message.reasoning_content)
        if message.tool_calls is not None:
            update["tool_calls"] = tuple(map(self._call, message.tool_calls))
        if message.tool_call_id is not None:
            update["tool_call_id"] = self._identifier(message.tool_call_id)
        return self._rebuilt(message, update, before)

    def _told(self, text: str, role: str) -> str:
        return self._texts.structured(text, self._id, self.counts) if role == "tool" else self.text(text)

    def _identifier(self, text: str) -> str:
        return self._texts.identifier(text, self._id, self.counts)

    def _part(self, part: ContentPart, role: str) -> ContentPart:
        before = self.counts.total()
        return self._rebuilt(part, {"text": None if part.text is None else self._told(part.text, role)}, before)

    def _call(self, call: ToolCall) -> ToolCall:
        before = self.counts.total()
        update: dict[str, object] = {"id": self._identifier(call.id)}
        function = call.function
        if function is not None:
            within = self.counts.total()
            arguments = self._texts.structured(function.arguments, self._id, self.counts)
            update["function"] = self._rebuilt(
                function, {"name": self._identifier(function.name), "arguments": arguments}, within
            )
        return self._rebuilt(call, update, before)

    def _rebuilt(self, model: _Open, update: Mapping[str, object], before: int) -> _Open:
        """The model with other fields, those included that no version knows; itself if nothing was replaced."""
        extra: Any = model.__pydantic_extra__
        if extra:
            extra = self._texts.json(extra, self._id, self.counts, references=True)
        if self.counts.total() == before:
            return model
        known = {name: getattr(model, name) for name in type(model).model_fields}
        return type(model).model_validate(known | dict(update) | dict(extra or {}))
