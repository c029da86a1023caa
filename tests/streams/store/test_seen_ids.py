"""What is kept in memory never forgets a stored id, and says of few new ones that they may be stored."""

import duckdb
import pyarrow as pa

from ratchet_client.ids import uuid7
from streams.store.seen_ids import EpisodeStarts, SeenIds


def ids_of(connection: duckdb.DuckDBPyConnection, ids: list[str]) -> SeenIds:
    connection.register("given", pa.table({"id": pa.array(ids, pa.string())}))
    connection.execute("CREATE OR REPLACE TABLE ids AS SELECT id FROM given")
    return SeenIds(connection, "SELECT id FROM ids")


def test_no_stored_id_is_ever_reported_as_new() -> None:
    stored, later = ([uuid7() for _ in range(5000)] for _ in range(2))
    with duckdb.connect() as connection:
        seen = ids_of(connection, stored)
        for identity in later:
            seen.note(identity)
        seen.commit()
        assert seen.possible([*stored, *later]) == [*stored, *later]
        assert len(seen.possible([uuid7() for _ in range(5000)])) < 50


def test_a_full_filter_is_made_again_from_the_table() -> None:
    with duckdb.connect() as connection:
        seen = ids_of(connection, ["a"])
        connection.execute("INSERT INTO ids SELECT 'id-' || i FROM range(1_100_000) t(i)")
        for number in range(1_100_000):
            seen.note(f"id-{number}")
        seen.commit()
        assert len(seen.possible(f"id-{number}" for number in range(0, 1_100_000, 1000))) == 1100
        assert len(seen.possible(f"no-{number}" for number in range(10_000))) < 50


def test_ids_of_a_known_episode_are_searched_from_its_first_row() -> None:
    with duckdb.connect() as connection:
        starts = EpisodeStarts(ids_of(connection, ["old"]))
        starts.note("new", 7)
        starts.note("new", 8)
        assert starts.before(["new"]) == 7
        starts.note("old", 9)
        assert starts.before(["new", "old"]) == 0


def test_ids_of_an_evicted_episode_are_searched_in_the_whole_table() -> None:
    with duckdb.connect() as connection:
        starts = EpisodeStarts(ids_of(connection, []), limit=2)
        for sequence, name in enumerate(["a", "b", "c"], 1):
            starts.note(name, sequence)
        starts.commit()
        starts.note("a", 9)
        assert starts.before(["a"]) == 0
        assert starts.before(["b", "c"]) == 2


def test_what_is_rolled_back_is_new_again_and_what_is_committed_stays() -> None:
    with duckdb.connect() as connection:
        starts = EpisodeStarts(seen := ids_of(connection, []))
        starts.note("kept", 1)
        starts.commit()
        starts.note("lost", 2)
        starts.rollback()
        starts.commit()
        assert seen.possible(["kept", "lost"]) == ["kept"]
        starts.note("lost", 3)
        assert starts.before(["lost"]) == 3
        assert starts.before(["kept"]) == 1
