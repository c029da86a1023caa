"""Files of conversations become events on the log: `ratchet import` calls it.

What was published before an error or an interruption stays published. Since the ids of the events follow from what the
conversations say, the same file can be imported again: what the store has, it has once.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

from ratchet_client.events import Event, RetractionEvent
from ratchet_client.kafka.signatures import SIGNATURE_HEADER, sign
from ratchet_client.settings import FrozenModel
from streams.errors import ExchangeError, UnnamedError
from streams.exchange.conversation import NOT_LEARNED
from streams.exchange.documents import Document, documents
from streams.exchange.episodes import Attribution, ImportedEpisode, episode_of
from streams.exchange.formats import FORMATS, FormatName
from streams.intake.admission import Admission
from streams.kafka.clients import producer
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets

MOST_SKIPPED_NAMED = 100
_ACKNOWLEDGE_TIMEOUT_S = 30.0
_MOST_UNDER_WAY = 500
_MAX_REQUEST_BYTES = 20 * 2**20

# Takes events, and returns when so many of them are under way that it must wait no longer.
Publish: TypeAlias = Callable[[Sequence[Event]], None]
# Is told how many bytes of a file are read, and how many conversations.
Watch: TypeAlias = Callable[[int, int], None]


class Skipped(FrozenModel):
    """A document that was passed over, and why."""

    file: str
    place: str
    error: str


class ImportReport(FrozenModel):
    """The result of `ratchet import`.

    `repeated` conversations say the same as one before them, and are the same episode. Of `flagged` ones nothing is
    learned; those `without_outcome` are not trusted. `left_out` counts documents by the field that Ratchet has no place
    for, `warnings` those of which something may have been overlooked. `skipped` counts those that could not be read;
    `errors` has the first of these.
    """

    conversations: int
    steps: int
    successes: int
    failures: int
    without_outcome: int
    repeated: int
    flagged: int
    skipped: int
    left_out: dict[str, int]
    warnings: dict[str, int]
    errors: tuple[Skipped, ...]


@dataclass(slots=True)
class Import:
    """An import under way. `admission` refuses beforehand what the record role would refuse.

    Its `report` may be asked for at any time.
    """

    format: FormatName
    attribution: Attribution
    admission: Admission
    publish: Publish
    skip_invalid: bool = False
    _counts: Counter[str] = field(default_factory=Counter)
    _left_out: Counter[str] = field(default_factory=Counter)
    _warnings: Counter[str] = field(default_factory=Counter)
    _errors: list[Skipped] = field(default_factory=list)
    _seen: set[bytes] = field(default_factory=set)

    def take(self, name: str, file: BinaryIO, watch: Watch) -> None:
        """Publish every conversation of `file`. Raises `ExchangeError` at the first that cannot be read, unless they
        are skipped, `UnnamedError` when the very first conversation lacks a name, and `BrokerError` when the cluster
        fails."""
        for document in documents(file):
            try:
                episode = self._read(name, document)
            except ExchangeError as error:
                if isinstance(error, UnnamedError) and not self._counts["conversations"]:
                    raise
                self._skip(Skipped(file=name, place=document.place, error=str(error)))
            else:
                self._publish(episode)
            watch(document.read, self._counts["conversations"])

    def report(self) -> ImportReport:
        counts = self._counts
        return ImportReport(
            conversations=counts["conversations"],
            steps=counts["steps"],
            successes=counts["successes"],
            failures=counts["failures"],
            without_outcome=counts["without_outcome"],
            repeated=counts["repeated"],
            flagged=counts["flagged"],
            skipped=counts["skipped"],
            left_out=dict(sorted(self._left_out.items())),
            warnings=dict(self._warnings),
            errors=tuple(self._errors),
        )

    def _read(self, name: str, document: Document) -> ImportedEpisode:
        if document.content is None:
            raise ExchangeError(document.error)
        conversation = FORMATS[self.format].read(document.content)
        source = {"file": name, "place": document.place}
        episode = episode_of(conversation, document.content, self.attribution, source)
        for event in episode.events:
            received = Received("", 0, 0, b"", event.to_json())
            if (refusal := self.admission.refusal(received, event)) is not None:
                raise ExchangeError(f"the record role would refuse it: {refusal}")
        left_out = conversation.left_out
        if self.attribution.actor != "policy":
            left_out |= conversation.of_policies
        self._warnings.update([conversation.warning] if conversation.warning else [])
        self._left_out.update(left_out - self.attribution.fields_in(document.content))
        return episode

    def _publish(self, episode: ImportedEpisode) -> None:
        self._counts["conversations"] += 1
        digest = bytes.fromhex(episode.episode_id)[:16]
        if digest in self._seen:
            self._counts["repeated"] += 1
            return
        self.publish(episode.events)
        self._seen.add(digest)
        self._counts["steps"] += len(episode.steps)
        self._counts["flagged"] += episode.steps[0].flag == NOT_LEARNED
        if episode.outcome is None:
            self._counts["without_outcome"] += 1
        else:
            self._counts["successes" if episode.outcome.success else "failures"] += 1

    def _skip(self, skipped: Skipped) -> None:
        if not self.skip_invalid:
            raise ExchangeError(
                f"{skipped.file}, {skipped.place}: {skipped.error}; the {self._counts['conversations']} conversations "
                "before it were read, and nothing after it: mend it and import the file again, which stores nothing "
                "twice, or pass --skip-invalid"
            )
        self._counts["skipped"] += 1
        if len(self._errors) < MOST_SKIPPED_NAMED:
            self._errors.append(skipped)


@contextmanager
def publishing(kafka: KafkaSettings, key: bytes | None) -> Iterator[Publish]:
    """Publishes events, signed with `key`, and waits for all of them at the end, also after an exception.

    Raises `BrokerError` when the cluster cannot be reached, has no such topic or does not take an event.
    """
    end_offsets(kafka.bootstrap, kafka.events_topic, kafka.security)  # says so where there is no such topic
    remedy = "import the file again when it is healthy: what the store has, it has once"
    options = {"max_request_size": _MAX_REQUEST_BYTES}
    with producer("import", kafka.bootstrap, kafka.security, remedy, **options) as client:
        under_way: deque[Any] = deque()

        def publish(events: Sequence[Event]) -> None:
            for event in events:
                value = event.to_json()
                headers = [] if key is None else [(SIGNATURE_HEADER, sign(key, value).encode())]
                under_way.append(client.send(kafka.events_topic, key=_key_of(event), value=value, headers=headers))
            settle(_MOST_UNDER_WAY)

        def settle(most: int) -> None:
            while len(under_way) > most:
                under_way.popleft().get(timeout=_ACKNOWLEDGE_TIMEOUT_S)

        try:
            yield publish
        finally:
            client.flush(timeout=_ACKNOWLEDGE_TIMEOUT_S)
            settle(0)


def _key_of(event: Event) -> bytes:
    """The key of a record: events of an episode stay in order by it."""
    return (event.principal if isinstance(event, RetractionEvent) else event.episode_id).encode()
