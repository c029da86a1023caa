"""Whatever is published, nothing crashes, and each record is stored, a duplicate, dead-lettered or quarantined."""

import asyncio
import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kafka import KafkaProducer

from streams.intake.admission import Admission, AdmissionSettings
from streams.intake.pipeline import Intake
from streams.intake.role import serve
from streams.kafka.refusals import Unreadable
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from streams.runtime.processes import free_port
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.store.status import StoreStatus, status
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings
from tests.streams.intake.hostile import HEADERS, MARKER, TEXTS, Hostile, fuzz
from tests.waiting import eventually

KAFKA = KafkaSettings()
PARTITIONS = 4
BATCH = 500
# Big enough for the largest record that the fuzzer makes, with room for what comes around it.
MAX_REQUEST_BYTES = 16 * 2**20

NUMBERS = st.one_of(st.integers(), st.integers(-(2**64), 2**64), st.floats())
TEXT = st.one_of(st.text(max_size=40), st.sampled_from(TEXTS))
NAME = TEXT.filter(bool)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(("system", "user", "assistant", "tool")), "content": TEXT})
TASK = st.fixed_dictionaries({"environment": TEXT, "task_id": NAME, "seed": st.integers(-(2**63), 2**63 - 1)})
EVENTS: dict[str, dict[str, st.SearchStrategy[object]]] = {
    "step": {
        "episode_id": NAME,
        "step": st.integers(0, 2**31 - 1),
        "agent": TEXT,
        "principal": TEXT,
        "task": TASK,
        "messages": st.lists(MESSAGE, min_size=1, max_size=3),
        "action": MESSAGE,
        "observation": TEXT,
        "done": st.booleans(),
        "actor": st.fixed_dictionaries({"kind": st.sampled_from(("policy", "expert", "human"))}),
    },
    "outcome": {
        "episode_id": NAME,
        "verifier": TEXT,
        "success": st.booleans(),
        "score": st.floats(allow_nan=False, allow_infinity=False),
        "evidence": st.dictionaries(TEXT, ANYTHING, max_size=3),
    },
    "retraction": {"principal": TEXT, "reason": TEXT},
}


@st.composite
def odd_records(draw: st.DrawFn) -> Hostile:
    """Any bytes, any JSON, or an event of any kind, of which some fields may be of any type or unknown."""
    shape = draw(st.integers(0, 9))
    key = draw(st.one_of(st.none(), st.binary(max_size=8)))
    if shape == 0:
        return Hostile(key, draw(st.one_of(st.none(), st.binary(max_size=200))))
    if shape == 1:
        return Hostile(key, json.dumps(draw(ANYTHING)).encode())
    kind = draw(st.sampled_from(sorted(EVENTS)))
    fields = {"schema": 1, "kind": kind, "event_id": draw(NAME), **draw(st.fixed_dictionaries(EVENTS[kind]))}
    if shape > 5:
        fields |= draw(st.dictionaries(st.one_of(st.sampled_from(sorted(fields)), TEXT), ANYTHING, max_size=3))
    return Hostile(key, json.dumps(fields).encode(), draw(st.sampled_from(HEADERS)))


class Ledger:
    """Puts records through the ingestion pipeline into a store, as the record role does, and counts along."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._intake = Intake(Admission(AdmissionSettings()), Redactor(RedactionSettings(), b"key"))
        self.records = 0
        self.counts = dict.fromkeys(("stored", "duplicates", "dead_letters", "quarantined"), 0)

    def take(self, records: Iterable[Hostile]) -> None:
        received = [
            record.received(KAFKA.events_topic, number % PARTITIONS, number // PARTITIONS)
            for number, record in enumerate(records, self.records)
        ]
        decoded = [self._intake.event(record) for record in received]
        appended = self._store.append(decoded)
        assert appended.replayed == 0
        assert appended.dead_letters == sum(isinstance(record.content, Unreadable) for record in decoded)
        assert appended.dead_letters + appended.quarantined == sum(record.refused is not None for record in decoded)
        self.records += len(received)
        for verdict in self.counts:
            self.counts[verdict] += getattr(appended, verdict)

    def agrees_with(self, store: Store) -> None:
        """Every record has one verdict, the tables have the same numbers, and no refusal quotes what was refused."""
        found = status(store)
        assert sum(self.counts.values()) == self.records
        assert counts_of(found) == self.counts
        assert sum(found.positions[KAFKA.events_topic].values()) == self.records
        assert found.gaps == 0
        assert quoting_refusals(store.query(REFUSALS).column(0).to_pylist()) == []


REFUSALS = "SELECT error FROM dead_letters UNION ALL SELECT reason FROM quarantined"


def counts_of(found: StoreStatus) -> dict[str, int]:
    return {
        "stored": sum(found.events.values()),
        "duplicates": found.duplicates,
        "dead_letters": found.dead_letters,
        "quarantined": found.quarantined,
    }


def quoting_refusals(refusals: list[str]) -> list[str]:
    """Those that repeat what a stranger wrote, or that a terminal would obey."""
    return [refusal for refusal in refusals if MARKER[:7] in refusal or not refusal.isprintable()]


@pytest.mark.slow
@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_fuzzed_records_are_each_counted_once(open_store: Callable[[], Store], count: int) -> None:
    ledger = Ledger(open_store())
    records = fuzz(count)
    while batch := list(islice(records, BATCH)):
        ledger.take(batch)
    assert ledger.records == count
    assert min(ledger.counts.values()) > 0
    ledger.agrees_with(open_store())


@pytest.mark.parametrize("examples", [50, pytest.param(500, marks=pytest.mark.nightly)])
def test_odd_records_are_each_counted_once(open_store: Callable[[], Store], examples: int) -> None:
    ledger = Ledger(open_store())

    @hypothesis_settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(odd_records(), min_size=1, max_size=20))
    def take(records: list[Hostile]) -> None:
        ledger.take(records)

    take()
    ledger.agrees_with(open_store())


def test_an_unusual_but_valid_event_is_not_a_dead_letter() -> None:
    intake = Intake(Admission(AdmissionSettings()), Redactor(RedactionSettings(), b"key"))
    honest = [record for record in fuzz(2000, seed=1) if record.honest]
    decoded = [intake.event(record.received(KAFKA.events_topic, 0, 0)).content for record in honest]
    assert [content for content in decoded if isinstance(content, Unreadable)] == []


def test_a_value_hidden_from_redaction_by_a_repeated_json_key_is_not_stored(
    open_store: Callable[[], Store], tmp_path: Path
) -> None:
    store = open_store()
    honest = next(record for record in fuzz(100) if record.honest and b'"observation":' in (record.value or b""))
    assert honest.value is not None
    doubled = honest.value.replace(b'"observation":', b'"observation":"mail me@example.org","observation":', 1)
    Ledger(store).take([Hostile(None, doubled)])
    assert store.query("SELECT count(*) AS n FROM transitions").column("n").to_pylist() == [1]
    open_store()
    assert b"example.org" not in (tmp_path / "store.duckdb").read_bytes()


@pytest.mark.nightly
async def test_hostile_records_pass_a_real_broker_and_leave_the_recorder_running(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    settings = StoreSettings(path=tmp_path / "store.duckdb", port=free_port(), batch_s=0.1)
    records = list(fuzz(3000, seed=2))
    stop = asyncio.Event()
    recorder = asyncio.create_task(serve(kafka, settings, HoldoutSettings(), stop))
    await asyncio.to_thread(produce, kafka, records)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.send_and_wait(kafka.events_topic, b"{}", headers=[("ratchet-signature", None)])
    async with StoreClient(f"http://127.0.0.1:{settings.port}") as client:
        found = await all_read(client, kafka, recorder)
        refusals = (await client.query(REFUSALS)).column(0).to_pylist()
    stop.set()
    await asyncio.wait_for(recorder, 60)
    letters = sum(end_offsets(kafka.bootstrap, kafka.dead_letters_topic).values())
    assert sum(counts_of(found).values()) == len(records) + 1
    assert letters == found.dead_letters + found.quarantined
    assert quoting_refusals(refusals) == []


class NoUnicode(str):
    """A header name that goes out as bytes that are not UTF-8."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


def produce(kafka: KafkaSettings, records: list[Hostile]) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=MAX_REQUEST_BYTES)
    for number, record in enumerate(records):
        headers = list(record.headers)
        if number % 100 == 0:
            headers.append((NoUnicode("name"), b"\xff"))
        # This producer wants one of them.
        key = b"" if record.key is None and record.value is None else record.key
        producer.send(kafka.events_topic, key=key, value=record.value, headers=headers)
    producer.close()


async def all_read(client: StoreClient, kafka: KafkaSettings, recorder: "asyncio.Task[None]") -> StoreStatus:
    """The status once everything that was published is read."""
    ends = {p: end for p, end in end_offsets(kafka.bootstrap, kafka.events_topic).items() if end}

    async def at_the_end() -> bool:
        return recorder.done() or (await client.status()).positions.get(kafka.events_topic) == ends

    await eventually(at_the_end, "everything is read", within_s=90)
    if recorder.done():
        await recorder
    return await client.status()
