"""A writer of one lake, also as a program: `python -m tests.integration.lake SETTINGS END PARTITION...`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

from ratchet_client.events import OutcomeEvent
from streams.intake.decoding import decode_event
from streams.kafka.records import Received
from streams.store.decoded import Decoded
from streams.store.ducklake import Lake, connect
from streams.store.settings import LakeSettings
from streams.store.tables import TABLES
from streams.store.writer import Appended, Store, utc_now
from streams.trust.holdout import HoldoutSettings
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import KAFKA

TOPIC = KAFKA.events_topic
BATCH = 50
# Every tenth record of a partition repeats the event of the one before it.
REPEATED = 10


def records(partition: int, start: int, end: int) -> list[Decoded]:
    """What the log has from offset `start` to before `end`: always the same."""
    found = []
    for offset in range(start, end):
        said = offset - 1 if offset % REPEATED == REPEATED - 1 else offset
        event = OutcomeEvent(
            event_id=f"{partition}-{said}", episode_id=f"e{partition}-{said}", verifier="game", success=True, score=1.0
        )
        found.append(decode_event(Received(TOPIC, partition, offset, b"key", event.to_json())))
    return found


def writer(connection: duckdb.DuckDBPyConnection) -> Store:
    """A store that is one of several on the lake."""
    ((folder,),) = rows(connection, "SELECT data_path FROM ducklake_settings('lake')")
    return Store(Lake(connection, Path(folder)), HoldoutSettings(), KAFKA, QuotaSettings(), utc_now)


def append(connection: duckdb.DuckDBPyConnection, batch: list[Decoded]) -> Appended:
    return writer(connection).append(batch)


def write(store: Store, end: int, partitions: Iterable[int]) -> None:
    """Write the partitions up to offset `end`, each from where the lake has it."""
    for partition in partitions:
        while (start := store.positions().get((TOPIC, partition), 0)) < end:
            store.append(records(partition, start, min(end, start + BATCH)))


def position(connection: duckdb.DuckDBPyConnection, partition: int) -> int:
    which = f"topic = '{TOPIC}' AND partition = {partition}"
    (found,) = rows(connection, f"SELECT coalesce(max(next), 0) FROM offsets WHERE {which}")
    return int(found[0])


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Any]:
    return connection.execute(sql).fetchall()


def numbered_in_order_of_commits(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether no sequence is used twice, and each commit's are above those of the commits before it."""
    ((newest,),) = rows(connection, "SELECT max(snapshot_id) FROM lake.snapshots()")
    numbered = " UNION ALL ".join(
        f"SELECT snapshot_id, sequence FROM lake.table_changes('{name}', 0, {newest})"
        for name, schema in TABLES.items()
        if "sequence" in schema.names
    )
    found = rows(connection, f"SELECT snapshot_id, sequence FROM ({numbered}) ORDER BY sequence")
    sequences = [sequence for _, sequence in found]
    commits = [snapshot for snapshot, _ in found]
    return len(set(sequences)) == len(sequences) and commits == sorted(commits)


if __name__ == "__main__":
    with connect(LakeSettings.model_validate_json(sys.argv[1])) as lake:
        write(writer(lake), int(sys.argv[2]), partitions=map(int, sys.argv[3:]))
