"""The episodes of a canary in the store: one row for each draw, with the side that answered and how it went."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet_client.events import Actor, OutcomeEvent, RetractionEvent, StepEvent
from ratchet_client.messages import assistant, user
from streams.store.queries.canary import CANARY_EPISODES
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from tests.builders.episodes import HOLDOUT, KAFKA, task
from tests.builders.stored import Log

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
CHAMPION, CANDIDATE = ["base"], ["ratchet-9", "ratchet-12"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(StoreSettings(path=tmp_path / "store.duckdb"), HOLDOUT, KAFKA)
    yield store
    store.close()


@pytest.fixture
def log(store: Store) -> Log:
    return Log(store)


def steps(name: str, *adapters: str, hour: float = 1.0, key: str | None = None) -> list[StepEvent]:
    return [
        StepEvent(
            event_id=f"{name}-{number}",
            episode_id=name,
            step=number,
            agent="agent",
            principal=name,
            recorded_at=BEGAN + timedelta(hours=hour, minutes=number),
            task=task(),
            messages=(user(f"Do {name}."),),
            action=assistant(f"go {number}"),
            observation=(),
            done=number == len(adapters) - 1,
            actor=Actor(kind="policy", adapter=adapter),
            receipt=None if key is None else f"{name}-{number}.{key}",
        )
        for number, adapter in enumerate(adapters)
    ]


def outcome(name: str, success: bool, verifier: str = "tests", minute: int = 0) -> OutcomeEvent:
    at = BEGAN + timedelta(hours=2, minutes=minute)
    return OutcomeEvent(
        event_id=f"{name}-{verifier}-{minute}",
        episode_id=name,
        verifier=verifier,
        success=success,
        score=float(success),
        recorded_at=at,
    )


def found(store: Store) -> list[tuple[bool, bool | None]]:
    parameters = {"since": BEGAN.timestamp(), "champion": CHAMPION, "candidate": CANDIDATE}
    return [(row["candidate"], row["success"]) for row in store.query(CANARY_EPISODES, parameters).to_pylist()]


def test_each_side_has_its_episodes_in_the_order_of_their_outcomes(store: Store, log: Log) -> None:
    log.publish(*steps("a", "base", "base"), *steps("b", "ratchet-9"), *steps("c", "ratchet-9", "ratchet-12"))
    log.publish(outcome("c", True), outcome("a", False), outcome("b", True))
    assert found(store) == [(True, True), (False, False), (True, True)]


def test_an_episode_without_an_outcome_or_with_a_models_alone_has_none(store: Store, log: Log) -> None:
    log.publish(*steps("a", "base"), *steps("b", "ratchet-9"), outcome("b", True, "model:judge"))
    assert sorted(found(store)) == [(False, None), (True, None)]


def test_one_failure_among_the_outcomes_that_count_is_a_failure(store: Store, log: Log) -> None:
    log.publish(*steps("a", "ratchet-9"), outcome("a", True), outcome("a", False, "customer"))
    assert found(store) == [(True, False)]
    log.publish(outcome("a", True, "customer", minute=5))  # the customer takes it back
    assert found(store) == [(True, True)]


def test_what_began_before_and_what_both_sides_or_others_answered_is_left_out(store: Store, log: Log) -> None:
    log.publish(*steps("a", "base", hour=-0.01), *steps("b", "base", "ratchet-9"), *steps("c", "ratchet-3"))
    log.publish(*(outcome(name, True) for name in "abc"))
    assert found(store) == []


def test_episodes_that_the_gateway_cannot_tell_apart_are_one(store: Store, log: Log) -> None:
    key, other = "0123456789abcdef", "fedcba9876543210"
    log.publish(*steps("a", "ratchet-9", key=key), *steps("b", "ratchet-9", key=key), *steps("c", "base", key=other))
    log.publish(outcome("b", False), outcome("a", True), outcome("c", True))
    assert found(store) == [(True, False), (False, True)]


def test_episodes_of_who_revoked_consent_do_not_count(store: Store, log: Log) -> None:
    log.publish(*steps("a", "ratchet-9"), outcome("a", False))
    assert found(store) == [(True, False)]
    log.publish(RetractionEvent(event_id="r", principal="a", reason="a letter"))
    assert found(store) == []
