"""The store's tables in DuckLake on a real PostgreSQL, written by several processes, one of which is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from streams.errors import StoreError
from streams.runtime.processes import die_with_parent
from streams.store.ducklake import Lake, connect, folder_of, turn
from streams.store.settings import LakeSettings
from streams.store.tables import TABLES
from streams.store.writer import Store, utc_now
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import HOLDOUT, KAFKA
from tests.builders.old_stores import SCHEMA_1
from tests.builders.stored import requests
from tests.integration.lake import (
    REPEATED,
    TOPIC,
    append,
    numbered_in_order_of_commits,
    position,
    records,
    rows,
    writer,
)
from tests.waiting import until

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 30.0
HOLDER = """
import sys
from streams.store.ducklake import connect, turn
from streams.store.settings import LakeSettings

with turn(connect(LakeSettings.model_validate_json(sys.argv[1]))):
    print("mine", flush=True)
    sys.stdin.read()
"""


def count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(rows(connection, f"SELECT count(*) FROM {table}")[0][0])


@pytest.fixture
def reader(lake: LakeSettings) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(lake) as connection:
        yield connection


class Writer:
    """A process that writes its partitions and can be killed and started again."""

    def __init__(self, lake: LakeSettings, end: int, *partitions: int) -> None:
        self.partitions = partitions
        self._command = [
            sys.executable,
            "-m",
            "tests.integration.lake",
            lake.model_dump_json(),
            str(end),
            *map(str, partitions),
        ]

    def start(self) -> None:
        parent = os.getpid()
        self._process = subprocess.Popen(self._command, cwd=ROOT, preexec_fn=lambda: die_with_parent(parent))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def finish(self) -> None:
        assert self._process.wait(120) == 0


@pytest.mark.nightly
def test_several_writers_lose_and_duplicate_nothing_although_one_is_killed_repeatedly(
    lake: LakeSettings, reader: duckdb.DuckDBPyConnection
) -> None:
    end = 300
    steady, killed = Writer(lake, end, 0, 1), Writer(lake, end, 2, 3)
    steady.start()
    for least in (50, 100, 200):
        killed.start()
        until(lambda least=least: position(reader, 2) >= least)  # type: ignore[misc]
        killed.kill()
    killed.start()
    steady.finish()
    killed.finish()

    assert rows(reader, f"SELECT partition, next FROM offsets WHERE topic = '{TOPIC}' ORDER BY partition") == [
        (p, end) for p in range(4)
    ]
    for partition in range(4):
        told = f"WHERE partition = {partition}"
        taken = rows(
            reader,
            f'SELECT "offset" FROM events {told} UNION ALL SELECT "offset" FROM duplicates {told} ORDER BY "offset"',
        )
        assert [row[0] for row in taken] == list(range(end))
    assert count(reader, "duplicates") == 4 * end // REPEATED
    assert rows(reader, "SELECT count(DISTINCT event_id) FROM events") == [(4 * end * (REPEATED - 1) // REPEATED,)]
    assert (count(reader, "gaps"), count(reader, "dead_letters")) == (0, 0)
    assert numbered_in_order_of_commits(reader)


@pytest.mark.slow
def test_a_writer_that_lost_its_partition_unknowingly_stores_nothing_twice(
    lake: LakeSettings, reader: duckdb.DuckDBPyConnection
) -> None:
    with connect(lake) as other:
        assert append(other, records(0, 0, 30)).replayed == 0
        late = append(reader, records(0, 20, 40))
    assert (late.replayed, late.stored + late.duplicates) == (10, 10)
    assert count(reader, "events") + count(reader, "duplicates") == 40


@pytest.mark.slow
def test_a_lake_of_an_older_version_is_brought_to_messages_and_one_of_a_newer_is_refused(lake: LakeSettings) -> None:
    with connect(lake) as old:
        for table in (*TABLES, "schema_version"):
            old.execute(f"DROP TABLE lake.{table}")
        old.execute(SCHEMA_1)
    with connect(lake) as connection:
        texts = "SELECT action->>'content' FROM transitions WHERE episode_id = 'a-trusted' ORDER BY sequence"
        assert rows(connection, texts) == [("go 0",), ("go 1",), ("jump",), ('say "hi"',)]
        store = Store(Lake(connection, folder_of(lake)), HOLDOUT, KAFKA, QuotaSettings(), utc_now)
        assert [request.steps[0].action.text[:4] for request in requests(store)] == ["open", "go 0"]
        connection.execute("INSERT INTO lake.schema_version VALUES (3)")
    with pytest.raises(StoreError, match=r"the lake in .* has schema 3, and this version of Ratchet knows"):
        connect(lake)


@pytest.mark.slow
def test_a_killed_writer_ends_its_turn(lake: LakeSettings, reader: duckdb.DuckDBPyConnection) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lake.model_dump_json()], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"mine\n"
    holder.kill()
    holder.communicate()
    assert append(reader, records(0, 0, 10)).stored == 9


@pytest.mark.nightly
def test_waiting_for_a_turn_and_holding_it_are_both_limited_in_time(
    lake: LakeSettings, reader: duckdb.DuckDBPyConnection
) -> None:
    with connect(lake.model_copy(update={"turn_s": 5})) as hasty:
        with turn(reader), pytest.raises(StoreError, match="no turn"):
            append(hasty, records(0, 0, 10))
        with pytest.raises(StoreError, match="turn was lost"), turn(hasty):
            assert append(reader, records(0, 0, 10)).stored == 9
    assert position(reader, 0) == 10


@pytest.mark.slow
def test_without_turns_a_concurrent_commit_is_refused_whole_and_can_be_tried_again(
    lake: LakeSettings, reader: duckdb.DuckDBPyConnection
) -> None:
    append(reader, records(0, 0, 10))
    append(reader, records(1, 0, 10))
    with connect(lake) as other:
        for partition, connection in enumerate((reader, other)):
            connection.begin()
            connection.execute(f"UPDATE offsets SET next = 11 WHERE topic = '{TOPIC}' AND partition = {partition}")
            connection.execute("INSERT INTO gaps VALUES (?, ?, 0, 0, 0)", [1000 + partition, TOPIC])
        reader.commit()
        with pytest.raises(duckdb.TransactionException, match="conflict"):
            other.commit()
    assert rows(reader, "SELECT sequence FROM gaps") == [(1000,)]
    assert rows(reader, f"SELECT next FROM offsets WHERE topic = '{TOPIC}' ORDER BY partition") == [(11,), (10,)]


def test_without_turns_concurrent_inserts_pass_and_take_the_same_sequences(
    lake: LakeSettings, reader: duckdb.DuckDBPyConnection
) -> None:
    append(reader, records(0, 0, 10))
    ((last,),) = rows(reader, "SELECT max(sequence) FROM duplicates")
    with connect(lake) as other:
        for connection in (reader, other):
            connection.begin()
            connection.execute("INSERT INTO gaps SELECT max(sequence) + 1, ?, 0, 0, 0 FROM duplicates", [TOPIC])
        reader.commit()
        other.commit()
    assert rows(reader, "SELECT sequence FROM gaps") == [(last + 1,), (last + 1,)]


def test_small_files_are_merged_and_earlier_snapshots_stay(
    lake: LakeSettings, reader: duckdb.DuckDBPyConnection
) -> None:
    store = writer(reader)
    for start in (0, 20, 40, 60):
        store.append(records(0, start, start + 20))
    ((version,),) = rows(reader, "SELECT max(snapshot_id) - 2 FROM lake.snapshots()")
    earlier = f"SELECT count(*), max(sequence) FROM events AT (VERSION => {version})"
    before, whole = rows(reader, earlier), rows(reader, "FROM events ORDER BY sequence")
    ((files,),) = rows(reader, "SELECT count(*) FROM ducklake_list_files('lake', 'events')")
    assert files == 4
    with connect(lake) as other:
        assert writer(other).tidy(keep_days=1) >= 3
        append(other, records(1, 0, 20))
    assert rows(reader, "SELECT count(*) FROM ducklake_list_files('lake', 'events')") == [(2,)]
    assert rows(reader, earlier) == before
    assert rows(reader, "FROM events ORDER BY sequence")[: len(whole)] == whole
    assert append(reader, records(0, 70, 90)).replayed == 10
    assert numbered_in_order_of_commits(reader)
    # A query that began before may still read them.
    assert len([*folder_of(lake).rglob("events/*.parquet")]) == 6


def test_snapshots_are_forgotten_after_their_time(lake: LakeSettings, reader: duckdb.DuckDBPyConnection) -> None:
    store = writer(reader)
    store.append(records(0, 0, 20))
    ((version,),) = rows(reader, "SELECT max(snapshot_id) FROM lake.snapshots()")
    earlier = f"SELECT count(*) FROM events AT (VERSION => {version})"
    store.append(records(0, 20, 40))
    store.tidy(keep_days=1)
    assert rows(reader, earlier) == [(18,)]
    until(lambda: store.tidy(keep_days=1e-5) >= 0 and len(rows(reader, "FROM lake.snapshots()")) == 1)
    with pytest.raises(duckdb.Error, match="No snapshot"):
        rows(reader, earlier)
    assert rows(reader, "SELECT count(*) FROM events") == [(36,)]


@pytest.mark.slow
def test_a_reader_sees_one_snapshot_and_can_read_any_earlier_one(
    lake: LakeSettings, reader: duckdb.DuckDBPyConnection
) -> None:
    append(reader, records(0, 0, 9))
    ((version, at),) = rows(reader, "SELECT max(snapshot_id), max(snapshot_time) FROM lake.snapshots()")
    ((last,),) = rows(reader, "SELECT max(sequence) FROM events")
    with connect(lake) as other:
        reader.begin()
        before = (count(reader, "events"), position(reader, 0))
        append(other, records(0, 9, 30))
        assert (count(reader, "events"), position(reader, 0)) == before == (9, 9)
        reader.commit()
    assert (count(reader, "events"), position(reader, 0)) == (27, 30)
    assert rows(reader, f"SELECT count(*), max(sequence) FROM events AT (VERSION => {version})") == [(9, last)]
    assert rows(reader, f"SELECT next FROM offsets AT (VERSION => {version}) WHERE topic = '{TOPIC}'") == [(9,)]
    assert reader.execute("SELECT count(*) FROM events AT (TIMESTAMP => ?)", [at]).fetchall() == [(9,)]
    assert rows(reader, f"SELECT count(*) FROM events WHERE sequence <= {last}") == [(9,)]
