"""Spans on a real disk: kept once, complete when silent, and forgotten once their events are decided on."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet_client.events import StepEvent
from streams import schema_versions
from streams.assembly.assembler import Assembler
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState
from streams.assembly.status import AssemblyStatus
from streams.assembly.tables import version_of
from streams.errors import NewerRecordError, StoreError
from streams.intake.admission import Admission, AdmissionSettings
from streams.intake.decoding import decode_event
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.otlp.records import AnyRecord, Attributes
from streams.runtime.tally import Tally
from tests.builders.spans import TRACE, conventions, evaluation, game, root, span, states

SETTLE, IDLE, CONVERSATION = 10.0, 60.0, 600.0


@pytest.fixture
def settings(tmp_path: Path) -> AssemblySettings:
    return AssemblySettings(path=tmp_path / "assembly.sqlite", retention_s=1000)


@pytest.fixture
def reopen(settings: AssemblySettings) -> Iterator[Callable[[float], AssemblyState]]:
    """Opens the same file each time, after closing it."""
    opened: list[AssemblyState] = []

    def again(now: float) -> AssemblyState:
        if opened:
            opened.pop().close()
        opened.append(AssemblyState.open(settings, now))
        return opened[0]

    yield again
    opened.pop().close()


@pytest.fixture
def state(reopen: Callable[[float], AssemblyState]) -> AssemblyState:
    return reopen(0.0)


def close_all(state: AssemblyState, settings: AssemblySettings, now: float) -> list[str]:
    """Assemble what is due; returns the episodes of the steps that came of it."""
    assembler = Assembler(state, KafkaSettings(), settings, {}, Tally(AssemblyStatus()))
    for unit in state.due(now):
        assembler.assemble(unit)
    pending = state.pending(1000)
    if pending:
        state.published(pending[-1].number)
    return [StepEvent.model_validate_json(entry.message.value or b"").episode_id for entry in pending]


def test_a_trace_is_complete_when_its_root_came_and_nothing_follows(state: AssemblyState) -> None:
    assert state.add(game(), now=100) == 0
    assert state.due(100 + SETTLE - 1) == []
    assert [unit.name for unit in state.due(100 + SETTLE)] == [TRACE]


def test_without_a_root_it_takes_longer_and_a_conversation_longer_still(state: AssemblyState) -> None:
    state.add(game()[:-1], now=0)
    state.add(game(trace_id="a" * 32, principal="ann"), now=0)
    talk: Attributes = {"gen_ai.conversation.id": "talk"}
    state.add([span(n + 1, conventions(*s) | talk, trace_id=f"{n + 1:032x}") for n, s in enumerate(states())], now=0)
    assert [unit.name for unit in state.due(SETTLE)] == ["a" * 32]
    assert {unit.name for unit in state.due(IDLE)} == {"a" * 32, TRACE}
    assert {unit.name for unit in state.due(CONVERSATION)} == {"a" * 32, TRACE, "talk"}


def test_a_conversation_of_many_traces_is_one_episode(state: AssemblyState, settings: AssemblySettings) -> None:
    talk: Attributes = {"gen_ai.conversation.id": "talk"}
    for number, chat in enumerate(states()):
        trace = f"{number + 1:032x}"
        call = span(number + 1, conventions(*chat), trace_id=trace)
        state.add([call, root(talk, trace_id=trace)], now=number)
    assert close_all(state, settings, CONVERSATION + 3) == ["talk"] * 3


def test_spans_that_come_again_are_counted_and_change_nothing(state: AssemblyState, settings: AssemblySettings) -> None:
    state.add(game(), now=0)
    assert state.add(game(), now=1) == 4
    assert close_all(state, settings, 100) == [TRACE] * 3
    assert state.add(game(), now=101) == 4
    assert close_all(state, settings, 200) == []


def test_late_calls_are_a_further_episode_and_late_evaluations_find_theirs(
    state: AssemblyState, settings: AssemblySettings
) -> None:
    first, second, third, end = game()
    state.add([first, end], now=0)
    assert close_all(state, settings, SETTLE) == [TRACE]
    state.add([third, second], now=100)
    late = f"{TRACE}/{second.span_id}"
    assert close_all(state, settings, 100 + SETTLE) == [late] * 2
    state.add([evaluation(3, score_label="pass")], now=200)
    Assembler(state, KafkaSettings(), settings, {}, Tally(AssemblyStatus())).assemble(state.due(300)[0])
    assert state.pending(10)[0].message.key == late.encode()


def test_equal_ids_of_two_principals_are_two_traces(state: AssemblyState, settings: AssemblySettings) -> None:
    state.add(game(principal="ann"), now=0)
    assert state.add(game(principal="bob"), now=0) == 0
    assert len(close_all(state, settings, SETTLE)) == 6


def test_open_traces_survive_a_restart_and_wait_again(
    reopen: Callable[[float], AssemblyState], settings: AssemblySettings
) -> None:
    reopen(0).add(game(), now=0)
    state = reopen(5000)
    assert state.due(5000 + SETTLE - 1) == []
    assert close_all(state, settings, 5000 + SETTLE) == [TRACE] * 3


def test_decided_events_survive_a_restart_until_they_are_published(
    reopen: Callable[[float], AssemblyState], settings: AssemblySettings
) -> None:
    state = reopen(0)
    state.add(game(), now=0)
    Assembler(state, KafkaSettings(), settings, {}, Tally(AssemblyStatus())).assemble(state.due(SETTLE)[0])
    before = state.pending(10)
    state = reopen(1)
    assert state.pending(10) == before
    assert len(before) == 3
    state.published(before[-1].number)
    assert (state.pending(10), state.due(10_000)) == ([], [])


def test_records_that_come_while_their_trace_is_assembled_are_not_forgotten(
    state: AssemblyState, settings: AssemblySettings
) -> None:
    first, *others = game()
    state.add([first], now=0)
    (unit,) = state.due(IDLE)
    records, _ = state.read(unit)
    state.add(others, now=IDLE)
    state.close_unit(unit, records, {}, [])
    assert state.due(IDLE + SETTLE) == [unit]
    assert len(state.read(unit)[0]) == 3


def test_a_trace_that_never_ends_is_assembled_when_it_is_large(tmp_path: Path) -> None:
    settings = AssemblySettings(path=tmp_path / "small.sqlite", max_open_bytes=1000)
    state = AssemblyState.open(settings, 0)
    state.add(game()[:-1], now=0)
    assert [unit.name for unit in state.due(0)] == [TRACE]
    close_all(state, settings, 0)
    assert state.due(0) == []
    state.close()


def test_content_is_erased_from_the_file_and_old_traces_are_deleted(
    reopen: Callable[[float], AssemblyState], settings: AssemblySettings
) -> None:
    state = reopen(0)
    state.add(game(), now=0)
    close_all(state, settings, SETTLE)
    state = reopen(20)
    assert b"fridge" not in b"".join(path.read_bytes() for path in settings.path.parent.iterdir())
    state.prune(now=999)
    assert state.add(game(), now=999) == 4
    state.prune(now=1001)
    assert state.add(game(), now=1001) == 0


def test_the_file_of_an_older_version_is_taken_over_with_what_is_open_in_it(settings: AssemblySettings) -> None:
    older = settings.path.with_name("otlp.sqlite")
    state = AssemblyState.open(settings.model_copy(update={"path": older}), 0)
    state.add(game(), now=0)
    state.close()
    with sqlite3.connect(older) as connection:
        connection.executescript("ALTER TABLE traces RENAME COLUMN kind TO conversation; DROP TABLE replies")
    connection.close()
    state = AssemblyState.open(settings, 5)
    assert close_all(state, settings, 5 + SETTLE) == [TRACE] * 3
    state.close()
    assert not older.exists()


def test_a_file_of_a_newer_version_is_refused_and_stays_as_it_is(
    state: AssemblyState, settings: AssemblySettings
) -> None:
    state.close()
    with sqlite3.connect(settings.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = settings.path.read_bytes()
    with pytest.raises(StoreError, match="has version 2, and this version of Ratchet knows versions up to 1: a newer"):
        AssemblyState.open(settings, 0)
    assert settings.path.read_bytes() == before
    assert version_of(settings.path) == 2


def test_the_version_of_a_file_is_told_while_what_was_written_last_waits_beside_it(
    state: AssemblyState, settings: AssemblySettings
) -> None:
    state.add(game(), now=0)
    assert settings.path.with_name("assembly.sqlite-wal").stat().st_size > 0
    assert version_of(settings.path) == schema_versions.ASSEMBLY


def test_a_second_process_cannot_open_the_file(state: AssemblyState, settings: AssemblySettings) -> None:
    with pytest.raises(StoreError, match="only one assemble role"):
        AssemblyState.open(settings, 0)


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff", b'{"record":"span"}'])
def test_what_the_intake_did_not_write_becomes_a_dead_letter(
    state: AssemblyState, settings: AssemblySettings, value: bytes | None
) -> None:
    kafka = KafkaSettings()
    good: list[AnyRecord] = [span(1)]
    assembler = Assembler(state, kafka, settings, {}, Tally(AssemblyStatus()))
    batch = [Received(kafka.spans_topic, 0, 7, b"k", value), Received(kafka.spans_topic, 0, 8, b"k", good[0].to_json())]
    (letter,) = assembler.keep(batch)
    assert (letter.topic, letter.value) == (kafka.dead_letters_topic, value)
    assert dict(letter.headers)["ratchet-offset"] == b"7"
    assert assembler.tally.status.unreadable == 1


def test_a_span_of_a_newer_version_waits_for_the_upgrade(state: AssemblyState, settings: AssemblySettings) -> None:
    assembler = Assembler(state, KafkaSettings(), settings, {}, Tally(AssemblyStatus()))
    newer = json.dumps(json.loads(span(1).to_json()) | {"schema": 2, "kind": "client"}).encode()
    with pytest.raises(NewerRecordError, match=r"ratchet\.spans/0/7 has schema 2"):
        assembler.keep([Received(KafkaSettings().spans_topic, 0, 7, b"k", newer)])
    assert not state.due(SETTLE)


def test_only_spans_sent_with_a_token_become_signed_events(state: AssemblyState, settings: AssemblySettings) -> None:
    keys: Any = {"ann": "s3cret"}
    admission = AdmissionSettings(principals=keys)
    state.add(
        [*game(principal="ann"), evaluation(1, score_label="pass").model_copy(update={"principal": "ann"})], now=0
    )
    assembler = Assembler(state, KafkaSettings(), settings, admission.principals, Tally(AssemblyStatus()))
    assembler.assemble(state.due(SETTLE)[0])
    entries = state.pending(10)
    assert len(entries) == 4
    for entry in entries:
        received = Received("events", 0, 0, entry.message.key, entry.message.value, entry.message.headers)
        event: Any = decode_event(received).content
        assert Admission(admission).unsigned(received, event) is None
    claimed = [span(1, conventions(*states()[0]) | {"user.id": "ann"}), root()]
    state.published(entries[-1].number)
    state.add(claimed, now=100)
    assembler.assemble(state.due(200)[0])
    assert state.pending(10)[0].message.headers == ()
