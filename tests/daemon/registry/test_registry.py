import os
from pathlib import Path

import pytest

from daemon.registry.audit import Action, AuditEvent
from daemon.registry.lifecycle import TRANSITIONS, State
from daemon.registry.refs import Refs
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from streams.errors import LifecycleError, PromotionError, RegistryError

A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def approve(registry: Registry, *adapters: str) -> None:
    for adapter in adapters:
        for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
            registry.enter(adapter, state, "learner", "the gate said so")


def test_at_first_the_base_model_is_champion_previous_and_anchor(registry: Registry) -> None:
    assert registry.refs() == Refs(champion=BASE, previous=BASE, anchor=BASE)
    assert registry.state(A) is None


def test_an_approved_adapter_becomes_champion_and_the_old_one_is_retired(registry: Registry) -> None:
    approve(registry, A, B)
    assert registry.promote(A, "anna", "p = 0.01") == Refs(champion=A, previous=BASE)
    assert registry.promote(B, "anna", "p = 0.02") == Refs(champion=B, previous=A)
    assert Registry(registry.home).refs() == Refs(champion=B, previous=A)
    assert (registry.state(A), registry.state(B)) == (State.RETIRED, State.SERVING)
    assert registry.audit.verify() == len(registry.audit.read())


@pytest.mark.parametrize("verdict", [State.REJECTED, State.INCONCLUSIVE, State.QUARANTINED])
def test_an_adapter_that_no_gate_approved_can_never_serve(registry: Registry, verdict: State) -> None:
    registry.enter(A, State.TRAINED, "learner", "trained")
    registry.enter(A, State.EVALUATING, "learner", "gate")
    registry.enter(A, verdict, "learner", "verdict")
    with pytest.raises(LifecycleError, match=f"is {verdict.value} and cannot become serving"):
        registry.check_may_serve(A)
    with pytest.raises(LifecycleError):
        registry.promote(A, "anna", "I like it")
    assert registry.refs().champion == BASE
    with pytest.raises(LifecycleError):
        registry.enter(A, State.APPROVED, "anna", "I like it")


def test_no_adapter_enters_the_state_serving_without_a_promotion(registry: Registry) -> None:
    approve(registry, A)
    with pytest.raises(RegistryError, match="by promotion or rollback only"):
        registry.enter(A, State.SERVING, "anna", "quickly")


def test_the_champion_cannot_be_promoted_again(registry: Registry) -> None:
    with pytest.raises(PromotionError, match="already serves"):
        registry.check_may_serve(BASE)


def test_a_rollback_returns_to_the_previous_and_the_next_one_goes_further_back(registry: Registry) -> None:
    approve(registry, A, B)
    registry.promote(A, "anna", "better")
    registry.promote(B, "anna", "better")
    assert registry.roll_back(A, "anna", "complaints") == Refs(champion=A, previous=BASE)
    assert (registry.state(A), registry.state(B)) == (State.SERVING, State.ROLLED_BACK)
    assert registry.roll_back(BASE, "anna", "more complaints") == Refs()
    assert registry.state(A) is State.ROLLED_BACK


def test_a_rollback_never_points_back_to_what_was_rolled_back(registry: Registry) -> None:
    approve(registry, A, B, C)
    for adapter in (A, B, C):
        registry.promote(adapter, "anna", "better")
    registry.roll_back(A, "anna", "far back")
    registry.roll_back(BASE, "anna", "all the way")
    # A was rolled back, so what B returns to is the base model.
    assert registry.roll_back(B, "anna", "forward again") == Refs(champion=B, previous=BASE)


def test_an_adapter_that_was_rolled_back_must_win_a_gate_again(registry: Registry) -> None:
    approve(registry, A)
    registry.promote(A, "anna", "better")
    registry.roll_back(BASE, "anna", "complaints")
    with pytest.raises(LifecycleError, match="allowed: evaluating, quarantined"):
        registry.check_may_serve(A)


def test_served_names_never_repeat_even_for_one_adapter_and_over_restarts(registry: Registry) -> None:
    names = [Registry(registry.home).name(A, "serve", "to serve") for _ in range(5)]
    assert len(set(names)) == 5
    assert all(name.startswith("ratchet-") and name.endswith("-" + "a" * 12) for name in names)
    assert registry.names_given_by("serve") == set(names)
    assert registry.names_given_by("learner") == set()


def test_a_promotion_whose_refs_cannot_be_written_changes_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    approve(registry, A)
    entries = registry.audit.read()

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        registry.promote(A, "anna", "better")
    assert registry.refs() == Refs()
    assert registry.audit.read() == entries


def test_a_promotion_that_cannot_be_recorded_is_undone(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    approve(registry, A, B)
    registry.promote(A, "anna", "better")
    entries = registry.audit.read()
    real, calls = os.fsync, []

    def failing_on_the_log(descriptor: int) -> None:
        calls.append(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("audit.jsonl"):
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing_on_the_log)
    with pytest.raises(OSError, match="Input/output"):
        registry.promote(B, "anna", "better")
    monkeypatch.undo()
    assert registry.refs() == Refs(champion=A, previous=BASE)
    assert registry.audit.read() == entries


def test_after_a_crash_between_refs_and_log_the_log_is_repaired_from_the_refs(registry: Registry) -> None:
    approve(registry, A, B)
    registry.promote(A, "anna", "better")
    before = registry.audit.path.read_bytes()
    registry.promote(B, "anna", "better")
    registry.audit.path.write_bytes(before)  # what a crash right after the rename of the refs leaves
    registry.reconcile("serve")
    assert (registry.state(A), registry.state(B)) == (State.RETIRED, State.SERVING)
    assert {entry.action for entry in registry.audit.read()[-2:]} == {Action.RECONCILED}
    count = registry.audit.verify()
    registry.reconcile("serve")
    assert registry.audit.verify() == count


def test_damaged_refs_are_an_error_and_not_the_base_model(registry: Registry) -> None:
    (registry.home / "refs.json").write_text('{"champion": "a')
    with pytest.raises(RegistryError, match="damaged"):
        registry.refs()


def test_every_state_can_be_reached_and_only_what_served_or_is_approved_may_serve() -> None:
    reachable = {state for targets in TRANSITIONS.values() for state in targets}
    assert reachable == set(State)
    assert {state for state, targets in TRANSITIONS.items() if State.SERVING in targets} == {
        State.APPROVED,
        State.CANARY,
        State.RETIRED,
    }


def test_an_entry_says_who_what_and_why(registry: Registry) -> None:
    approve(registry, A)
    registry.promote(A, "anna", "p = 0.01")
    entry = registry.audit.read()[-1]
    assert AuditEvent.model_validate(entry.model_dump(exclude={"sequence", "at", "previous", "hash"})) == AuditEvent(
        actor="anna", action=Action.PROMOTED, subject=A, reason="p = 0.01", state=State.SERVING, replaced=BASE
    )


def test_the_first_champion_that_is_to_be_replaced_becomes_the_anchor_and_stays_it(registry: Registry) -> None:
    assert registry.anchor_first_champion("learner").anchor == BASE
    approve(registry, A, B)
    registry.promote(A, "anna", "better")
    assert registry.anchor_first_champion("learner").anchor == A
    registry.promote(B, "anna", "better")
    assert registry.anchor_first_champion("learner") == Refs(champion=B, previous=A, anchor=A)
    entries = [entry for entry in registry.audit.read() if entry.action is Action.ANCHORED]
    assert [(entry.subject, entry.actor) for entry in entries] == [(A, "learner")]
    assert registry.audit.verify()


def test_an_operator_sets_the_anchor_and_the_base_stays_it_if_he_said_so(registry: Registry) -> None:
    approve(registry, A, B)
    registry.promote(A, "anna", "better")
    registry.promote(B, "anna", "better")
    assert registry.set_anchor(B, "anna", "the release").anchor == B
    assert registry.set_anchor(BASE, "anna", "hold it against the base").anchor == BASE
    assert registry.anchor_first_champion("learner").anchor == BASE
    assert registry.refs().champion == B


@pytest.mark.parametrize("state", [None, State.APPROVED, State.ROLLED_BACK])
def test_what_has_not_served_or_was_taken_back_cannot_be_the_anchor(registry: Registry, state: State | None) -> None:
    if state is not None:
        approve(registry, A)
    if state is State.ROLLED_BACK:
        registry.promote(A, "anna", "better")
        registry.roll_back(BASE, "anna", "complaints")
    with pytest.raises(LifecycleError, match=f"is {state.value if state else 'not known'} and cannot be the anchor"):
        registry.set_anchor(A, "anna", "I like it")
    assert registry.refs().anchor == BASE


def test_an_anchor_that_is_rolled_back_is_none_any_more(registry: Registry) -> None:
    approve(registry, A, B)
    registry.promote(A, "anna", "better")
    registry.anchor_first_champion("learner")
    assert registry.roll_back(BASE, "anna", "complaints").anchor == BASE
    registry.promote(B, "anna", "better")
    assert registry.anchor_first_champion("learner").anchor == B
