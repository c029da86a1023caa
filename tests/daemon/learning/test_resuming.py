"""Which trial a learner finds unfinished, by the audit log alone."""

import pytest

from daemon.learning.loop import ACTOR
from daemon.learning.resuming import unfinished
from daemon.registry.audit import Action, AuditEvent
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, CycleReport
from evaluation.gates.verdict import Verdict

OLDER, NEWER = "a" * 64, "b" * 64


def entered(registry: Registry, adapter: str, *states: State) -> None:
    for state in states:
        registry.enter(adapter, state, ACTOR, "a test")


def recorded(registry: Registry, adapter: str) -> None:
    registry.record_cycle(
        CycleReport(
            cycle=1,
            adapter=adapter,
            champion=BASE,
            verdict=Verdict.PROMOTE,
            reason="a test",
            champion_success=None,
            candidate_success=None,
            tasks=0,
            gates=(),
            seconds=0.0,
        ),
        ACTOR,
    )


@pytest.mark.parametrize("state", [State.TRAINED, State.EVALUATING])
def test_a_trial_that_was_not_ended_is_unfinished_and_only_the_newest(registry: Registry, state: State) -> None:
    assert unfinished(registry.audit.read()) is None
    entered(registry, OLDER, State.TRAINED, State.EVALUATING)
    entered(registry, NEWER, *[State.TRAINED, State.EVALUATING][: 1 + (state is State.EVALUATING)])
    left = unfinished(registry.audit.read())
    assert left is not None
    assert (left.subject, left.state) == (NEWER, state)


@pytest.mark.parametrize("state", [State.REJECTED, State.INCONCLUSIVE, State.HELD, State.APPROVED])
def test_a_verdict_is_unfinished_until_its_cycle_is_recorded_and_a_promotion_was_tried(
    registry: Registry, state: State
) -> None:
    entered(registry, NEWER, State.TRAINED, State.EVALUATING, state)
    left = unfinished(registry.audit.read())
    assert left is not None
    assert left.state is state
    recorded(registry, NEWER)
    left = unfinished(registry.audit.read())
    assert (left is not None) == (state is State.APPROVED)
    registry.record_failure(NEWER, "server", "it was not the adapter that was trained")
    assert unfinished(registry.audit.read()) is None


def test_what_a_person_decided_or_entered_is_not_the_learners_to_finish(registry: Registry) -> None:
    entered(registry, NEWER, State.TRAINED, State.EVALUATING, State.HELD)
    registry.enter(NEWER, State.APPROVED, "ann", "looked at it")
    assert unfinished(registry.audit.read()) is None
    registry.audit.append(
        AuditEvent(actor="ann", action=Action.MOVED, subject=OLDER, reason="a test", state=State.TRAINED)
    )
    assert unfinished(registry.audit.read()) is None


def test_a_promotion_that_came_is_not_asked_for_again(registry: Registry) -> None:
    entered(registry, NEWER, State.TRAINED, State.EVALUATING, State.APPROVED)
    recorded(registry, NEWER)
    registry.promote(NEWER, ACTOR, "it won")
    assert unfinished(registry.audit.read()) is None
