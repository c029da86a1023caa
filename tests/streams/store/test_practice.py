"""Practice in the store: kept like production's episodes, learned from, and never counted as production's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from learners.snapshots import build_snapshot, read_episodes, read_principals, read_trajectories
from learners.trajectories import INSTRUCTED, LESSON, REFLECTED, Rationale
from ratchet_client.events import Advice, RetractionEvent
from streams.store.client import StoreClient
from streams.store.episodes import newest_episodes
from streams.store.queries.canary import CANARY_EPISODES
from streams.store.queries.conversations import COUNT_OF_EPISODES, ENVIRONMENTS, NEWEST_EPISODES
from streams.store.queries.episodes import WITHOUT_OUTCOME_SINCE
from streams.store.queries.learning import (
    BRANCHING_STATE,
    JUDGED_EPISODES,
    LABELS_OF_TASKS,
    LEARNABLE_EPISODES,
    POLICY_EPISODES,
)
from streams.store.queries.practice import ATTEMPTS_BY_TASK, NEW_PRACTICE
from streams.store.queries.writer import JUDGED_EPISODES as JUDGED_IDS
from streams.store.settings import StoreSettings
from streams.store.status import PracticeCounts, status
from streams.store.writer import Store
from streams.trust.holdout import Split
from streams.trust.practice import PRINCIPAL
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS, episode
from tests.builders.practised import practised
from tests.builders.stored import Log, ServedStore, column, records, requests

TRAIN, HELD_OUT = TASKS[Split.TRAIN], TASKS[Split.SELECTION]
ENVIRONMENT = "textworld_express"
_FAR = 10.0**10
REFLECTION = Advice(kind="reflection", text="Look first.")

# Every figure of production, by the query that gives it.
FIGURES: dict[str, tuple[str, dict[str, Any]]] = {
    "learnable": (LEARNABLE_EPISODES, {"since": -1}),
    "branching": (BRANCHING_STATE, {}),
    "judged": (JUDGED_EPISODES, {}),
    "ids of judged": (JUDGED_IDS, {}),
    "policies' episodes": (POLICY_EPISODES, {}),
    "labels": (LABELS_OF_TASKS, {"environment": ENVIRONMENT, "task_ids": TRAIN}),
    "canary": (CANARY_EPISODES, {"since": 0.0, "champion": ["ratchet-1"], "candidate": ["ratchet-2"]}),
    "conversations": (COUNT_OF_EPISODES, {"as_of": 10**6, "retracted_as_of": 0, "trusted": False, "split": None}),
    "environments": (ENVIRONMENTS, {}),
    "newest": (NEWEST_EPISODES, {"environment": ENVIRONMENT, "as_of": 10**6, "retracted_as_of": 0, "limit": 100}),
    "without outcome": (WITHOUT_OUTCOME_SINCE, {"before": _FAR}),
}


def played(store: Store, log: Log) -> None:
    """Practice of every kind: both outcomes, one with advice, one flagged, one broken, one that never ends."""
    log.publish(*practised("advised", TRAIN[0], advice=REFLECTION))
    log.publish(*practised("won", TRAIN[0]), *practised("lost", TRAIN[0], success=False))
    log.publish(*practised("broken", TRAIN[2])[1:], *practised("unended", TRAIN[3])[:2])
    flagged = records(practised("flagged", TRAIN[1]), partition=1)
    store.append([replace(record, flag="a test", redactions={"email": 1}) for record in flagged])


async def test_no_figure_of_production_changes_by_practice(served_store: ServedStore) -> None:
    store, log = served_store.store, Log(served_store.store)
    log.publish(*episode("mine", TRAIN[0], "policy"), *episode("failed", TRAIN[1], "policy", success=False))
    log.publish(*episode("flagged-too", TRAIN[2])[:1], *episode("open", TRAIN[3])[:1])

    def figures() -> dict[str, object]:
        return {name: store.query(sql, given).to_pylist() for name, (sql, given) in FIGURES.items()}

    before, counted, wanted = figures(), status(store).model_dump(), requests(store)
    played(store, log)
    after = status(store).model_dump()
    assert figures() == before
    assert requests(store) == wanted, "nothing is branched or resumed"
    changed = {name for name in counted if counted[name] != after[name]}
    assert changed == {"sequence", "positions", "events", "transitions", "practice"}
    assert {name: after["events"][name] for name in counted["events"]} == counted["events"]
    assert {name: after["transitions"][name] for name in counted["transitions"]} == counted["transitions"]
    async with StoreClient(served_store.url) as client:
        listed = {one.episode_id for one in await newest_episodes(client, None, 100)}
    assert listed == {"mine", "failed", "flagged-too", "open"}


async def test_practice_has_its_own_counts_and_buckets(served_store: ServedStore) -> None:
    store = served_store.store
    played(store, Log(store))
    assert status(store).practice == PracticeCounts(
        episodes=4, successes=3, advised=1, steps=9, unusable=2, tasks={"frontier": 1, "solved": 2}
    )
    rows = store.query("SELECT episode_id, reason FROM practised WHERE reason IS NOT NULL").to_pylist()
    assert {row["episode_id"]: row["reason"] for row in rows} == {"flagged": "a test", "broken": "a step is missing"}


def test_attempts_are_those_of_the_adapter_that_played_a_task_last(served_store: ServedStore) -> None:
    store, log = served_store.store, Log(served_store.store)
    for number, (adapter, success) in enumerate(
        [("old", True), ("old", True), ("new", False), ("new", True), ("new", False)]
    ):
        log.publish(*practised(str(number), TRAIN[0], adapter, success=success))
    (row,) = store.query(ATTEMPTS_BY_TASK, {"environment": ENVIRONMENT}).to_pylist()
    assert (row["attempts"], row["successes"]) == (3, 1)
    assert store.query(ATTEMPTS_BY_TASK, {"environment": "another"}).num_rows == 0


async def test_attempts_with_advice_are_of_no_group_and_take_no_place_of_the_others(
    served_store: ServedStore, tmp_path: Path
) -> None:
    store, log = served_store.store, Log(served_store.store)
    log.publish(*practised("lost", TRAIN[0], success=False), *practised("won", TRAIN[0]))
    lesson = Advice(kind="lesson", text="Go.", step=1)
    for name, advice in (("reflected", REFLECTION), ("instructed", lesson)):
        log.publish(*practised(name, TRAIN[0], advice=advice))
    (row,) = store.query(ATTEMPTS_BY_TASK, {"environment": ENVIRONMENT}).to_pylist()
    assert (row["attempts"], row["successes"]) == (2, 1)
    assert store.query(NEW_PRACTICE, {"since": -1}).to_pylist() == [{"successes": 1, "groups": 1}]
    async with StoreClient(served_store.url) as client:
        snapshot = await build_snapshot(client, HOLDOUT, tmp_path, most_practised_per_task=1)
    found = {one.episode_id: one for one in read_trajectories(snapshot.folder)}
    assert {name: one.actor_kind for name, one in found.items()} == {
        "lost": "policy",
        "won": "policy",
        "reflected": REFLECTED,
        "instructed": INSTRUCTED,
    }
    assert found["instructed"].rationales == (Rationale(1, "Go.", LESSON),)


def test_a_group_without_spread_is_no_news(served_store: ServedStore) -> None:
    store, log = served_store.store, Log(served_store.store)

    def news(since: int = -1) -> int:
        return int(store.query(NEW_PRACTICE, {"since": since})["successes"][0].as_py())

    log.publish(*practised("a", TRAIN[0]), *practised("b", TRAIN[0]))
    assert news() == 0
    log.publish(*practised("c", TRAIN[0], success=False))
    assert news() == 2
    log.publish(*practised("d", TRAIN[1], success=False), *practised("e", TRAIN[1], "ratchet-2"))
    assert news() == 2, "another adapter's attempts are another group"
    assert news(since=store.sequence) == 0


def test_practice_takes_nothing_of_the_quota_of_agents(tmp_path: Path) -> None:
    quota = QuotaSettings(per_principal=1, near_duplicates=1)
    store = Store.open(StoreSettings(path=tmp_path / "store.duckdb"), HOLDOUT, KAFKA, quota)
    log = Log(store)
    for number in range(3):
        log.publish(*practised(f"p{number}", TRAIN[0]))
    log.publish(*episode(PRINCIPAL, TRAIN[0]))
    assert status(store).trusted == {"train": 1}
    assert status(store).practice.unusable == 0
    store.close()


async def test_a_snapshot_holds_practice_sample_by_sample_as_it_was(served_store: ServedStore, tmp_path: Path) -> None:
    log = Log(served_store.store)
    # Two samples that went the same way, and one that a demonstration went, too: each is a sample of its own.
    log.publish(*practised("a", TRAIN[0]), *practised("b", TRAIN[0]), *practised("lost", TRAIN[0], success=False))
    log.publish(*episode("shown", TRAIN[0]))
    log.publish(RetractionEvent(principal=PRINCIPAL, reason="a name that any agent may bear"))
    async with StoreClient(served_store.url) as store:
        snapshot = await build_snapshot(store, HOLDOUT, tmp_path)
    found = {trajectory.episode_id: trajectory for trajectory in read_trajectories(snapshot.folder)}
    assert {name: (one.origin, one.success, one.score) for name, one in found.items()} == {
        "a": ("practice", True, 1.0),
        "b": ("practice", True, 1.0),
        "lost": ("practice", False, 0.0),
        "shown": ("production", True, 1.0),
    }
    assert found["a"].log_probabilities == ((-0.25, -1.5, -0.125), (-0.5, -1.5, -0.125))
    assert found["shown"].log_probabilities == ()
    assert (found["a"].adapter, found["a"].principals) == ("ratchet-1", ())
    assert snapshot.manifest.episodes == {"practice": 2, "practice_failed": 1, "expert": 1}
    assert read_episodes(snapshot.folder) == {"a", "b", "lost", "shown"}
    assert dict(read_principals(snapshot.folder)) == {"shown": 1}


async def test_of_each_task_the_newest_successes_and_failures_are_taken(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log = Log(served_store.store)
    for number in range(8):
        log.publish(*practised(str(number), TRAIN[number // 4], success=number % 2 == 0))
    async with StoreClient(served_store.url) as store:
        snapshot = await build_snapshot(store, HOLDOUT, tmp_path, most_practised_per_task=1)
    assert read_episodes(snapshot.folder) == {"2", "3", "6", "7"}


@pytest.mark.parametrize("first", ["steps", "outcome"])
async def test_a_held_out_task_that_got_into_the_store_is_not_learned_from(
    served_store: ServedStore, tmp_path: Path, first: str
) -> None:
    log = Log(served_store.store)
    events = practised("leaked", HELD_OUT[0])
    log.publish(*(events if first == "steps" else events[::-1]), *practised("fine", TRAIN[0]))
    (leaked,) = (row for row in served_store.store.query("FROM practised").to_pylist() if row["episode_id"] == "leaked")
    assert leaked["reason"] is not None
    async with StoreClient(served_store.url) as store:
        snapshot = await build_snapshot(store, HOLDOUT, tmp_path)
    assert read_episodes(snapshot.folder) == {"fine"}


def test_a_production_episode_of_the_same_id_is_another_episode(served_store: ServedStore) -> None:
    store, log = served_store.store, Log(served_store.store)
    log.publish(*practised("same", TRAIN[0]))
    outside = [
        event.model_copy(update={"event_id": f"x{event.event_id}", "episode_id": "same"})
        for event in episode("agent", TRAIN[0], "policy", success=False)
    ]
    log.publish(*outside)
    assert status(store).practice == PracticeCounts(episodes=1, successes=1, steps=2, tasks={"solved": 1})
    assert column(store, "SELECT episode_id FROM failed") == ["same"]


@pytest.mark.parametrize("before", ["DROP TABLE practised", "ALTER TABLE practised DROP COLUMN advice"])
async def test_a_store_of_before_takes_practice(tmp_path: Path, before: str) -> None:
    path = tmp_path / "store.duckdb"
    store = Store.open(StoreSettings(path=path), HOLDOUT, KAFKA)
    Log(store).publish(*episode("before", TRAIN[0]))
    store.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute(before)
        for later in ("state", "advice", "log_probabilities"):
            connection.execute(f"ALTER TABLE transitions DROP COLUMN {later}")
    store = Store.open(StoreSettings(path=path), HOLDOUT, KAFKA)
    store.append(records(practised("now", TRAIN[1]), partition=1))
    known = "SELECT episode_id, log_probabilities FROM transitions ORDER BY sequence"
    assert [tuple(row.values()) for row in store.query(known).to_pylist()] == [
        *[("before", None)] * 2,
        ("now", [-0.25, -1.5, -0.125]),
        ("now", [-0.5, -1.5, -0.125]),
    ]
    assert status(store).practice.episodes == 1
    store.close()


def test_what_an_agent_says_of_probabilities_and_advice_is_not_kept(served_store: ServedStore) -> None:
    store = served_store.store
    own = {"log_probabilities": (-1.0,), "advice": REFLECTION}
    Log(store).publish(*(event.model_copy(update=own) for event in episode("agent", TRAIN[0])[:2]))
    rows = store.query("SELECT log_probabilities, advice FROM transitions").to_pylist()
    assert rows == [{"log_probabilities": None, "advice": None}] * 2


def test_practice_that_is_read_twice_is_stored_once(served_store: ServedStore) -> None:
    store, events = served_store.store, practised("once", TRAIN[0])
    log = Log(store)
    log.publish(*events)
    before = status(store)
    log.publish(*events)
    after = status(store)
    assert (after.practice, after.transitions) == (before.practice, before.transitions)
    assert after.duplicates == 3
