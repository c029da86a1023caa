"""Several stores over one lake: each knows in its transactions what the others committed."""

from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from ratchet_client.events import Message, RetractionEvent
from streams.errors import StoreError
from streams.store.settings import Backend, LakeSettings, StoreSettings
from streams.store.status import status
from streams.store.writer import Appended, Store, utc_now
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import HOLDOUT, KAFKA, episode
from tests.builders.stored import branches, column, records, requests, result

pytestmark = pytest.mark.slow

OpenWriter = Callable[..., Store]
EVENTS = (KAFKA.events_topic, 0)


@pytest.fixture
def open_writer(lake: LakeSettings) -> Iterator[OpenWriter]:
    """Opens one more store over the lake."""
    opened: list[Store] = []

    def open_one_more(clock: Callable[[], datetime] = utc_now, turn_s: int = 60, per_principal: int = 1000) -> Store:
        own = StoreSettings(backend=Backend.DUCKLAKE, lake=lake.model_copy(update={"turn_s": turn_s}))
        quota = QuotaSettings(per_principal=per_principal)
        opened.append(Store.open(own, HOLDOUT, KAFKA, quota, clock))
        return opened[-1]

    yield open_one_more
    for store in opened:
        store.close()


def test_a_partition_goes_from_writer_to_writer_and_back(open_writer: OpenWriter) -> None:
    first, second = open_writer(), open_writer()
    assert first.append(records(episode("a"))) == Appended(stored=3, trusted=1)
    assert second.append(records([*episode("a"), *episode("b")])) == Appended(stored=3, replayed=3, trusted=1)
    assert first.positions() == {EVENTS: 3}
    first.catch_up()
    assert first.positions() == {EVENTS: 6}
    assert first.append(records(episode("c"), start=6)) == Appended(stored=3, trusted=1)
    counted = status(second)
    assert counted.positions == {KAFKA.events_topic: {0: 9}}
    assert (counted.sequence, counted.gaps) == (first.sequence, 0)
    tables = ("events", "outcomes", "transitions", "trusted", "outbox")
    sequences = column(first, " UNION ALL ".join(f"SELECT sequence FROM {name}" for name in tables))
    assert len(set(sequences)) == len(sequences) == first.sequence


def test_an_event_that_another_writer_stored_is_a_duplicate(open_writer: OpenWriter) -> None:
    first, second = open_writer(), open_writer()
    first.append(records(episode("a")))
    first.append([result(branches("a"))])
    assert second.append(records(episode("a"), partition=1)) == Appended(duplicates=3)
    assert second.append([result(branches("a"), offset=1)]) == Appended(duplicates=1)


def test_an_episode_that_one_writer_began_is_judged_whole_by_another(open_writer: OpenWriter) -> None:
    first, second = open_writer(), open_writer()
    begun, *rest = episode("a")
    first.append(records([begun]))
    assert second.append(records(rest, start=1)) == Appended(stored=2, trusted=1)
    # A step that comes after the outcome is looked at, though this writer did not store the outcome.
    contrary = begun.model_copy(update={"event_id": "contrary", "action": Message(role="assistant", content="jump")})
    first.append(records([contrary], start=3))
    assert column(second, "SELECT reason FROM untrusted") == ["two events say different things of one step"]


def test_quotas_count_what_every_writer_trusted(open_writer: OpenWriter) -> None:
    first, second = open_writer(per_principal=2), open_writer(per_principal=2)

    def trusted(store: Store, name: str, start: int) -> int:
        *steps, outcome = episode(name)
        return store.append(
            records([*(step.model_copy(update={"principal": "one"}) for step in steps), outcome], start)
        ).trusted

    assert [trusted(first, "a", 0), trusted(second, "b", 3)] == [1, 1]
    assert [trusted(first, "c", 6), trusted(second, "d", 9)] == [0, 0]
    assert column(open_writer(), "SELECT episode_id FROM flags ORDER BY episode_id") == ["c", "d"]


def test_what_one_writer_is_told_to_forget_another_does_not_trust(open_writer: OpenWriter) -> None:
    first, second = open_writer(), open_writer()
    first.append(records([RetractionEvent(principal="a", reason="asked")]))
    assert second.append(records(episode("a"), partition=1)).trusted == 0


def test_a_transaction_that_fails_forgets_nothing_of_the_other_writers(open_writer: OpenWriter) -> None:
    first, second = open_writer(), open_writer()
    first.append(records(episode("a")))
    second.append(records(episode("b"), start=3))
    with pytest.raises(StoreError, match="read again from 9"):
        first.append([*records(episode("c"), start=6), *records(episode("d"), start=100)])
    assert first.append(records([*episode("b"), *episode("c")], start=6)) == Appended(stored=3, duplicates=3, trusted=1)


def test_one_writer_at_a_time_publishes_the_outbox(open_writer: OpenWriter) -> None:
    first, second = open_writer(), open_writer(turn_s=1)
    first.append(records(episode("a")))
    with first.draining():
        (pending,) = first.pending(10)
        with pytest.raises(StoreError, match="no turn"), second.draining():
            pass
        # Events are stored meanwhile.
        second.append(records(episode("b"), partition=1))
        first.published(pending.sequence)
    with second.draining():
        assert [entry.message.key for entry in second.pending(10)] == [b"b"]


def test_writers_that_are_assigned_another_log_adopt_it_once(open_writer: OpenWriter) -> None:
    first, second = open_writer(), open_writer()
    first.adopt_log("old", {})
    first.append(records([*episode("a"), *episode("b")]))
    first.published(first.sequence)
    second.catch_up()
    read = second.positions()
    first.adopt_log("new", {EVENTS: 0})
    first.append(records(episode("c")))
    second.adopt_log("new", {EVENTS: 3}, read)
    second.catch_up()
    assert second.positions() == {EVENTS: 3}
    assert [request.episode_id for request in requests(second)] == ["a", "b", "c"]
    assert column(second, "SELECT cluster_id FROM logs ORDER BY sequence") == ["old", "new"]


def test_a_writer_that_hangs_until_its_turn_is_over_stores_nothing(open_writer: OpenWriter) -> None:
    other = open_writer()

    def hang() -> datetime:
        # The other one gets its turn when this one's time is over.
        other.append(records(episode("b"), partition=1))
        return utc_now()

    clocks = iter((utc_now, hang))  # of its opening, and of its transaction
    late = open_writer(clock=lambda: next(clocks)(), turn_s=1)
    with pytest.raises(StoreError, match=r"conflict|turn was lost"):
        late.append(records(episode("a")))
    assert column(other, "SELECT DISTINCT episode_id FROM events") == ["b"]
