"""Failed episodes: which are asked to be recovered from, once, and what is kept of what came of it."""

from collections.abc import Callable
from dataclasses import replace

from streams.events import BranchResult, Fatality, RecordedStep, Recovery, RecoveryResult
from streams.ids import content_id
from streams.intake.decoding import decode_result
from streams.kafka.records import Received
from streams.store.decoded import Decoded
from streams.store.status import status
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.streams.episodes import KAFKA, column, episode, records, requests, result, task


def recovered(episode_id: str, offset: int = 0) -> Decoded:
    request_id = content_id("branch_request", "failed", episode_id)
    recovery = Recovery(
        left_at=1, steps=(RecordedStep(action="back", observation="Done."),), score=1.0, source="policy"
    )
    record = RecoveryResult(
        event_id=RecoveryResult.id_for(request_id),
        request_id=request_id,
        episode_id=episode_id,
        task=task(),
        attempts=4,
        sandbox_steps=11,
        fidelity="sandbox_replayed",
        policy="base",
        recoveries=(recovery,),
    )
    return decode_result(Received(KAFKA.transitions_topic, 0, offset, b"key", record.to_json()))


def test_a_policys_failed_episode_is_asked_to_be_recovered_from_once(open_store: Callable[[], Store]) -> None:
    store = open_store()
    *steps, verdict = episode("a", "policy", success=False)
    store.append(records([*steps, verdict]))
    (request,) = requests(store)
    assert (request.episode_id, request.verdict, len(request.steps)) == ("a", "failed", 2)
    # A second verdict does not ask again, and does not turn a failure into a success.
    store = open_store()
    again = verdict.model_copy(update={"event_id": "second", "success": True})
    assert store.append(records([again], start=3)).trusted == 0
    assert len(requests(store)) == 1
    assert column(store, "SELECT principal FROM failed") == ["tenant/a"]


def test_nobody_is_asked_about_an_experts_failure_or_a_task_that_is_held_out(store: Store) -> None:
    expert, held_out = episode("a", success=False), episode("b", "policy", success=False, split=Split.SELECTION)
    store.append(records([*expert, *held_out]))
    # What an expert did is trusted whatever came of it.
    assert [(request.episode_id, request.verdict) for request in requests(store)] == [("a", "trusted")]
    assert column(store, "SELECT split FROM failed") == ["selection"]


def test_a_recovery_is_kept_once_with_whose_data_it_begins_with(store: Store) -> None:
    store.append(records(episode("a", "policy", success=False)))
    store.append([recovered("a"), recovered("a", offset=1)])
    counts = status(store).recoveries
    assert (counts.episodes, counts.attempts, counts.sandbox_steps, counts.recoveries) == (1, 4, 11, 1)
    assert status(store).duplicates == 1
    (row,) = store.query("SELECT * FROM recoveries").to_pylist()
    assert (row["episode_id"], row["left_at"], row["adapter"], row["principal"]) == ("a", 1, "base", "tenant/a")
    assert row["steps"] == '[{"action":"back","observation":"Done."}]'


def test_actions_that_a_sandbox_did_not_survive_are_counted_and_are_no_transitions(store: Store) -> None:
    store.append(records(episode("a")))
    decoded = result("a")
    assert isinstance(decoded.content, BranchResult)
    fatal = (Fatality(action="hang", fate="timeout"), Fatality(action="die", fate="died"))
    store.append([replace(decoded, content=decoded.content.model_copy(update={"fatalities": fatal}))])
    assert (status(store).branches.timeouts, status(store).branches.deaths) == (1, 1)
    assert status(store).transitions["branch"] == 2
