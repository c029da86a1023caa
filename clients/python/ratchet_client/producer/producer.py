"""The library for agents: publishes what they do to `ratchet.events`, and never gets in their way.

Agents import it; it imports pydantic and kafka-python, and nothing heavier. `docs/producer.md` shows its use.
"""

import atexit
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError

from ratchet_client.errors import SpoolError
from ratchet_client.events import Actor, Event, Message, OutcomeEvent, RetractionEvent, StepEvent, Task
from ratchet_client.ids import uuid7
from ratchet_client.kafka.security import KafkaSecurity
from ratchet_client.kafka.signatures import sign
from ratchet_client.messages import MESSAGE, MESSAGES, TOOLS, user
from ratchet_client.producer.backlog import Backlog
from ratchet_client.producer.delivery import Delivery
from ratchet_client.producer.sender import Sender
from ratchet_client.producer.settings import Compression, ProducerSettings
from ratchet_client.producer.spool import Spool
from ratchet_client.producer.spool_file import Entry

MAX_EVENT_BYTES = 16 * 2**20


class Dumpable(Protocol):
    """An object of an SDK, such as the message of an OpenAI reply."""

    def model_dump(self, *, exclude_none: bool) -> Any:
        """Return it as a JSON object."""


# A message, the JSON object that an OpenAI client sends and gets, or the SDK's own object.
Said: TypeAlias = Message | Mapping[str, object] | Dumpable
# Where a message is of a type that is not known.
_NO_OBJECT = frozenset({"model_type", "model_attributes_type", "tuple_type"})
_REMEDY = "; a message is a JSON object, such as an SDK's `.model_dump(exclude_none=True)`, and several are a list"
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """Counts of a producer's events. `sent` were acknowledged by the cluster, `dropped` are lost."""

    queued: int
    spooled_bytes: int
    sent: int
    dropped: int


class Episode:
    """One attempt at a task. Its steps are numbered as they are recorded; record them in one thread."""

    def __init__(
        self,
        record: Callable[[Callable[[], Event]], bool],
        agent: str,
        principal: str,
        task: Task,
        actor: Actor,
        episode_id: str,
    ) -> None:
        """Made by `Producer.episode`."""
        self.episode_id = episode_id
        self._record = record
        self._agent = agent
        self._principal = principal
        self._task = task
        self._actor = actor
        self._steps = 0

    def step(
        self,
        messages: Sequence[Said],
        action: Said,
        observation: Sequence[Said] | str | None,
        *,
        tools: Sequence[Mapping[str, object]] | None = (),
        done: bool = False,
        actor: Actor | None = None,
    ) -> bool:
        """Publish one step: exactly what the actor saw, what it did, what came back; see `Producer.publish`.

        `observation` has the messages that follow the action: results of its tool calls, the user's next words, or
        both; a text stands for one message of the user. `tools` are those that the actor was offered at this step. None
        is nothing of either.
        `actor` is who acted if this one step is not the episode's actor's.
        """
        number = self._steps
        self._steps += 1
        return self._record(
            lambda: StepEvent(
                episode_id=self.episode_id,
                step=number,
                agent=self._agent,
                principal=self._principal,
                task=self._task,
                tools=_read("tools", TOOLS, tuple(dict(tool) for tool in tools or ())),
                messages=_read("messages", MESSAGES, _all_plain(messages)),
                action=_read("action", MESSAGE, _plain(action)),
                observation=(
                    (user(observation),)
                    if isinstance(observation, str)
                    else _read("observation", MESSAGES, _all_plain(() if observation is None else observation))
                ),
                done=done,
                actor=actor or self._actor,
            )
        )

    def outcome(
        self, *, verifier: str, success: bool, score: float, evidence: Mapping[str, JsonValue] | None = None
    ) -> bool:
        """Publish a verifier's verdict on the episode; see `Producer.publish`."""
        return self._record(
            lambda: OutcomeEvent(
                episode_id=self.episode_id,
                verifier=verifier,
                success=success,
                score=score,
                evidence=dict(evidence or {}),
            )
        )


class Producer:
    """Publishes events from a background thread. Use it as a context manager, or call `close`.

    Nothing is connected or written before the first event or `with`. Events of one episode arrive in the order of their
    publishing. An event may arrive twice, with the same `event_id`, which the store recognises; it is dropped only when
    the backlog is full, when it is larger than the cluster takes, or when it cannot be written as JSON. The oldest
    are kept: of an episode that is cut off, its beginning is worth more than its end.

    By default an event waits in memory, and on disk once the cluster has not acknowledged for half a second, so that an
    agent never waits for a disk; an agent that is killed loses what was in memory, with a healthy cluster the last
    milliseconds. With `durable`, `publish` returns when the event is synced to the spool, for half a millisecond to ten
    of the agent's time, and then neither a kill nor a power cut loses it.

    A forked child has a producer that works, with a spool file of its own; what was queued stays with the parent.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        agent: str,
        principal: str,
        topic: str = "ratchet.events",
        spool: Path | None = None,
        durable: bool = False,
        key: bytes | None = None,
        security: KafkaSecurity | None = None,
        memory_bytes: int = 64 * 2**20,
        spool_bytes: int = 2**30,
        flush_timeout_s: float = 5.0,
        compression: Compression | None = None,
    ) -> None:
        """`bootstrap` lists addresses host:port, separated by commas.

        `spool` is a folder for this cluster's topic; any number of processes may share it. Without one, events wait in
        memory only. What a killed process left there is sent by the next producer that starts with it. `key` signs
        every event with HMAC-SHA256; `security` is TLS and SASL, none by default. `close` waits for the cluster no
        longer than `flush_timeout_s`. `compression` is the codec of what goes to the cluster, none by default.

        Raises `ConfigurationError` for arguments that are wrong, `durable` without a `spool` and a codec that is not
        installed, and nothing later.
        """
        self._settings = ProducerSettings.of(
            bootstrap=bootstrap,
            agent=agent,
            principal=principal,
            topic=topic,
            spool=spool,
            durable=durable,
            key=key,
            security=security or KafkaSecurity(),
            memory_bytes=memory_bytes,
            spool_bytes=spool_bytes,
            flush_timeout_s=flush_timeout_s,
            compression=compression,
        )
        self._begin()
        _PRODUCERS.add(self)

    def __enter__(self) -> Self:
        self._sender.wake()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def episode(self, task: Task, actor: Actor, episode_id: str | None = None) -> Episode:
        """A new episode, with a fresh id unless it continues one that has begun elsewhere."""
        return Episode(self._record, self._settings.agent, self._settings.principal, task, actor, episode_id or uuid7())

    def publish(self, event: Event) -> bool:
        """Take the event for publishing. Never raises and never waits for the cluster.

        True when it was taken, and then, if `durable`, it is on disk; False when it was dropped, which is counted.
        """
        return self._record(lambda: event)

    def stats(self) -> ProducerStats:
        return ProducerStats(self._backlog.queued, self._backlog.spooled_bytes, self._sender.sent, self._sender.dropped)

    def close(self) -> None:
        """Send what is left, for `flush_timeout_s` at most, and spool the rest. Events after it are dropped."""
        if not self._sender.stopping:
            self._sender.stop(self._settings.flush_timeout_s)

    def _begin(self) -> None:
        """Set the state of a new producer, or of a forked child."""
        own = self._settings
        self._backlog = Backlog(own.memory_bytes, Spool(own.spool, own.spool_bytes) if own.spool else None)
        delivery = Delivery(own.bootstrap, own.security, own.topic, own.compression)
        self._sender = Sender(own.agent, self._backlog, delivery)

    def _continue_in_child(self) -> None:
        self._sender.leave_to_parent()
        self._begin()

    def _record(self, build: Callable[[], Event]) -> bool:
        try:
            event = build()
            value = event.to_json()
            key = (event.principal if isinstance(event, RetractionEvent) else event.episode_id).encode()
        # An agent may hand over anything at all, and is not to be told of it.
        except Exception as error:  # noqa: BLE001 - an object of its own may raise any
            return self._drop(f"they are not valid: {_without_content(error)}")
        if len(value) > MAX_EVENT_BYTES:
            return self._drop(f"they are larger than {MAX_EVENT_BYTES} bytes")
        if self._sender.stopping:
            return self._drop("the producer is closed")
        own = self._settings
        entry = Entry(key, value, sign(own.key, value).encode() if own.key else b"")
        try:
            kept = self._backlog.put_on_disk(entry) if own.durable else self._backlog.put(entry)
        except SpoolError as error:
            return self._drop(f"the spool failed: {error}")
        self._sender.wake()
        return kept or self._drop("the backlog is full")

    def _drop(self, reason: str) -> Literal[False]:
        self._sender.drop(reason)
        return False


class _UnreadableError(ValueError):
    """A field of a step is not what it should be. The message has nothing of its content."""


def _plain(said: Said) -> Said:
    return said if isinstance(said, Message | Mapping) or not hasattr(said, "model_dump") else _dumped(said)


def _dumped(said: Dumpable) -> Said:
    dumped: Mapping[str, object] = said.model_dump(exclude_none=True)
    return dumped


def _all_plain(said: Sequence[Said]) -> tuple[Said, ...] | object:
    """Each of the messages; what is no sequence of them stays as it is, and is refused when it is read."""
    alone = isinstance(said, Message | Mapping | str) or hasattr(said, "model_dump") or not isinstance(said, Iterable)
    return said if alone else tuple(_plain(one) for one in said)


def _read(field: str, adapter: TypeAdapter[_Value], value: object) -> _Value:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        faults = error.errors(include_input=False)
        told = ", ".join(f"{'.'.join(map(str, (field, *at['loc'])))}: {at['type']}" for at in faults)
        raise _UnreadableError(f"{told}{_REMEDY if any(at['type'] in _NO_OBJECT for at in faults) else ''}") from None


def _without_content(error: Exception) -> str:
    if isinstance(error, _UnreadableError):
        return str(error)
    if isinstance(error, ValidationError):
        return ", ".join(f"{'.'.join(map(str, at['loc']))}: {at['type']}" for at in error.errors(include_input=False))
    return type(error).__name__


_PRODUCERS: weakref.WeakSet[Producer] = weakref.WeakSet()


def _close_all() -> None:
    for producer in list(_PRODUCERS):
        producer.close()


def _continue_all_in_child() -> None:
    for producer in list(_PRODUCERS):
        producer._continue_in_child()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_continue_all_in_child)
