"""The agents of the crash tests: `python -m tests.crash.load SETTINGS` publishes episodes and keeps a ledger.

What a batch holds follows from its number alone, so that after a kill the load goes on where its ledger ends, and sends
again what was not acknowledged: as an agent does that has died between sending and knowing.
"""

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kafka import KafkaProducer
from pydantic import BaseModel, ConfigDict, TypeAdapter

from streams.events import Actor, Message, OutcomeEvent, Record, RecordedStep, StepEvent, Task
from streams.sandboxes.harness import ChatHarness
from tests.crash.ledger import Ledger

ACKNOWLEDGED_WITHIN_S = 150.0


class Recording(Record):
    """An episode that was really played."""

    task: Task
    opening: tuple[Message, ...]
    steps: tuple[RecordedStep, ...]


RECORDINGS: TypeAdapter[tuple[Recording, ...]] = TypeAdapter(tuple[Recording, ...])


class LoadSettings(BaseModel):
    """`batches` None publishes until SIGTERM. `recordings` is a JSON file; a held-out task's comes last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap: str
    topic: str
    recordings: Path
    ledger: Path
    episodes: int = 8
    batches: int | None = None
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Sent:
    """A record as it is sent; a malformed one has no event."""

    key: str
    value: bytes
    event_id: str | None


def batch(number: int, episodes: int, recordings: tuple[Recording, ...]) -> Iterator[Sent]:
    """The records of a batch: of eight episodes one is branched, one is dropped, one is held out, five are not trusted.

    Behind them comes a record that is no event, and one event again, as an agent sends it that was not told of success.
    """
    *training, held_out = recordings
    again = None
    for episode in range(number * episodes, (number + 1) * episodes):
        recording = training[episode % len(training)]
        match episode % 8:
            case 0:
                events = _played(episode, recording, "expert", success=True)
            case 1:
                events = _played(episode, _without_sandbox(recording), "policy", success=True)
            case 2:
                events = _played(episode, held_out, "expert", success=True)
            case _:
                events = _played(episode, recording, "policy", success=False)
        for event in events:
            again = Sent(event.episode_id, event.to_json(), event.event_id)
            yield again
    yield Sent(f"malformed-{number}", b'{"schema": 1, "kind": "step", "episode_id": "malformed-%d"' % number, None)
    if again is not None:
        yield again


def _without_sandbox(recording: Recording) -> Recording:
    return recording.model_copy(update={"task": recording.task.model_copy(update={"environment": "elsewhere"})})


def _played(
    number: int, recording: Recording, actor: Literal["policy", "expert"], *, success: bool
) -> Iterator[StepEvent | OutcomeEvent]:
    harness, name, messages = ChatHarness(), f"episode-{number}", recording.opening
    for index, step in enumerate(recording.steps):
        yield StepEvent(
            event_id=f"{name}/{index}",
            episode_id=name,
            step=index,
            agent="load",
            principal=f"tenant/{number % 10}",
            task=recording.task,
            messages=messages,
            action=Message(role="assistant", content=step.action),
            observation=step.observation,
            done=index == len(recording.steps) - 1,
            actor=Actor(kind=actor),
        )
        messages = harness.extend(messages, step.action, step.observation)
    yield OutcomeEvent(
        event_id=f"{name}/outcome", episode_id=name, verifier="game", success=success, score=float(success)
    )


def main() -> None:
    settings = LoadSettings.model_validate_json(sys.argv[1])
    recordings = RECORDINGS.validate_json(settings.recordings.read_bytes())
    ledger = Ledger(settings.ledger)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap, acks="all")
    number = ledger.read().batches
    told_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told_to_stop.append(number))
    while not told_to_stop and (settings.batches is None or number < settings.batches):
        records = list(batch(number, settings.episodes, recordings))
        pending = [producer.send(settings.topic, key=sent.key.encode(), value=sent.value) for sent in records]
        positions = [future.get(timeout=ACKNOWLEDGED_WITHIN_S) for future in pending]
        ledger.write(
            [sent.event_id for sent in records if sent.event_id],
            [(at.partition, at.offset) for at, sent in zip(positions, records, strict=True) if not sent.event_id],
            number,
        )
        number += 1
        time.sleep(settings.pause_s)
    producer.close()


if __name__ == "__main__":
    main()
