"""Counts for operators: how adapters did in production, how far episodes come, and why not further."""

from ratchet_client.events import OutcomeEvent, StepEvent
from streams.store.reasons import DROP_REASONS, EPISODE_REASONS, OTHER, by_kind, labels
from streams.store.status import status
from streams.store.writer import Store
from tests.builders.episodes import episode
from tests.builders.stored import branches, records, result


def answered(episode_id: str, *adapters: str, success: bool = True) -> list[StepEvent | OutcomeEvent]:
    """An episode of a policy, whose steps these adapters answered in turn."""
    *steps, outcome = episode(episode_id, actor="policy", success=success)
    named = [
        step.model_copy(update={"actor": step.actor.model_copy(update={"adapter": adapters[at % len(adapters)]})})
        for at, step in enumerate(steps)
        if isinstance(step, StepEvent)
    ]
    assert isinstance(outcome, OutcomeEvent)
    return [*named, outcome]


def test_episodes_are_counted_for_the_adapter_that_answered_them_alone(store: Store) -> None:
    told = [*answered("a", "base"), *answered("b", "base", success=False), *answered("c", "ratchet-7", "base")]
    *unjudged, _ = answered("d", "ratchet-7")
    opinion = answered("e", "ratchet-7")
    opinion[-1] = opinion[-1].model_copy(update={"verifier": "model:someone"})
    store.append(records([*told, *unjudged, *opinion]))
    found = status(store).production
    assert {name: (counts.episodes, counts.successes) for name, counts in found.items()} == {"base": (2, 1)}


def test_the_funnel_narrows_from_ended_episodes_to_restored_ones(store: Store) -> None:
    *open_, _ = episode("open")
    ended = [step.model_copy(update={"done": True}) for step in open_[-1:]]
    store.append(records([*episode("a"), *episode("b"), *episode("c", success=False), *open_[:-1], *ended]))
    assert status(store).funnel == {"ended": 4, "judged": 3, "trusted": 2, "restored": 0}
    store.append([result(branches("a", actions=("jump",), requested=1))])
    assert status(store).funnel["restored"] == 1


def test_reasons_have_labels_of_a_closed_list(store: Store) -> None:
    *steps, outcome = episode("a")
    store.append(records([*steps[1:], outcome]))
    states = status(store).episodes
    found = {state: by_kind(reasons, EPISODE_REASONS) for state, reasons in states.items()}
    assert found == {"undecided": {"step_missing": 1}}
    assert by_kind({"the moon was full": 2, "no sandbox could be opened: x": 1}, DROP_REASONS)[OTHER] == 2
    assert OTHER in labels(EPISODE_REASONS)
    assert len(labels(EPISODE_REASONS)) < 30
