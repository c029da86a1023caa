"""Canaries in the audit log: one at a time, each with its end, over restarts and crashes."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.registry.audit import Action
from daemon.registry.canaries import (
    ENDS,
    end_canary,
    last_canary,
    running_canary,
    start_canary,
    unrecorded_promotion,
)
from daemon.registry.lifecycle import TRANSITIONS, State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, CanaryEnd, CanaryReport, CanaryStart
from streams.errors import LifecycleError, PromotionError, RegistryError

A, B = "a" * 64, "b" * 64
START = CanaryStart(champion=BASE, share=0.1, salt="salt")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path)
    for adapter in (A, B):
        for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
            registry.enter(adapter, state, "learner", "a test")
    return registry


def report(end: CanaryEnd, adapter: str = A) -> CanaryReport:
    return CanaryReport(
        adapter=adapter, champion=BASE, share=0.1, began=datetime.now(UTC), ended=end, reason="of a test"
    )


def test_every_end_has_a_state_that_may_follow() -> None:
    assert set(ENDS) == set(CanaryEnd)
    assert set(ENDS.values()) | {State.QUARANTINED} == TRANSITIONS[State.CANARY]


def test_a_canary_that_began_is_found_again_after_a_restart(registry: Registry) -> None:
    assert running_canary(registry) is None
    begun = start_canary(registry, A, START, "learner", "it passed its gates")
    assert begun == running_canary(Registry(registry.home))
    assert (begun.adapter, begun.start, registry.state(A)) == (A, START, State.CANARY)
    assert registry.audit.read()[-1].action is Action.CANARY_STARTED


def test_there_is_one_canary_at_a_time_and_only_of_an_approved_adapter(registry: Registry) -> None:
    with pytest.raises(LifecycleError, match="is not known and cannot become canary"):
        start_canary(registry, "c" * 64, START, "anna", "I like it")
    start_canary(registry, A, START, "learner", "better")
    with pytest.raises(PromotionError, match="still runs"):
        start_canary(registry, B, START, "learner", "better")
    with pytest.raises(RegistryError, match="by promotion or rollback only"):
        registry.enter(B, State.CANARY, "anna", "quickly")


def test_a_canary_against_a_champion_that_serves_no_more_does_not_begin(registry: Registry) -> None:
    registry.promote(B, "anna", "better")
    with pytest.raises(PromotionError, match="champion has changed"):
        start_canary(registry, A, START, "learner", "better")


@pytest.mark.parametrize("end", [CanaryEnd.ROLLED_BACK, CanaryEnd.INCONCLUSIVE, CanaryEnd.CANCELLED])
def test_an_end_without_a_promotion_leaves_the_champion_and_says_why(end: CanaryEnd, registry: Registry) -> None:
    start_canary(registry, A, START, "learner", "better")
    end_canary(registry, report(end), "serve")
    assert (running_canary(registry), registry.state(A)) == (None, ENDS[end])
    assert last_canary(registry) == report(end).model_copy(update={"began": last_canary(registry).began})  # type: ignore[union-attr]
    assert registry.refs().champion == BASE
    with pytest.raises(LifecycleError, match="is not in a canary"):
        end_canary(registry, report(end), "serve")
    assert registry.audit.verify() == len(registry.audit.read())


def test_what_was_rolled_back_or_proved_nothing_cannot_serve_and_what_was_cancelled_can(registry: Registry) -> None:
    for end, may_serve in ((CanaryEnd.CANCELLED, True), (CanaryEnd.ROLLED_BACK, False)):
        start_canary(registry, A, START, "learner", "better")
        end_canary(registry, report(end), "serve")
        if may_serve:
            registry.check_may_serve(A)
        else:
            with pytest.raises(LifecycleError):
                registry.check_may_serve(A)


def test_a_promotion_whose_report_a_crash_kept_back_is_noticed(registry: Registry) -> None:
    assert unrecorded_promotion(registry) is None
    start_canary(registry, A, START, "learner", "better")
    assert unrecorded_promotion(registry) is None
    registry.promote(A, "serve", "proved")
    assert running_canary(registry) is None
    found = unrecorded_promotion(registry)
    assert found is not None
    assert found.adapter == A
    end_canary(registry, report(CanaryEnd.PROMOTED), "serve")
    assert unrecorded_promotion(registry) is None
    assert registry.state(A) is State.SERVING


def test_a_crash_between_the_refs_and_the_log_of_a_promotion_is_repaired(registry: Registry) -> None:
    start_canary(registry, A, START, "learner", "better")
    before = registry.audit.path.read_bytes()
    registry.promote(A, "serve", "proved")
    registry.audit.path.write_bytes(before)
    registry.reconcile("serve")
    assert (registry.state(A), running_canary(registry)) == (State.SERVING, None)
