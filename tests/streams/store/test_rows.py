"""Rows are made by the names of their columns, and a name too many, too few or misspelt does not pass in silence."""

from typing import Any

import pytest

from ratchet_client.events import Actor, Event, RetractionEvent, StepEvent
from ratchet_client.ids import content_id
from ratchet_client.messages import as_json
from streams.branch_events import Failure, RecordedStep, Recovery, RecoveryResult
from streams.errors import StoreError
from streams.kafka.records import Outgoing
from streams.kafka.refusals import RefusedEvent, Unreadable
from streams.store.database import arrow_table
from streams.store.rows import Batch
from streams.store.tables import TABLES
from streams.store.writer import Store
from tests.builders.episodes import KAFKA, episode, task
from tests.builders.stored import branches, column, raw, records

FLAG: dict[str, object] = {"sequence": 1, "episode_id": "a", "reason": "quota"}


def test_a_row_with_its_tables_columns_in_any_order_is_that_row() -> None:
    swapped = dict(reversed(FLAG.items()))
    assert arrow_table("flags", [FLAG, swapped]).to_pylist() == [FLAG, FLAG]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"sequence": 1, "episode_id": "a"}, r"table flags lacks columns \(reason\) or has unknown ones \(none\)"),
        ({**FLAG, "why": "quota"}, r"table flags lacks columns \(none\) or has unknown ones \(why\)"),
        (
            {"sequence": 1, "episode_id": "a", "raeson": "quota"},
            r"table flags lacks columns \(reason\) or has unknown ones \(raeson\)",
        ),
    ],
    ids=["missing", "unknown", "misspelt"],
)
def test_a_row_with_other_columns_is_refused_by_table_and_column(row: dict[str, object], error: str) -> None:
    with pytest.raises(StoreError, match=error):
        arrow_table("flags", [FLAG, row])


def test_a_refused_row_keeps_the_whole_transaction_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def misspelt(batch: Batch, message: Outgoing) -> None:
        batch.add("outbox", topic=message.topic, kye=message.key, value=message.value)

    monkeypatch.setattr(Batch, "outgoing", misspelt)
    with pytest.raises(StoreError, match=r"table outbox lacks columns \(key\) or has unknown ones \(kye\)"):
        store.append(records(episode("a")))
    assert column(store, "SELECT count(*) FROM events") == [0]
    monkeypatch.undo()
    assert store.append(records(episode("a"))).stored == 3


def test_cells_cannot_be_given_by_position() -> None:
    batch: Any = Batch(1)
    with pytest.raises(TypeError):
        batch.add("flags", "a", "quota")


def test_whatever_a_record_says_becomes_rows_that_their_tables_take() -> None:
    batch = Batch(7)
    branched = branches("a").model_copy(update={"failures": (Failure(action="hang", failure_kind="timeout"),)})
    request_id = content_id("branch_request", "failed", "a")
    recovered = RecoveryResult(
        event_id=RecoveryResult.id_for(request_id),
        request_id=request_id,
        episode_id="a",
        task=task(),
        attempts=4,
        sandbox_steps=11,
        fidelity="sandbox_replayed",
        policy="base",
        recoveries=(
            Recovery(left_at=1, steps=(RecordedStep(action="go", observation="."),), score=1.0, source="policy"),
        ),
    )
    events: list[Event] = [*episode("a"), RetractionEvent(principal="p", reason="asked")]
    for content in (*events, branched, recovered):
        batch.content(raw(b""), content, {"a": "tenant/a"})
    batch.refused(raw(None).received, Unreadable("no value"))
    batch.refused(raw(None).received, RefusedEvent("too large", "p"))
    batch.erased(raw(None).received, "a-9", "a")
    batch.duplicate(raw(None).received, "a-0")
    batch.outgoing(Outgoing("topic", b"a", b"{}"))
    tables = batch.take_rows()
    made = {name: arrow_table(name, rows) for name, rows in tables.items()}
    judged = {"trusted", "failed", "untrusted", "undecided", "flags", "practised"}
    assert set(TABLES) - set(made) == judged | {"redactions", "gaps", "logs", "offsets"}
    sequences = sorted(number for table in made.values() for number in table["sequence"].to_pylist())
    assert sequences == list(range(7, batch.sequence))
    assert batch.added == {name: len(rows) for name, rows in tables.items()}
    assert batch.take_rows() == {}


def test_each_cell_of_a_step_is_under_its_own_name() -> None:
    step = episode("a")[1]
    assert isinstance(step, StepEvent)
    step = step.model_copy(update={"actor": Actor(kind="policy", adapter="base-1"), "receipt": "receipt-1"})
    batch = Batch(1)
    batch.content(raw(b"", offset=4), step, {})
    tables = batch.take_rows()
    (transition,) = tables["transitions"]
    assert transition == {
        "sequence": 2,
        "transition_id": "a-1",
        "origin": "production",
        "episode_id": "a",
        "step": 1,
        "environment": "textworld_express",
        "task_id": step.task.task_id,
        "seed": step.task.seed,
        "messages": as_json(step.messages),
        "action": '{"role":"assistant","content":"go 1"}',
        "observation": '[{"role":"user","content":"Done 1."}]',
        "done": True,
        "actor_kind": "policy",
        "adapter": "base-1",
        "fidelity": "recorded",
        "score": None,
        "source": None,
        "principal": step.principal,
        "tools": None,
        "receipt": "receipt-1",
        "log_probabilities": None,
        "advice": None,
        "state": None,
    }
    (event,) = tables["events"]
    assert event == {
        "sequence": 1,
        "event_id": "a-1",
        "kind": "step",
        "episode_id": "a",
        "topic": KAFKA.events_topic,
        "partition": 0,
        "offset": 4,
        "recorded_at": step.recorded_at,
        "agent": "assistant",
    }
