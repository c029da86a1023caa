"""What is listed as of a sequence stays what it was, but for revoked principals."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ratchet_client.events import RetractionEvent
from ratchet_client.messages import MESSAGE
from streams.errors import StoreError
from streams.store.client import StoreClient
from streams.store.export import Moment, Origin, export_transitions, look_back, newest
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import Log, ServedStore

TASK = TASKS[Split.TRAIN][0]


def grow(log: Log, number: int) -> None:
    """An episode and one alternative to one of its steps: three transitions."""
    log.publish(*episode(str(number), TASK, action=f"go {number}"))
    log.branched(str(number), TASK)


async def listed(
    served: ServedStore, as_of: int | None = None, origin: Origin | None = None, limit: int = 1000
) -> tuple[Moment, pa.Table]:
    async with StoreClient(served.url) as client:
        moment = await look_back(client, as_of, origin)
        return moment, await newest(client, moment, limit)


async def exported(served: ServedStore, to: Path, as_of: int | None = None, origin: Origin | None = None) -> pa.Table:
    async with StoreClient(served.url) as client:
        moment = await look_back(client, as_of, origin)
        assert await export_transitions(client, moment, to, lambda _, __: None) == moment.rows
        return pq.read_table(to)


def said(table: pa.Table) -> list[str]:
    return [MESSAGE.validate_json(action).text for action in table["action"].to_pylist()]


def named(folder: Path, part: str) -> list[str]:
    return [path.name for path in folder.iterdir() if part in path.name]


async def test_later_events_do_not_change_an_earlier_listing(served_store: ServedStore, tmp_path: Path) -> None:
    log = Log(served_store.store)
    moments = []
    for number in range(4):
        grow(log, number)
        sequence = served_store.store.sequence
        moments.append((sequence, (await listed(served_store))[1]))
    for number, (sequence, then) in enumerate(moments):
        moment, now = await listed(served_store, sequence)
        assert now == then
        assert (moment.as_of, moment.rows, moment.revoked) == (sequence, 3 * (number + 1), 0)
        assert (await exported(served_store, tmp_path / f"{number}.parquet", sequence)).equals(then)
    halfway = await listed(served_store, moments[2][0] - 1)
    assert halfway[1].num_rows < moments[2][1].num_rows


async def test_a_listing_at_any_sequence_is_a_prefix_of_the_latest(served_store: ServedStore) -> None:
    log = Log(served_store.store)
    for number in range(2):
        grow(log, number)
    _, latest = await listed(served_store)
    for sequence in range(served_store.store.sequence + 1):
        _, then = await listed(served_store, sequence)
        assert then == latest.slice(0, then.num_rows)
        assert all(number <= sequence for number in then["sequence"].to_pylist())
        assert all(number > sequence for number in latest.slice(then.num_rows)["sequence"].to_pylist())


async def test_one_origin_can_be_asked_for_and_the_newest_come_last(served_store: ServedStore, tmp_path: Path) -> None:
    log = Log(served_store.store)
    for number in range(3):
        grow(log, number)
    _, tried = await listed(served_store, origin=Origin.BRANCH)
    assert said(tried) == ["jump"] * 3
    moment, last = await listed(served_store, origin=Origin.PRODUCTION, limit=2)
    assert (said(last), moment.rows) == (["go 2 0", "go 2 1"], 6)
    done = await exported(served_store, tmp_path / "p.parquet", origin=Origin.PRODUCTION)
    assert set(done["origin"].to_pylist()) == {"production"}


async def test_revoked_principals_are_left_out_of_every_listing_and_counted(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log = Log(served_store.store)
    grow(log, 0)
    grow(log, 1)
    before = served_store.store.sequence
    log.publish(RetractionEvent(principal="1", reason="asked"))
    for as_of in (before, None):
        moment, rows = await listed(served_store, as_of)
        assert set(rows["episode_id"].to_pylist()) == {"0"}
        assert (moment.rows, moment.revoked) == (3, 3)
    table = await exported(served_store, tmp_path / "e.parquet", before)
    assert set(table["episode_id"].to_pylist()) == {"0"}
    facts = {name.decode(): value.decode() for name, value in table.schema.metadata.items() if b"ratchet" in name}
    assert facts == {
        "ratchet.as_of": str(before),
        "ratchet.retracted_as_of": str(served_store.store.sequence),
        "ratchet.origin": "all",
    }


async def test_an_export_of_many_pages_is_whole_and_in_order(
    served_store: ServedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.store.export._PAGE", 4)
    log = Log(served_store.store)
    for number in range(5):
        grow(log, number)
    table = await exported(served_store, tmp_path / "e.parquet")
    assert table.equals((await listed(served_store))[1])
    assert named(tmp_path, "e.parquet") == ["e.parquet"]


async def test_a_future_sequence_is_refused_because_its_listing_would_change(
    served_store: ServedStore,
) -> None:
    grow(Log(served_store.store), 0)
    with pytest.raises(StoreError, match="has come to sequence"):
        await listed(served_store, served_store.store.sequence + 1)


async def test_a_failed_export_leaves_the_previous_files(served_store: ServedStore, tmp_path: Path) -> None:
    grow(Log(served_store.store), 0)
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(StoreError, match="could not be written"):
        await exported(served_store, target)
    assert named(tmp_path, "folder") == ["folder"]
