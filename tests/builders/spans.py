"""Spans of an append-only conversation, as instrumentations of each dialect write them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import JsonValue

from ratchet_client.events import StepEvent
from streams.otlp.records import Attributes, LogRecord, Span
from streams.trust.rules import StoredStep

TRACE = "5b8efff798038103d269b633813fc60c"
OPENING = [("system", "You play."), ("user", "You are in a kitchen.")]
PLAY = [("open fridge", "The fridge is open."), ("take apple", "Taken."), ("eat apple", "Yum.")]


def states(steps: int = 3) -> list[tuple[list[tuple[str, str]], str]]:
    """What the model saw at each step and what it said."""
    seen, found = list(OPENING), []
    for action, observation in PLAY[:steps]:
        found.append((list(seen), action))
        seen += [("assistant", action), ("user", observation)]
    return found


def conventions(seen: list[tuple[str, str]], said: str) -> Attributes:
    def text(role: str, content: str, **more: Any) -> dict[str, Any]:
        return {"role": role, "parts": [{"type": "text", "content": content}], **more}

    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps([text(*message) for message in seen]),
        "gen_ai.output.messages": json.dumps([text("assistant", said, finish_reason="stop")]),
        "gen_ai.request.model": "assistant",
        "gen_ai.response.model": "ratchet-7",
    }


def openllmetry(seen: list[tuple[str, str]], said: str) -> Attributes:
    attributes: Attributes = {"llm.request.type": "chat", "gen_ai.response.model": "ratchet-7"}
    for number, (role, content) in enumerate(seen):
        attributes |= {f"gen_ai.prompt.{number}.role": role, f"gen_ai.prompt.{number}.content": content}
    return attributes | {"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": said}


def openinference(seen: list[tuple[str, str]], said: str) -> Attributes:
    attributes: Attributes = {"openinference.span.kind": "LLM", "llm.model_name": "ratchet-7"}
    for number, (role, content) in enumerate(seen):
        prefix = f"llm.input_messages.{number}.message"
        attributes |= {f"{prefix}.role": role, f"{prefix}.content": content}
    prefix = "llm.output_messages.0.message"
    return attributes | {f"{prefix}.role": "assistant", f"{prefix}.content": said}


def span(number: int, attributes: Mapping[str, JsonValue] | None = None, **fields: Any) -> Span:
    """Span `number` of a trace, which started at second `number`; a child of span 99 unless told otherwise."""
    told: dict[str, Any] = {"trace_id": TRACE, "parent_id": f"{99:016x}", "name": "chat", **fields}
    start = 1_700_000_000_000_000_000 + number * 1_000_000_000
    return Span(
        span_id=f"{number:016x}", start_ns=start, end_ns=start + 1_000_000, attributes=dict(attributes or {}), **told
    )


def root(attributes: Mapping[str, JsonValue] | None = None, **fields: Any) -> Span:
    return span(99, attributes, parent_id="", name="run", **fields)


def game(steps: int = 3, dialect: Any = conventions, **fields: Any) -> list[Span]:
    """Each step of a game as a span, children before their root."""
    return [*(span(n + 1, dialect(*state), **fields) for n, state in enumerate(states(steps))), root(**fields)]


def evaluation(number: int, body: JsonValue = None, **attributes: JsonValue) -> LogRecord:
    """An evaluation of span `number`; `score_label="pass"` sets `gen_ai.evaluation.score.label`."""
    named = {f"gen_ai.evaluation.{name.replace('_', '.')}": value for name, value in attributes.items()}
    return LogRecord(
        trace_id=TRACE,
        span_id=f"{number:016x}" if number else "",
        name="gen_ai.evaluation.result",
        time_ns=1_700_000_100_000_000_000,
        attributes={"gen_ai.evaluation.name": "task_success", **named},
        body=body,
    )


def stored(steps: Iterable[StepEvent]) -> list[StoredStep]:
    """The steps as the store has them."""
    return [
        StoredStep(s.step, s.task, s.messages, s.action, s.observation, s.actor.kind, s.principal, s.tools)
        for s in steps
    ]
