"""A snapshot holds what was judged: later events of an episode are judged again, and may take it out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from learners.snapshots import build_snapshot, read_trajectories
from ratchet_client.events import Event, Message, OutcomeEvent, RetractionEvent, StepEvent
from streams.assembly.assembly import assemble
from streams.errors import TrainingError
from streams.store.client import StoreClient
from streams.store.queries.learning import BRANCHING_STATE, LEARNABLE_EPISODES
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.builders.spans import conventions, root, span
from tests.builders.stored import Log, ServedStore, column, records, requests

TASK = TASKS[Split.TRAIN][0]
OTHER_TASK = TASKS[Split.TRAIN][1]


def policys(name: str = "run-1", steps: int = 1, success: bool = True) -> list[StepEvent | OutcomeEvent]:
    return episode(name, TASK, "policy", success=success, steps=steps)


def step(event: Event, **changes: object) -> StepEvent:
    assert isinstance(event, StepEvent)
    return event.model_copy(update=changes)


def outcome(event_id: str, success: bool, name: str = "run-1") -> OutcomeEvent:
    return OutcomeEvent(event_id=event_id, episode_id=name, verifier="game", success=success, score=float(success))


def another(event: Event, action: str = "delete all orders") -> StepEvent:
    """Another account of the same step."""
    return step(
        event,
        event_id="another",
        messages=(Message(role="user", content="Cancel order 9"),),
        action=Message(role="assistant", content=action),
        done=False,
    )


async def learned(served: ServedStore, home: Path, as_of: int | None = None) -> dict[str, list[str]]:
    """The actions of each trajectory of a snapshot."""
    async with StoreClient(served.url) as client:
        try:
            snapshot = await build_snapshot(client, HOLDOUT, home, as_of)
        except TrainingError:
            return {}
    return {one.episode_id: [step.action.text for step in one.steps] for one in read_trajectories(snapshot.folder)}


def untrusted(served: ServedStore) -> dict[str, str]:
    rows = served.store.query("SELECT episode_id, reason FROM untrusted ORDER BY sequence").to_pylist()
    return {row["episode_id"]: row["reason"] for row in rows}


async def test_another_account_of_a_step_withdraws_trust_and_an_earlier_sequence_still_has_the_episode(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, verdict) = Log(served_store.store), policys()
    log.publish(first, verdict)
    log.branched("run-1", TASK, step=0)
    before = served_store.store.sequence
    assert await learned(served_store, tmp_path) == {"run-1": ["go 0"]}
    log.publish(another(first), *episode("other", OTHER_TASK))
    assert "different things" in untrusted(served_store)["run-1"]
    assert await learned(served_store, tmp_path) == {"other": ["go 0", "go 1"]}
    assert await learned(served_store, tmp_path, as_of=before) == {"run-1": ["go 0"]}
    assert served_store.store.query("SELECT count(*) FROM untrusted").column(0).to_pylist() == [1]
    # More of the episode changes nothing.
    log.publish(outcome("late", success=True), another(first, "and another"))
    assert await learned(served_store, tmp_path) == {"other": ["go 0", "go 1"]}


@pytest.mark.parametrize("done", [False, True])
async def test_steps_after_trust_are_learned_from_only_when_an_outcome_of_their_own_is_a_success(
    done: bool, served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, second, verdict) = Log(served_store.store), policys(steps=2)
    log.publish(first, verdict)
    log.publish(step(second, done=done))
    before = served_store.store.sequence
    assert await learned(served_store, tmp_path) == {"run-1": ["go 0"]}
    log.publish(outcome("second", success=True))
    assert await learned(served_store, tmp_path) == {"run-1": ["go 0", "go 1"]}
    assert await learned(served_store, tmp_path, as_of=before) == {"run-1": ["go 0"]}
    assert [len(request.steps) for request in requests(served_store.store)] == [1, 2]
    assert column(served_store.store, LEARNABLE_EPISODES.replace("$since", "0")) == [1]


async def test_a_later_failure_withdraws_trust_from_a_policys_episode_with_its_branches(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log = Log(served_store.store)
    log.publish(*policys(), *episode("other", OTHER_TASK))
    log.branched("run-1", TASK, step=0)
    before = served_store.store.sequence
    log.publish(outcome("late", success=False))
    log.branched("run-1", TASK, step=1)
    assert untrusted(served_store) == {"run-1": "an outcome says that it failed"}
    assert await learned(served_store, tmp_path) == {"other": ["go 0", "go 1"]}
    assert set(await learned(served_store, tmp_path, as_of=before)) == {"run-1", "other"}
    # Its states are not waited for any more, and its answers not counted as those of others.
    (state,) = served_store.store.query(BRANCHING_STATE).to_pylist()
    assert state == {"asked": 2, "answered": 0}


async def test_the_same_step_in_a_second_event_is_harmless_before_and_after_trust(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, second, verdict) = Log(served_store.store), policys(steps=2)
    log.publish(first, step(first, event_id="again-0"), second)
    log.publish(verdict)
    log.publish(step(second, event_id="again-1"), step(first, event_id="once-more"))
    assert untrusted(served_store) == {}
    assert await learned(served_store, tmp_path) == {"run-1": ["go 0", "go 1"]}
    (request,) = requests(served_store.store)
    assert len(request.steps) == 2
    assert served_store.store.query(BRANCHING_STATE).to_pylist() == [{"asked": 2, "answered": 0}]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("o01", ["go 0", "go 1"]),
        ("01o", ["go 0", "go 1"]),
        ("10o", ["go 0", "go 1"]),
        ("1o0", ["go 0", "go 1"]),
        ("0o1", ["go 0"]),
    ],
)
async def test_events_may_come_in_any_order_and_each_in_a_batch_of_its_own(
    order: str, expected: list[str], served_store: ServedStore, tmp_path: Path
) -> None:
    events = dict(zip("01o", policys(steps=2), strict=True))
    log = Log(served_store.store)
    for name in order:
        log.publish(events[name])
    assert await learned(served_store, tmp_path) == {"run-1": expected}
    assert untrusted(served_store) == {}


@pytest.mark.parametrize("batches", [1, 2])
async def test_contradicting_steps_are_never_trusted_however_they_are_batched(
    batches: int, served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, verdict) = Log(served_store.store), policys()
    events: Sequence[Event] = (first, verdict, another(first))
    if batches == 1:
        log.publish(*events)
    else:
        log.publish(first, another(first))
        log.publish(verdict)
    assert await learned(served_store, tmp_path) == {}


async def test_an_unended_step_after_the_outcome_of_its_batch_waits_for_an_outcome(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, second, verdict) = Log(served_store.store), policys(steps=2)
    log.publish(first, verdict, step(second, done=False))
    assert await learned(served_store, tmp_path) == {}
    log.publish(outcome("second", success=True))
    assert await learned(served_store, tmp_path) == {"run-1": ["go 0", "go 1"]}


async def test_a_failure_that_another_verifier_contradicts_is_not_trusted_and_a_later_failure_takes_trust_away(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log = Log(served_store.store)
    log.publish(*policys("fails-first", success=False))
    log.publish(outcome("flip", success=True, name="fails-first").model_copy(update={"verifier": "thumbs"}))
    log.publish(*episode("fails-later", OTHER_TASK, "policy"))
    log.publish(outcome("flop", success=False, name="fails-later"))
    assert await learned(served_store, tmp_path) == {}
    assert set(untrusted(served_store)) == {"fails-later"}


async def test_recoveries_of_a_failed_episode_with_contradicting_steps_are_not_learned_from(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, second, verdict) = Log(served_store.store), policys(steps=2, success=False)
    log.publish(first, second, verdict)
    log.recovered("run-1", TASK, left_at=1)
    # A step that says the same again does not move the state where the recovery begins.
    log.publish(step(first, event_id="again"))
    before = served_store.store.sequence
    assert list((await learned(served_store, tmp_path)).values()) == [["go 0", "back", "forward"]]
    log.publish(another(first))
    log.recovered("run-1", TASK, left_at=0)
    assert await learned(served_store, tmp_path) == {}
    assert len(await learned(served_store, tmp_path, as_of=before)) == 1


async def test_a_sign_of_injection_after_trust_withdraws_it(served_store: ServedStore, tmp_path: Path) -> None:
    first, second, verdict = policys(steps=2)
    served_store.store.append(records([first, verdict]))
    (bad,) = records([second], start=2)
    served_store.store.append([replace(bad, flag="injection: instructions")])
    assert untrusted(served_store) == {"run-1": "injection: instructions"}
    assert await learned(served_store, tmp_path) == {}


async def test_a_demonstration_loses_trust_by_a_failure_too(served_store: ServedStore, tmp_path: Path) -> None:
    log = Log(served_store.store)
    log.publish(*episode("shown", TASK, "human"))
    assert set(await learned(served_store, tmp_path)) == {"shown"}
    log.publish(outcome("late", success=False, name="shown"))
    assert await learned(served_store, tmp_path) == {}


async def test_a_step_of_another_principal_after_trust_is_not_taken_in(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, second, verdict) = Log(served_store.store), policys(steps=2)
    log.publish(first, verdict)
    log.publish(step(second, principal="a stranger"), outcome("second", success=True))
    assert await learned(served_store, tmp_path) == {"run-1": ["go 0"]}
    log.publish(RetractionEvent(principal="a stranger", reason="asked"))
    assert await learned(served_store, tmp_path) == {}


async def test_a_conversation_id_that_comes_back_after_its_spans_were_forgotten_loses_trust(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, named = Log(served_store.store), {"ratchet.task.id": TASK}
    said = [("user", "Add milk"), ("user", "Cancel order 9")]
    for number, (message, action) in enumerate(zip(said, ("add milk", "delete all orders"), strict=True)):
        trace = f"{number:032x}"
        spans = [span(1, conventions([message], action), trace_id=trace), root(named, trace_id=trace)]
        events = assemble("conversation", spans, {}).events
        log.publish(*events)
        log.publish(outcome(f"outcome-{number}", success=True, name="conversation"))
        expected = {"conversation": ["add milk"]} if number == 0 else {}
        assert await learned(served_store, tmp_path) == expected
    assert "different things" in untrusted(served_store)["conversation"]
