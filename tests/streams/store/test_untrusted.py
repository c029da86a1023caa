"""Trust that is withdrawn: after a restart, in files of older versions, and when a log is lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from ratchet_client.events import OutcomeEvent, StepEvent
from ratchet_client.messages import user
from streams.store.settings import StoreSettings
from streams.store.status import status
from streams.store.writer import Store
from streams.trust.rules import TrustSettings
from tests.builders.episodes import HOLDOUT, KAFKA, episode
from tests.builders.stored import column, records

WITHDRAWN = "SELECT episode_id FROM untrusted"


def opened(path: Path, failed_demonstrations: bool = False) -> Store:
    trust = TrustSettings(failed_demonstrations=failed_demonstrations)
    return Store.open(StoreSettings(path=path), HOLDOUT, KAFKA, trust=trust)


@contextmanager
def store_in(path: Path, failed_demonstrations: bool = False) -> Iterator[Store]:
    store = opened(path, failed_demonstrations)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


def failure(name: str) -> OutcomeEvent:
    return OutcomeEvent(event_id=f"{name}-late", episode_id=name, verifier="game", success=False, score=0.0)


def test_a_step_that_comes_again_with_reasoning_in_its_history_is_the_same_step(path: Path) -> None:
    first, second, outcome = episode("a", actor="policy")
    assert isinstance(second, StepEvent)
    thought = [
        message.model_copy(update={"reasoning_content": "Hm."}) if message.role == "assistant" else message
        for message in second.messages
    ]
    again = second.model_copy(update={"event_id": "again", "messages": tuple(thought)})
    with store_in(path) as store:
        store.append(records([first, second, outcome]))
        store.append(records([again], start=3))
        assert column(store, WITHDRAWN) == []
        assert status(store).trusted == {"train": 1}


def test_a_restarted_store_still_knows_which_episodes_were_judged(path: Path) -> None:
    first, *rest = episode("a", actor="policy")
    with store_in(path) as store:
        store.append(records([first, *rest]))
    with store_in(path) as store:
        other = first.model_copy(update={"event_id": "other", "observation": (user("Nothing."),)})
        store.append(records([other], start=3))
        assert column(store, WITHDRAWN) == ["a"]
        assert status(store).trusted == {}
        assert status(store).untrusted == 1
    with store_in(path) as store:
        sequence = store.sequence
        store.append(records([failure("a")], start=4))
        assert column(store, WITHDRAWN) == ["a"]
    with store_in(path) as store:
        assert store.sequence == sequence + 2  # an event and its outcome; opening added nothing


def test_a_file_of_an_older_version_opens_and_what_came_after_trust_in_it_is_judged_again(path: Path) -> None:
    with store_in(path) as store:
        for number, name in enumerate(("failed", "contradicted", "sound", "flagged")):
            store.append(records(episode(name, actor="policy", action=name), start=3 * number))
    with duckdb.connect(str(path)) as old:
        old.execute("DROP TABLE untrusted")
        old.execute(
            "INSERT INTO outcomes SELECT * REPLACE (1000 AS sequence, false AS success, 'late' AS event_id) "
            "FROM outcomes WHERE episode_id = 'failed'"
        )
        old.execute(
            "INSERT INTO transitions SELECT * REPLACE (1001 AS sequence, 'x' AS transition_id, "
            """'{"role":"assistant","content":"delete"}' AS action) """
            "FROM transitions WHERE episode_id = 'contradicted' AND step = 0"
        )
        old.execute(
            "INSERT INTO transitions SELECT * REPLACE (1002 AS sequence, 'y' AS transition_id) "
            "FROM transitions WHERE episode_id = 'sound' AND step = 0"
        )
        old.execute("INSERT INTO flags VALUES (1003, 'flagged', 'injection')")
    with store_in(path) as store:
        assert sorted(column(store, WITHDRAWN)) == ["contradicted", "failed", "flagged"]
        assert status(store).trusted == {"train": 1}
        sequence = store.sequence
    with store_in(path) as store:
        assert store.sequence == sequence


def test_failed_demonstrations_are_trusted_while_the_setting_says_so(path: Path) -> None:
    with store_in(path, failed_demonstrations=True) as store:
        assert store.append(records(episode("a", success=False))).trusted == 1
        mixed = episode("b", success=False, action="mix")
        mixed[1] = mixed[1].model_copy(update={"actor": episode("b", actor="policy")[1].actor})  # type: ignore[union-attr]
        assert store.append(records(mixed, start=3)).trusted == 0
    with store_in(path, failed_demonstrations=True) as store:
        assert column(store, WITHDRAWN) == []
    with store_in(path) as store:
        assert column(store, WITHDRAWN) == ["a"]
        assert store.append(records(episode("c", success=False, action="run"), start=6)).trusted == 0


def test_branch_requests_lost_with_a_log_are_not_repeated_for_episodes_that_lost_trust(path: Path) -> None:
    with store_in(path) as store:
        store.adopt_log("one", {})
        store.append(records([*episode("stays", actor="policy"), *episode("leaves", actor="policy", action="run")]))
        store.published(store.pending(10)[-1].sequence)
        store.append(records([failure("leaves")], start=6))
        store.adopt_log("another", {})
        assert [pending.message.key for pending in store.pending(10)] == [b"stays"]


def test_reading_the_log_again_from_its_beginning_withdraws_the_same(path: Path, tmp_path: Path) -> None:
    events = [*episode("a", actor="policy"), *episode("b", actor="policy", action="run"), failure("a")]
    with store_in(path) as store:
        for offset, event in enumerate(events):
            store.append(records([event], start=offset))
        ids = column(store, "SELECT withdrawal_id FROM untrusted")
        store.append(records(events))  # replayed: below the watermark
        assert column(store, "SELECT withdrawal_id FROM untrusted") == ids
    with store_in(tmp_path / "again.duckdb") as store:
        for offset, event in enumerate(events):
            store.append(records([event], start=offset))
        assert column(store, "SELECT withdrawal_id FROM untrusted") == ids
        assert store.append(records(events, partition=1)).duplicates == len(events)
