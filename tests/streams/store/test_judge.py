"""What the store lets be learned from, and what it asks the branch workers to do about it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from ratchet_client.events import Event, OutcomeEvent, RetractionEvent, StepEvent
from ratchet_client.ids import content_id
from streams.kafka.refusals import RefusedEvent
from streams.store.decoded import Decoded
from streams.store.status import status
from streams.store.writer import Appended, Store
from streams.trust.holdout import Split
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import KAFKA, TASKS, episode
from tests.builders.stored import column, raw, records, requests


def test_a_refused_event_is_noted_with_its_principal(store: Store) -> None:
    refused = Decoded(raw(b"{}").received, RefusedEvent("too large", "tenant/a"))
    assert store.append([refused]) == Appended(quarantined=1)
    assert store.query("SELECT principal, reason FROM quarantined").to_pylist() == [
        {"principal": "tenant/a", "reason": "too large"}
    ]
    assert store.positions() == {(KAFKA.events_topic, 0): 1}


def test_a_flagged_episode_is_stored_and_never_trusted(store: Store) -> None:
    first, *rest = records(episode("a"))
    assert store.append([replace(first, flag="injection"), *rest]) == Appended(stored=3)
    assert column(store, "SELECT episode_id FROM flags") == ["a"]
    assert status(store).trusted == {}


def test_redactions_are_counted_by_kind(store: Store) -> None:
    first, second, verdict = records(episode("a"))
    found = [replace(first, redactions={"email": 2}), replace(second, redactions={"email": 1, "iban": 1}), verdict]
    store.append(found)
    assert status(store).redactions == {"email": 3, "iban": 1}


def test_one_principal_and_similar_episodes_are_trusted_only_up_to_the_quota(
    open_store_with: Callable[[QuotaSettings], Store],
) -> None:
    store = open_store_with(QuotaSettings(per_principal=2))
    many = [
        event.model_copy(update={"principal": "p"} if isinstance(event, StepEvent) else {})
        for name in "abc"
        for event in episode(name)
    ]
    assert store.append(records(many)).trusted == 2
    assert column(store, "SELECT episode_id FROM flags") == ["c"]
    store = open_store_with(QuotaSettings(near_duplicates=3))
    assert store.append(records([event for name in "def" for event in episode(name)], start=9)).trusted == 1
    assert column(store, "SELECT reason FROM flags ORDER BY sequence")[1].startswith("flood")


@pytest.mark.parametrize(
    ("events", "trusted", "requested"),
    [
        (episode("a", actor="expert"), {"train": 1}, ["a"]),
        (episode("a", actor="human", success=False), {}, []),
        (episode("a", actor="expert", success=False), {}, []),
        (episode("a", actor="policy"), {"train": 1}, ["a"]),
        (episode("a", actor="policy", success=False), {}, []),
        (episode("a", actor="policy")[:2], {}, []),
        (episode("a", actor="expert", task_id=TASKS[Split.SELECTION][0]), {"selection": 1}, []),
        ([episode("a")[1], episode("a")[2]], {}, []),
    ],
    ids=[
        "an expert's",
        "a human's that failed",
        "an expert's that failed",
        "a verified success",
        "a failure",
        "not judged",
        "held out",
        "without its first step",
    ],
)
def test_only_trusted_training_episodes_are_branched(
    store: Store, events: list[Event], trusted: dict[str, int], requested: list[str]
) -> None:
    store.append(records(events))
    assert status(store).trusted == trusted
    assert [request.episode_id for request in requests(store) if request.verdict == "trusted"] == requested


def test_a_request_can_restore_every_state_that_the_actor_saw(store: Store) -> None:
    events = episode("a")
    store.append(records(events))
    (request,) = requests(store)
    assert request.event_id == content_id("branch_request", "trusted", "a")
    for step in events[:2]:
        assert isinstance(step, StepEvent)
        assert request.state(step.step) == step.messages


def test_an_outcome_may_come_before_the_steps_and_in_another_batch(store: Store) -> None:
    first, second, verdict = episode("a")
    store.append(records([verdict], partition=1))
    store.append(records([first]))
    assert requests(store) == []
    store.append(records([second], start=1))
    assert [request.episode_id for request in requests(store)] == ["a"]


def test_an_episode_is_requested_once_however_often_it_is_judged(store: Store) -> None:
    store.append(records(episode("a")))
    again = OutcomeEvent(event_id="again", episode_id="a", verifier="judge", success=True, score=1.0)
    store.append(records([again], start=3))
    assert len(requests(store)) == 1
    assert status(store).trusted == {"train": 1}


def test_an_episode_whose_history_was_rewritten_is_not_trusted_as_one_conversation(store: Store) -> None:
    first, second, verdict = episode("a")
    assert isinstance(second, StepEvent)
    rewritten = second.model_copy(update={"messages": second.messages[1:]})
    store.append(records([first, rewritten, verdict]))
    assert status(store).trusted == {}
    assert requests(store) == []


def test_an_episode_reported_by_two_principals_is_unowned_and_not_trusted(store: Store) -> None:
    first, second, verdict = episode("a")
    store.append(records([first, second.model_copy(update={"principal": "tenant/b"}), verdict]))
    assert status(store).trusted == {}


def test_successes_that_are_not_trusted_are_counted_by_reason(store: Store) -> None:
    first, second, verdict = episode("a")
    assert isinstance(first, StepEvent)
    assert isinstance(second, StepEvent)
    rewritten = second.model_copy(update={"messages": second.messages[1:]})
    other_task = second.task.model_copy(update={"seed": 99})
    failure = OutcomeEvent(event_id="failure", episode_id="a", verifier="judge", success=False, score=0.0)
    cases: list[tuple[str | None, list[Event]]] = [
        ("not an append-only conversation", [first, rewritten, verdict]),
        ("not an append-only conversation", [first, second, rewritten.model_copy(update={"event_id": "x"}), verdict]),
        ("its steps are of several principals", [first, second.model_copy(update={"principal": "b"}), verdict]),
        ("its steps are of several tasks", [first, second.model_copy(update={"task": other_task}), verdict]),
        ("a step is missing", [second, verdict]),
        ("none of its steps is stored", [verdict]),
        ("another outcome says that it failed", [first, second, verdict, failure]),
        ("steps came after its outcome, and wait for an outcome of their own", [verdict, first]),
        (None, [first, second, verdict]),
        (None, [first, second.model_copy(update={"flag": "told"}), verdict]),
        (None, [first, second, failure]),
        (None, [first, second]),
    ]
    expected: Counter[str] = Counter()
    for number, (reason, events) in enumerate(cases):
        names = {"episode_id": str(number)}
        renamed = [e.model_copy(update={**names, "event_id": f"{number} {e.event_id}"}) for e in events]
        store.append(records(renamed, partition=number))
        expected.update([reason] if reason else [])
        assert status(store).not_trusted == expected, reason


def test_a_success_that_waits_is_no_longer_counted_when_it_is_trusted(store: Store) -> None:
    first, second, verdict = episode("a")
    store.append(records([verdict, first]))
    assert sum(status(store).not_trusted.values()) == 1
    store.append(records([second], start=2))
    assert (status(store).not_trusted, status(store).trusted) == ({}, {"train": 1})
    store.append(records(episode("b")[1:], start=3))
    assert status(store).not_trusted == {"a step is missing": 1}
    principal = column(store, "SELECT principal FROM transitions WHERE episode_id = 'b'")[0]
    store.append(records([RetractionEvent(principal=principal, reason="asked")], start=5))
    assert status(store).not_trusted == {}
