"""What the store remembers is what its tables hold, whatever becomes of a transaction."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.errors import StoreError
from streams.kafka.records import Received
from streams.store.database import Database
from streams.store.memory import Memory
from streams.store.positions import OUTBOX, Positions
from streams.store.rows import Batch
from streams.store.writer import Appended, Store, utc_now
from streams.trust.quota import Admitted
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import HOLDOUT, KAFKA, episode
from tests.builders.stored import column, records

ONE_EACH = QuotaSettings(per_principal=1)
TOPIC = KAFKA.events_topic


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(tmp_path / "store.duckdb", "1GB")
    yield database
    database.close()


def store_on(database: Database) -> Store:
    return Store(database, HOLDOUT, KAFKA, ONE_EACH, utc_now)


def told(memory: Memory, name: str, offset: int) -> None:
    """A transaction that stores the first step of an episode and trusts it."""
    step = episode(name)[0]
    assert memory.positions.passes(Received(TOPIC, 0, offset, None, b""), Batch(memory.sequence))
    memory.note(step, memory.sequence)
    memory.quota.admit(Admitted(name, 0, utc_now()))


def test_what_is_rolled_back_was_never_told_and_what_is_committed_stays(database: Database) -> None:
    memory = Memory(database, ONE_EACH, utc_now)
    told(memory, "kept", 0)
    memory.commit(5)
    told(memory, "lost", 1)
    memory.positions.published(4)
    memory.rollback()
    assert memory.sequence == 5
    assert memory.positions.stored == {(TOPIC, 0): 1}
    assert list(memory.positions.changed()) == []
    assert memory.ids.possible(["kept-0", "lost-0"]) == ["kept-0"]
    assert (memory.starts.before(["kept"]), memory.starts.before(["lost"])) == (1, 0)
    assert memory.quota.refusal(Admitted("kept", 0, utc_now())) is not None
    assert memory.quota.refusal(Admitted("lost", 0, utc_now())) is None


def test_a_transaction_that_fails_at_its_end_leaves_memory_as_it_was(database: Database) -> None:
    store = store_on(database)
    store.append(records(episode("a")))
    before = (store.sequence, store.positions(), store.pending(10))
    database.execute("ALTER TABLE offsets RENAME TO missing")
    batch = records(episode("b"), start=3)
    with pytest.raises(StoreError, match="could not store 3 records"):
        store.append(batch)
    with pytest.raises(StoreError, match="could not mark the outbox"):
        store.published(before[2][0].sequence)
    with pytest.raises(StoreError, match="could not adopt the log"):
        store.adopt_log("another", {(TOPIC, 0): 0})
    assert (store.sequence, store.positions(), store.pending(10)) == before
    database.execute("ALTER TABLE missing RENAME TO offsets")
    assert store.append(batch) == Appended(stored=3, trusted=1)
    assert column(store, "SELECT count(*) FROM logs") == [0]


def test_memory_that_was_kept_is_what_another_one_reads_from_the_tables(database: Database) -> None:
    store = store_on(database)
    store.append([*records(episode("a")), *records(episode("b"), start=3)])
    store.published(store.pending(1)[0].sequence)
    again = store_on(database)
    assert (again.sequence, again.positions(), again.pending(10)) == (
        store.sequence,
        store.positions(),
        store.pending(10),
    )
    for one in (store, again):
        twice = one.append(records(episode("a"), partition=1 + (one is again)))
        assert twice == Appended(duplicates=3)


def test_positions_count_for_their_transaction_before_they_are_stored() -> None:
    positions = Positions({(TOPIC, 0): 3})
    batch = Batch(1)
    new = [positions.passes(Received(TOPIC, 0, offset, None, b""), batch) for offset in (2, 3, 3, 4)]
    assert new == [False, True, False, True]
    assert positions.stored == {(TOPIC, 0): 3}
    assert list(positions.changed()) == [((TOPIC, 0), 5)]
    positions.published(7)
    positions.commit()
    assert positions.stored == {(TOPIC, 0): 5, OUTBOX: 8}


def test_a_partition_was_not_read_by_a_transaction_that_failed() -> None:
    positions = Positions({})
    gap = Received(TOPIC, 0, 5, None, b"")
    assert positions.passes(gap, Batch(1))
    with pytest.raises(StoreError, match="went from offset 6 to 9"):
        positions.passes(gap._replace(offset=9), Batch(1))
    positions.rollback()
    batch = Batch(1)
    assert positions.passes(gap, batch)
    assert [row["found"] for row in batch.take_rows()["gaps"]] == [5]
