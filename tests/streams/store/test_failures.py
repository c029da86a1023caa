"""Failed episodes: which are asked to be recovered from, once, and what is kept of what came of it."""

from collections.abc import Callable
from dataclasses import replace

from streams.branch_events import RESULT, BranchResult, Failure
from streams.store.status import status
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import branches, column, records, recovery, requests, result


def test_a_policys_failed_episode_is_asked_to_be_recovered_from_once(open_store: Callable[[], Store]) -> None:
    store = open_store()
    *steps, verdict = episode("a", actor="policy", success=False)
    store.append(records([*steps, verdict]))
    (request,) = requests(store)
    assert (request.episode_id, request.verdict, len(request.steps)) == ("a", "failed", 2)
    # A second verdict does not ask again, and another verifier's does not turn a failure into a success.
    store = open_store()
    again = verdict.model_copy(update={"event_id": "second"})
    other = verdict.model_copy(update={"event_id": "third", "verifier": "thumbs", "success": True})
    assert store.append(records([again, other], start=3)).trusted == 0
    assert len(requests(store)) == 1
    assert column(store, "SELECT principal FROM failed") == ["a"]


def test_experts_failures_and_held_out_tasks_are_not_recovered_from(store: Store) -> None:
    expert, held_out = (
        episode("a", success=False),
        episode("b", actor="policy", success=False, task_id=TASKS[Split.SELECTION][0]),
    )
    store.append(records([*expert, *held_out]))
    assert requests(store) == []
    assert column(store, "SELECT split FROM failed") == ["selection"]


def test_a_recovery_is_kept_once_with_the_principal_of_its_episode(store: Store) -> None:
    store.append(records(episode("a", actor="policy", success=False)))
    again = recovery("a", left_at=1, actions=["back"])
    store.append([result(again), result(again, offset=1)])
    counts = status(store).recoveries
    assert (counts.episodes, counts.attempts, counts.sandbox_steps, counts.recoveries) == (1, 4, 9, 1)
    assert status(store).duplicates == 1
    (row,) = store.query("SELECT * FROM recoveries").to_pylist()
    assert (row["episode_id"], row["left_at"], row["adapter"], row["principal"]) == ("a", 1, "base", "a")
    assert row["steps"] == (
        '[{"action":{"role":"assistant","content":"back"},"observation":[{"role":"user","content":"Done."}]}]'
    )


def test_actions_that_a_sandbox_did_not_survive_are_counted_and_are_no_transitions(store: Store) -> None:
    store.append(records(episode("a")))
    decoded = result(branches("a", actions=("jump", "wait"), requested=3))
    assert isinstance(decoded.content, BranchResult)
    fatal = (Failure(action="hang", failure_kind="timeout"), Failure(action="die", failure_kind="died"))
    store.append([replace(decoded, content=decoded.content.model_copy(update={"failures": fatal}))])
    assert (status(store).branches.timeouts, status(store).branches.deaths) == (1, 1)
    assert status(store).transitions["branch"] == 2


def test_sandbox_failures_keep_their_names_on_the_wire() -> None:
    failed = branches("a").model_copy(update={"failures": (Failure(action="hang", failure_kind="timeout"),)})
    assert b'"fatalities":[{"action":{"role":"assistant","content":"hang"},"fate":"timeout"}]' in failed.to_json()
    assert RESULT.validate_json(failed.to_json()) == failed
