"""Conversations as the gateway captures them, call by call, and a place to assemble them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ratchet_client.events import EVENT, OutcomeEvent, StepEvent
from streams.assembly.assembler import Assembler
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState
from streams.assembly.status import AssemblyStatus
from streams.calls.records import CallLabels, CapturedCall, Face, Feedback, new_receipt, record_key
from streams.kafka.settings import KafkaSettings
from streams.runtime.tally import Tally

SYSTEM = {"role": "system", "content": "You help."}
_TICKS = count(1)
_SECOND = 1_000_000_000

Messages = list[dict[str, Any]]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def call(messages: Messages, *replies: str | dict[str, Any], **fields: Any) -> CapturedCall:
    """A call with those messages that was answered by `replies`; labels and fields of the record by their names."""
    labels = {name: fields.pop(name) for name in list(fields) if name in CallLabels.model_fields}
    tick = next(_TICKS)
    choices = [
        {"index": n, "finish_reason": "stop", "message": said(text) if isinstance(text, str) else text}
        for n, text in enumerate(replies)
    ]
    told: dict[str, Any] = {
        "receipt": new_receipt(record_key("opening", str(messages[:2]))),
        "face": Face.CHAT,
        "served": "adapter-1",
        "began_ns": tick * _SECOND,
        "ended_ns": tick * _SECOND + 1,
        "request": json.dumps({"model": "assistant", "messages": messages, "n": len(replies)}),
        "reply": json.dumps({"id": f"c{tick}", "object": "chat.completion", "choices": choices}),
    }
    return CapturedCall(labels=CallLabels(**labels), **told | fields)


def feedback(on: CapturedCall | str, success: bool = True, **fields: Any) -> Feedback:
    """Feedback on a call by its receipt, or on an episode by its id."""
    told: dict[str, Any] = {"receipt": on.receipt} if isinstance(on, CapturedCall) else {"episode": on}
    told |= {"success": success, "score": float(success), "given_ns": next(_TICKS) * _SECOND}
    return Feedback(**told | fields)


def conversation(opening: str, turns: Sequence[tuple[str, str]], **fields: Any) -> list[CapturedCall]:
    """The calls of a chat: each turn is the reply, and what the user says then."""
    messages, calls = [SYSTEM, user(opening)], []
    for reply, answer in turns:
        calls.append(call(messages, reply, **fields))
        messages = [*messages, said(reply), user(answer)]
    return calls


@dataclass(slots=True)
class Desk:
    """An assembler over a state in a folder, and all that it decided on."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    tally: Tally[AssemblyStatus] = field(default_factory=lambda: Tally(AssemblyStatus()))
    now: float = 0.0
    outgoing: list[Any] = field(default_factory=list)
    _state: AssemblyState | None = None

    @property
    def state(self) -> AssemblyState:
        if self._state is None:
            settings = AssemblySettings(path=self.folder / "assembly.sqlite", **self.settings)
            self._state = AssemblyState.open(settings, self.now)
        return self._state

    @property
    def assembler(self) -> Assembler:
        settings = AssemblySettings(path=self.folder / "assembly.sqlite", **self.settings)
        return Assembler(self.state, KafkaSettings(), settings, self.keys, self.tally)

    def restart(self) -> None:
        self.close()
        self.state  # noqa: B018 - it opens

    def close(self) -> None:
        if self._state is not None:
            self._state.close()
            self._state = None

    def take(self, *records: Any, wait: float = 0.0) -> list[StepEvent | OutcomeEvent]:
        """Keep the records, let `wait` seconds pass, and return the events that are decided on then."""
        self.state.add(records, self.now)
        self.now += wait
        return self.due()

    def due(self) -> list[StepEvent | OutcomeEvent]:
        while units := self.state.due(self.now):
            for unit in units:
                self.assembler.assemble(unit)
        found = self.state.pending(100_000)
        if found:
            self.state.published(found[-1].number)
        self.outgoing += [entry.message for entry in found]
        return [_known(EVENT.validate_json(entry.message.value or b"")) for entry in found]


def _known(event: object) -> StepEvent | OutcomeEvent:
    assert isinstance(event, StepEvent | OutcomeEvent)
    return event


def episodes(events: Sequence[StepEvent | OutcomeEvent]) -> dict[str, list[str]]:
    """The replies of each episode, in the order of its steps."""
    steps = sorted((event for event in events if isinstance(event, StepEvent)), key=lambda step: step.step)
    found: dict[str, list[str]] = {}
    for step in steps:
        found.setdefault(step.episode_id, []).append(step.action.text)
    return found


def outcomes(events: Sequence[StepEvent | OutcomeEvent]) -> list[tuple[str, bool]]:
    return [(event.episode_id, event.success) for event in events if isinstance(event, OutcomeEvent)]
