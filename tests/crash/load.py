"""The agents of the crash tests: `python -m tests.crash.load SETTINGS` publishes episodes and keeps a ledger.

What a batch holds follows from its number alone, so that after a kill the load goes on where its ledger ends, and sends
again what was not acknowledged: as an agent does that has died between sending and knowing.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from kafka import KafkaProducer
from kafka.producer.future import FutureRecordMetadata
from pydantic import TypeAdapter

from ratchet_client.events import Actor, Message, OutcomeEvent, StepEvent, Task
from ratchet_client.messages import Record
from ratchet_client.producer import Producer
from ratchet_client.settings import FrozenModel
from streams.branch_events import RecordedStep
from streams.environments.harness import ChatHarness
from tests.crash.ledger import Ledger
from tests.waiting import until

ACKNOWLEDGED_WITHIN_S = 150.0


class Recording(Record):
    """An episode that was really played."""

    task: Task
    opening: tuple[Message, ...]
    steps: tuple[RecordedStep, ...]


RECORDINGS: TypeAdapter[tuple[Recording, ...]] = TypeAdapter(tuple[Recording, ...])


class LoadSettings(FrozenModel):
    """Publishes until it has published `batches`, or the file `stop` is there.

    `recordings` is a JSON file, in which a held-out task's comes last.

    With `spool` the agents use `ratchet_client.producer`, and acknowledged is what it promised to keep; without, they
    talk to Kafka themselves, and acknowledged is what Kafka did.
    """

    name: str
    bootstrap: str
    topic: str
    recordings: Path
    ledger: Path
    stop: Path
    spool: Path | None = None
    episodes: int = 8
    batches: int | None = None
    pause_s: float = 0.0


class Agents(Protocol):
    """Who publishes."""

    def publish(self, events: Sequence[StepEvent | OutcomeEvent], malformed: bytes) -> list[tuple[int, int]]:
        """Return when all is acknowledged, with the positions of what is malformed."""
        ...

    def close(self) -> None:
        """Return when all is in the log."""
        ...


class KafkaAgents:
    """Agents that will not use our library."""

    def __init__(self, settings: LoadSettings) -> None:
        self._topic = settings.topic
        self._producer = KafkaProducer(bootstrap_servers=settings.bootstrap, acks="all")

    def publish(self, events: Sequence[StepEvent | OutcomeEvent], malformed: bytes) -> list[tuple[int, int]]:
        sent = [self._send(event.episode_id.encode(), event.to_json()) for event in events]
        bad = self._send(malformed, malformed).get(timeout=ACKNOWLEDGED_WITHIN_S)
        for future in sent:
            future.get(timeout=ACKNOWLEDGED_WITHIN_S)
        return [(bad.partition, bad.offset)]

    def close(self) -> None:
        self._producer.close()

    def _send(self, key: bytes, value: bytes) -> FutureRecordMetadata:
        return self._producer.send(self._topic, key=key, value=value)


class LibraryAgents:
    """Agents that do."""

    def __init__(self, settings: LoadSettings) -> None:
        self._producer = Producer(
            settings.bootstrap,
            agent="load",
            principal="tenant/library",
            topic=settings.topic,
            spool=settings.spool,
            durable=True,
        )

    def publish(self, events: Sequence[StepEvent | OutcomeEvent], malformed: bytes) -> list[tuple[int, int]]:
        """The library publishes nothing malformed."""
        for event in events:
            if not self._producer.publish(event):
                raise AssertionError(f"the library dropped {event.event_id}")
        return []

    def close(self) -> None:
        until(
            lambda: not self._producer.stats().spooled_bytes,
            lambda: f"the library sends what it promised to send: {self._producer.stats()}",
            within_s=ACKNOWLEDGED_WITHIN_S,
        )
        self._producer.close()


def batch(name: str, number: int, size: int, recordings: Sequence[Recording]) -> Iterator[StepEvent | OutcomeEvent]:
    """The events of a batch: of eight episodes one is branched, one is dropped, one held out, five have failed.

    The last event comes again, as an agent sends it that was not told of its success.
    """
    *training, held_out = recordings
    again = None
    for number_of_episode in range(number * size, (number + 1) * size):
        recording, episode = training[number_of_episode % len(training)], f"{name}-{number_of_episode}"
        match number_of_episode % 8:
            case 0:
                events = _played(episode, recording, "expert", success=True)
            case 1:
                events = _played(episode, _without_sandbox(recording), "policy", success=True)
            case 2:
                events = _played(episode, held_out, "expert", success=True)
            case _:
                events = _played(episode, recording, "policy", success=False)
        for again in events:
            yield again
    if again is not None:
        yield again


def _without_sandbox(recording: Recording) -> Recording:
    return recording.model_copy(update={"task": recording.task.model_copy(update={"environment": "elsewhere"})})


def _played(
    name: str, recording: Recording, actor: Literal["policy", "expert"], *, success: bool
) -> Iterator[StepEvent | OutcomeEvent]:
    harness, messages = ChatHarness(), recording.opening
    for index, step in enumerate(recording.steps):
        yield StepEvent(
            event_id=f"{name}/{index}",
            episode_id=name,
            step=index,
            agent="load",
            principal="tenant/load",
            task=recording.task,
            messages=messages,
            action=step.action,
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
    agents: Agents = LibraryAgents(settings) if settings.spool else KafkaAgents(settings)
    number = ledger.read().batches
    while not settings.stop.exists() and (settings.batches is None or number < settings.batches):
        events = list(batch(settings.name, number, settings.episodes, recordings))
        malformed = agents.publish(events, f"{settings.name}-{number} is not an event".encode())
        ledger.write([event.event_id for event in events], malformed, number)
        number += 1
        time.sleep(settings.pause_s)
    agents.close()


if __name__ == "__main__":
    main()
