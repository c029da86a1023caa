"""The store keeps each event once, whatever the log repeats, and decides what is learned from."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from ratchet_client.events import RetractionEvent
from streams.errors import StoreError
from streams.kafka.refusals import Unreadable
from streams.store.inspection import format_of
from streams.store.settings import Backend, StoreSettings
from streams.store.status import status
from streams.store.writer import Appended, Store
from tests.builders.episodes import HOLDOUT, KAFKA, episode
from tests.builders.stored import branches, column, raw, records, requests, result


def test_an_episode_is_stored_with_its_steps_its_verdict_and_the_next_offset(store: Store) -> None:
    assert store.append(records(episode("a"))) == Appended(stored=3, trusted=1)
    assert column(store, "SELECT event_id FROM events ORDER BY sequence") == ["a-0", "a-1", "a-end"]
    assert column(store, "SELECT action->>'content' FROM transitions WHERE origin = 'production' ORDER BY step") == [
        "go 0",
        "go 1",
    ]
    assert column(store, "SELECT success FROM outcomes") == [True]
    assert store.positions() == {(KAFKA.events_topic, 0): 3}


def test_an_id_may_have_any_character(store: Store) -> None:
    odd = "NUL \x00 and ' and \N{GRINNING FACE}"
    assert store.append(records(episode(odd))) == Appended(stored=3, trusted=1)
    assert store.append(records(episode(odd), partition=1)) == Appended(duplicates=3)
    store.append([result(branches(odd))])
    assert [request.episode_id for request in requests(store)] == [odd]
    assert column(store, "SELECT principal FROM transitions WHERE origin = 'branch'") == [odd]


def test_records_below_the_watermark_are_dropped(store: Store) -> None:
    store.append(records(episode("a")))
    assert store.append(records([*episode("a"), *episode("b")])) == Appended(stored=3, replayed=3, trusted=1)
    assert status(store).duplicates == 0


def test_an_event_under_a_second_offset_is_counted_and_not_stored_again(store: Store) -> None:
    store.append(records(episode("a")))
    twice = [*episode("a"), *episode("b"), *episode("b")]
    assert store.append(records(twice, start=3)) == Appended(stored=3, duplicates=6, trusted=1)
    assert status(store).events == {"outcome": 2, "step": 4}
    assert status(store).duplicates == 6


def test_sequences_are_unique_over_all_tables_and_continue_after_reopening(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.append(records(episode("a")))
    before = store.sequence
    store = open_store()
    assert store.sequence == before
    store.append([*records(episode("b"), start=3), raw(b"{", offset=6)])
    tables = ("events", "outcomes", "transitions", "trusted", "dead_letters", "outbox")
    sequences = column(store, " UNION ALL ".join(f"SELECT sequence FROM {name}" for name in tables))
    assert len(set(sequences)) == len(sequences) == store.sequence


def test_an_offset_gap_while_reading_stores_nothing(store: Store) -> None:
    store.append(records(episode("a")))
    with pytest.raises(StoreError, match="read again from 3"):
        store.append(records(episode("b"), start=4))
    assert status(store).events == {"outcome": 1, "step": 2}
    assert store.append(records(episode("b"), start=3)).stored == 3


def test_an_offset_gap_that_remains_after_reopening_is_accepted(open_store: Callable[[], Store]) -> None:
    open_store().append(records(episode("a")))
    store = open_store()
    assert store.append(records(episode("b"), start=5)).stored == 3
    assert status(store).gaps == 2


UNREADABLE: tuple[tuple[bytes | None, str], ...] = (
    (b"{not json", "Invalid JSON"),
    (b"\xff\xfe", "Invalid JSON"),
    (None, "no value"),
    (b'{"schema":3,"kind":"retraction","principal":"p","reason":"r"}', "schema"),
    (b'{"schema":1,"kind":"retraction","principal":"p","reason":"r","resaon":"r"}', "retraction.(unknown)"),
    (b'{"schema":1,"kind":"surprise"}', "no such kind"),
    (episode("a")[0].to_json().replace(b'"seed":', b'"seed":9999999999999999999'), "seed"),
)


def test_an_unreadable_record_is_noted_without_its_content(store: Store) -> None:
    decoded = [raw(value, offset) for offset, (value, _) in enumerate(UNREADABLE)]
    assert store.append(decoded) == Appended(dead_letters=len(UNREADABLE))
    noted = column(store, "SELECT error FROM dead_letters ORDER BY sequence")
    for record, told, (_, error) in zip(decoded, noted, UNREADABLE, strict=True):
        assert isinstance(record.content, Unreadable)
        assert told == record.content.error
        assert error in told
    assert store.pending(10) == []


def test_an_id_is_recognised_after_a_restart_and_after_many_others(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.append(records(episode("a")))
    store = open_store()
    again = store.append(records([*episode("a"), *episode("b")], partition=1))
    assert again == Appended(stored=3, duplicates=3, trusted=1)


def test_a_failed_transaction_leaves_no_trace(store: Store) -> None:
    store.append(records(episode("a")))
    with pytest.raises(StoreError):
        store.append([*records(episode("b"), start=3), *records(episode("c"), start=100)])
    assert store.append(records(episode("b"), start=3)) == Appended(stored=3, trusted=1)


def test_a_file_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE outbox (sequence BIGINT, headers VARCHAR)")
    with pytest.raises(StoreError, match="its table outbox has the columns sequence, headers"):
        Store.open(StoreSettings(path=path), HOLDOUT, KAFKA)


def test_branch_results_become_transitions_that_a_retraction_can_reach(store: Store) -> None:
    store.append(records(episode("a")))
    branched = branches("a", actions=("jump", "wait"), requested=3)
    store.append([result(branched), result(branched, offset=1)])
    counts = status(store)
    assert counts.transitions == {"branch": 2, "production": 2}
    assert (counts.branches.states, counts.branches.requested, counts.branches.executed) == (1, 3, 2)
    assert counts.duplicates == 1
    rows = store.query("SELECT * FROM transitions WHERE origin = 'branch' ORDER BY sequence").to_pylist()
    assert [(json.loads(row["action"])["content"], row["source"], row["adapter"]) for row in rows] == [
        ("jump", "policy", "base"),
        ("wait", "valid_actions", None),
    ]
    assert {row["principal"] for row in rows} == {"a"}
    assert {(row["fidelity"], row["step"], row["messages"]) for row in rows} == {("sandbox_exact", 1, None)}


def test_retractions_are_kept(store: Store) -> None:
    store.append(records([RetractionEvent(principal="tenant/a", reason="asked")]))
    assert column(store, "SELECT principal FROM retractions") == ["tenant/a"]


def test_the_outbox_is_handed_out_in_order_until_it_is_marked(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.append([*records(episode("a")), *records(episode("b"), start=3), *records(episode("c"), start=6)])
    pending = store.pending(10)
    assert [entry.message.key for entry in pending] == [b"a", b"b", b"c"]
    store.published(pending[0].sequence)
    store = open_store()
    assert store.pending(10) == pending[1:]
    assert status(store).outbox_pending == 2
    store.published(pending[2].sequence)
    assert store.pending(10) == []


def test_another_log_under_the_same_address_is_read_from_its_beginning(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.adopt_log("first", {})
    store.append(records(episode("a")))
    store = open_store()
    store.adopt_log("first", {(KAFKA.events_topic, 0): 3})
    assert store.positions() == {(KAFKA.events_topic, 0): 3}
    store.adopt_log("second", {(KAFKA.events_topic, 0): 9})
    assert store.positions() == {(KAFKA.events_topic, 0): 0}
    assert store.append(records([*episode("a"), *episode("b")])) == Appended(stored=3, duplicates=3, trusted=1)


def test_a_partition_that_ends_before_what_was_read_is_read_again(store: Store) -> None:
    store.adopt_log("cluster", {})
    store.append(records(episode("a")))
    store.adopt_log("cluster", {(KAFKA.events_topic, 0): 2})
    assert store.positions() == {(KAFKA.events_topic, 0): 0}


def test_what_is_stored_while_the_ends_are_asked_for_does_not_pass_for_a_log_that_was_cut(store: Store) -> None:
    store.adopt_log("cluster", {})
    read = store.positions()
    store.append(records(episode("a")))
    store.adopt_log("cluster", {(KAFKA.events_topic, 0): 0}, read)
    assert store.positions() == {(KAFKA.events_topic, 0): 3}


def test_queries_can_only_read_and_only_tables_of_the_store(store: Store) -> None:
    for sql in (
        "DELETE FROM events",
        "INSERT INTO outcomes SELECT * FROM outcomes",
        "CREATE TABLE mine AS SELECT 1",
        "SELECT 1; DROP TABLE events",
        "COPY events TO 'events.parquet'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM 'store.duckdb'",
        "ATTACH 'other.duckdb'",
        "SET enable_external_access = true",
        "CHECKPOINT",
        "SELEC 1",
        "",
    ):
        with pytest.raises(StoreError):
            store.query(sql)


@pytest.mark.parametrize("backend", [Backend.DUCKLAKE])
@pytest.mark.slow
def test_queries_over_a_lake_reach_neither_its_catalog_nor_its_maintenance(store: Store) -> None:
    store.append(records(episode("a")))
    for sql in (
        "FROM postgres_execute('turns', 'CREATE TABLE mine (i int)')",
        "SELECT (SELECT count(*) FROM postgres_query('turns', 'SELECT 1'))",
        "FROM query('FROM postgres_query(''turns'', ''SELECT 1'')')",
        "FROM lake.snapshots()",
        "FROM ducklake_expire_snapshots('lake', older_than => now())",
        "FROM duckdb_databases()",
        "WITH a AS (WITH duckdb_databases AS (SELECT 1) FROM duckdb_databases) FROM a, duckdb_databases",
        "SELECT * FROM turns.pg_catalog.pg_authid",
        "FROM __ducklake_metadata_lake.ducklake_snapshot",
        "WITH ducklake_snapshot AS (SELECT 1) FROM __ducklake_metadata_lake.ducklake_snapshot",
    ):
        with pytest.raises(StoreError, match="name tables of the store alone"):
            store.query(sql)
    with pytest.raises(StoreError, match="nested too deeply"):
        store.query(f"SELECT {'abs(' * 500}1{')' * 500}")
    named = "WITH Mine AS (FROM lake.events AT (VERSION => 2)) SELECT count(*) FROM mine, lake.events, range(2)"
    assert column(store, named) == [0]
    assert column(store, "SELECT count(*) FROM lake.main.events AS e, unnest([1, 2])") == [6]


@pytest.mark.parametrize("backend", [Backend.DUCKDB])
def test_a_second_process_cannot_open_the_file(store: Store, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from streams.trust.holdout import HoldoutSettings\n"
        "from streams.kafka.settings import KafkaSettings\n"
        "from streams.store.settings import StoreSettings; from streams.store.writer import Store\n"
        "Store.open(StoreSettings(path=Path(sys.argv[1])), HoldoutSettings(), KafkaSettings())"
    )
    second = subprocess.run([sys.executable, "-c", script, tmp_path / "store.duckdb"], capture_output=True, text=True)
    assert "only one process may" in second.stderr


def test_a_damaged_file_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "damaged.duckdb"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="the file is damaged: restore a backup"):
        Store.open(StoreSettings(path=path), HOLDOUT, KAFKA)
    with pytest.raises(StoreError, match="the file is damaged: restore a backup"):
        format_of(path)
