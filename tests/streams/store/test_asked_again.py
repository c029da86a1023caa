"""Episodes that came before their sandbox was configured are branched once it is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from streams.branch_events import NO_SANDBOX, BranchRequest, BranchResult, RecoveryResult
from streams.environments.registry import is_configured
from streams.store.queries.learning import BRANCHING_STATE
from streams.store.status import status
from streams.store.writer import Store
from tests.builders.episodes import KAFKA, episode
from tests.builders.stored import records, requests, result

REASONS = (
    f"{NO_SANDBOX}: none is installed for the environment 'desk'",
    "no sandbox is installed for the environment 'desk'",
    "the settings of the environment 'toolbox', [branching.environments.toolbox], are wrong: 1 validation error",
)


def answer(request: BranchRequest, reason: str = "") -> list[BranchResult | RecoveryResult]:
    """Return what a worker says of each state, or of the failed episode."""
    said = {
        "request_id": request.event_id,
        "episode_id": request.episode_id,
        "task": request.task,
        "fidelity": "dropped" if reason else "sandbox_exact",
        "reason": reason,
    }
    if request.verdict == "failed":
        return [RecoveryResult(event_id=RecoveryResult.id_for(request.event_id), attempts=0, sandbox_steps=0, **said)]
    return [
        BranchResult(event_id=BranchResult.id_for(request.event_id, step), step=step, requested=3, **said)
        for step in range(len(request.steps))
    ]


def take(store: Store, answers: list[BranchResult | RecoveryResult]) -> None:
    offset = store.positions().get((KAFKA.transitions_topic, 0), 0)
    store.append([result(each, offset + number) for number, each in enumerate(answers)])


def published(store: Store) -> list[BranchRequest]:
    """Take the waiting requests, as the log would."""
    waiting = requests(store)
    if waiting:
        store.published(store.pending(100)[-1].sequence)
    return waiting


def state(store: Store) -> tuple[int, int]:
    (row,) = store.query(BRANCHING_STATE).to_pylist()
    return row["asked"], row["answered"]


@pytest.mark.parametrize("reason", REASONS)
def test_episodes_without_a_sandbox_are_asked_for_once_more_when_there_is_one(
    open_store: Callable[[], Store], reason: str
) -> None:
    store = open_store()
    store.append(records([*episode("shown"), *episode("failed", actor="policy", success=False, action="run")]))
    asked = published(store)
    take(store, [each for request in asked for each in answer(request, reason)])
    assert state(store) == (3, 3)
    assert status(store).dropped == {NO_SANDBOX: 3}

    assert store.ask_again(lambda environment: False) == 0
    assert store.ask_again(lambda environment: environment == "textworld_express") == 2
    again = published(store)
    assert sorted(request.episode_id for request in again) == ["failed", "shown"]
    assert {request.event_id for request in again}.isdisjoint(request.event_id for request in asked)
    assert store.ask_again(lambda environment: True) == 0  # what was asked waits for its answer
    assert state(store) == (3, 0)

    take(store, [each for request in again for each in answer(request)])
    assert store.ask_again(lambda environment: True) == 0
    assert (state(store), status(store).dropped) == ((3, 3), {})
    counts = status(store)
    assert (counts.branches.states, counts.branches.dropped) == (2, 0)
    assert (counts.recoveries.episodes, counts.recoveries.dropped) == (1, 0)


def test_many_are_asked_for_a_few_at_a_time(open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.store.writer._ASKED_AT_ONCE", 2)
    store, names = open_store(), [f"shown-{number}" for number in range(5)]
    store.append(records([event for name in names for event in episode(name)]))
    take(store, [each for request in published(store) for each in answer(request, NO_SANDBOX)])
    assert store.ask_again(lambda environment: True) == 5
    assert sorted(request.episode_id for request in published(store)) == names
    assert store.ask_again(lambda environment: True) == 0


def test_what_was_dropped_for_another_reason_stays_dropped(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.append(records(episode("shown")))
    (request,) = published(store)
    take(store, answer(request, "the observation is another"))
    assert store.ask_again(lambda environment: True) == 0
    assert status(store).branches.dropped == 2


def test_an_environment_is_configured_when_it_is_installed_and_its_settings_are_complete(tmp_path: Path) -> None:
    assert is_configured("toolbox", {"folder": str(tmp_path)})
    assert not is_configured("toolbox", {})
    assert not is_configured("nosuch", {})
