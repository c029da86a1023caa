"""Candidates that wait for a person: every way that this ends has one clear result."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.registry.approval import Approval, state_after
from daemon.registry.audit import AuditEntry
from daemon.registry.canaries import end_canary, start_canary
from daemon.registry.lifecycle import State
from daemon.registry.refs import Refs
from daemon.registry.registry import Mark, Registry
from daemon.registry.schemas import BASE, CanaryEnd, CanaryReport, CanaryStart
from evaluation.gates.verdict import Verdict
from ratchet_client.errors import RatchetError
from streams.errors import LifecycleError, PromotionError

A, B, C = "a" * 64, "b" * 64, "c" * 64
DAY_S = 86_400.0


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def judged(registry: Registry, adapter: str, state: State, against: str | None = BASE) -> AuditEntry:
    for earlier in (State.TRAINED, State.EVALUATING):
        registry.enter(adapter, earlier, "learner", "a cycle")
    return registry.enter(adapter, state, "learner", "It repeats one action.", against)


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


@pytest.mark.parametrize(
    ("approval", "after_promote", "after_hold"),
    [
        (Approval.ALWAYS, State.HELD, State.HELD),
        (Approval.ON_HOLD, State.APPROVED, State.HELD),
        (Approval.NEVER, State.APPROVED, State.INCONCLUSIVE),
    ],
)
def test_the_setting_decides_which_candidates_wait_and_none_is_promoted_by_it(
    approval: Approval, after_promote: State, after_hold: State
) -> None:
    states = {verdict: state_after(verdict, "Because.", approval)[0] for verdict in Verdict}
    assert states == {
        Verdict.PROMOTE: after_promote,
        Verdict.HOLD: after_hold,
        Verdict.REJECT: State.REJECTED,
        Verdict.INCONCLUSIVE: State.INCONCLUSIVE,
    }
    for verdict in Verdict:
        assert state_after(verdict, "Because.", approval)[1].startswith("Because.")


def test_an_approved_candidate_serves_and_the_log_says_who_approved_it_and_why(registry: Registry) -> None:
    judged(registry, A, State.HELD)
    assert registry.approve(A, "anna", "I read its episodes") == Refs(champion=A, previous=BASE)
    moves = [(entry.state, entry.actor, entry.reason) for entry in registry.audit.read()[-2:]]
    assert moves == [(state, "anna", "I read its episodes") for state in (State.APPROVED, State.SERVING)]
    assert registry.held(DAY_S) == ()
    assert registry.audit.verify() == 5


def test_a_rejected_candidate_never_serves(registry: Registry) -> None:
    judged(registry, A, State.HELD)
    registry.reject(A, "anna", "it pads its answers")
    assert registry.state(A) is State.REJECTED
    with pytest.raises(LifecycleError, match=r"not held but rejected, by anna at .*it pads its answers"):
        registry.approve(A, "ben", "let it")
    assert registry.refs() == Refs()


def test_what_is_held_serves_by_approval_only(registry: Registry) -> None:
    judged(registry, A, State.HELD)
    for attempt in (registry.promote, registry.roll_back):
        with pytest.raises(LifecycleError, match="is held and cannot become serving"):
            attempt(A, "anna", "quickly")
    with pytest.raises(LifecycleError, match="is held and cannot become serving"):
        registry.check_may_serve(A)
    assert (registry.refs(), registry.state(A)) == (Refs(), State.HELD)


@pytest.mark.parametrize("state", [State.REJECTED, State.INCONCLUSIVE, State.QUARANTINED])
@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_decision_about_what_does_not_wait_is_refused(decision: str, state: State, registry: Registry) -> None:
    judged(registry, A, state)
    with pytest.raises(LifecycleError, match=f"is not held but {state.value}, by learner at .*It repeats"):
        getattr(registry, decision)(A, "anna", "why not")
    with pytest.raises(LifecycleError, match="is not known"):
        getattr(registry, decision)(B, "anna", "why not")


def test_approving_twice_and_rejecting_what_serves_are_refused(registry: Registry) -> None:
    judged(registry, A, State.HELD)
    registry.approve(A, "anna", "fine")
    for decision in (registry.approve, registry.reject):
        with pytest.raises(LifecycleError, match=r"not held but serving, by anna at .*fine"):
            decision(A, "ben", "fine too")
    assert registry.refs() == Refs(champion=A)


def test_a_candidate_that_was_overtaken_cannot_take_the_place_of_the_newer_champion(registry: Registry) -> None:
    for adapter in (A, B):
        judged(registry, adapter, State.HELD)
    registry.approve(A, "anna", "fine")
    (waits,) = registry.held(DAY_S)
    assert waits.adapter == B
    assert waits.obstacle is not None
    assert "judged against the base model, and aaaaaaaaaaaa serves now" in waits.obstacle
    with pytest.raises(PromotionError, match="judged against the base model, and aaaaaaaaaaaa serves now"):
        registry.approve(B, "anna", "fine")
    assert (registry.refs().champion, registry.state(B)) == (A, State.HELD)
    # It still can be rejected; and approved, once that champion serves again which it was judged against.
    registry.roll_back(BASE, "anna", "complaints")
    assert registry.held(DAY_S)[0].obstacle is None
    assert registry.approve(B, "anna", "fine").champion == B


def test_a_candidate_that_was_judged_against_the_present_champion_may_be_approved(registry: Registry) -> None:
    judged(registry, A, State.HELD)
    registry.approve(A, "anna", "fine")
    judged(registry, B, State.HELD, against=A)
    assert registry.approve(B, "anna", "fine") == Refs(champion=B, previous=A)


def test_a_held_candidate_was_judged_against_what_served_then_if_nothing_else_is_said(registry: Registry) -> None:
    judged(registry, A, State.HELD, against=None)
    assert registry.held(DAY_S)[0].against == BASE


def test_an_approved_candidate_that_could_not_serve_is_approved_again_unless_it_was_overtaken(
    registry: Registry,
) -> None:
    for adapter in (A, B, C):
        judged(registry, adapter, State.APPROVED)
    assert registry.approve(A, "anna", "the disk has room again").champion == A
    for attempt in (registry.approve, registry.promote):
        with pytest.raises(PromotionError, match="serves now"):
            attempt(B, "anna", "the disk has room again")
    with pytest.raises(PromotionError, match="serves now"):
        registry.check_may_serve(B)
    assert (registry.refs().champion, registry.state(B)) == (A, State.APPROVED)
    with pytest.raises(LifecycleError, match="not held but approved"):
        registry.reject(C, "anna", "no")


def test_a_candidate_that_is_to_be_retrained_cannot_be_approved(registry: Registry) -> None:
    judged(registry, A, State.HELD)
    registry.mark_for_retraining([Mark(A, "event-1", "it saw data of a principal that revoked consent")], "learner")
    with pytest.raises(PromotionError, match="it saw data of a principal that revoked consent; reject it"):
        registry.approve(A, "anna", "fine")
    assert "revoked consent" in (registry.held(DAY_S)[0].obstacle or "")
    registry.reject(A, "anna", "it saw what it may not")


def test_what_nobody_decides_about_in_time_lapses_and_cannot_be_approved_any_more(registry: Registry) -> None:
    judged(registry, A, State.HELD)
    assert registry.lapse(DAY_S, "serve", in_days(0.9)) == []
    (lapsed,) = registry.lapse(DAY_S, "serve", in_days(1.1))
    assert (lapsed.subject, lapsed.actor, lapsed.state) == (A, "serve", State.INCONCLUSIVE)
    assert "It lapsed" in lapsed.reason
    assert "It repeats one action." in lapsed.reason
    assert registry.lapse(DAY_S, "serve", in_days(9)) == []
    for decision in (registry.approve, registry.reject):
        with pytest.raises(LifecycleError, match=r"not held but inconclusive, by serve at .*It lapsed"):
            decision(A, "anna", "too late")


def test_the_longest_waiting_comes_first_and_says_until_when(registry: Registry) -> None:
    entries = {adapter: judged(registry, adapter, State.HELD) for adapter in (B, A)}
    waiting = registry.held(2 * DAY_S)
    assert [one.adapter for one in waiting] == [B, A]
    for one in waiting:
        assert (one.since, one.reason) == (entries[one.adapter].at, "It repeats one action.")
        assert one.lapses - one.since == timedelta(days=2)


@pytest.mark.parametrize("seed", range(5))
def test_people_who_decide_at_once_get_one_result(seed: int, registry: Registry) -> None:
    """Two approve, two reject, and it lapses: one of them is first, the others are told so."""
    judged(registry, A, State.HELD)

    def attempt(work: Callable[[Registry], object]) -> str:
        try:
            return "nothing" if work(Registry(registry.home)) == [] else "done"
        except RatchetError as error:
            return str(error)

    decisions: list[Callable[[Registry], object]] = [
        lambda one: one.approve(A, "anna", "fine"),
        lambda one: one.reject(A, "ben", "no"),
        lambda one: one.approve(A, "cleo", "fine"),
        lambda one: one.reject(A, "dora", "no"),
        lambda one: one.lapse(DAY_S, "serve", in_days(2)),
    ]
    with ThreadPoolExecutor(len(decisions)) as people:
        results = list(people.map(attempt, decisions[seed:] + decisions[:seed]))
    assert results.count("done") == 1
    assert all(result in ("done", "nothing") or "not held but" in result for result in results)
    assert registry.state(A) in (State.SERVING, State.REJECTED, State.INCONCLUSIVE)
    assert (registry.refs().champion == A) is (registry.state(A) is State.SERVING)
    assert registry.audit.verify() == len(registry.audit.read())


def test_a_crash_between_the_approval_and_the_refs_leaves_it_to_be_approved_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(registry, A, State.HELD)
    real = Registry._write

    def full(self: Registry, refs: Refs) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Registry, "_write", full)
    with pytest.raises(OSError, match="No space"):
        registry.approve(A, "anna", "fine")
    assert (registry.refs(), registry.state(A)) == (Refs(), State.APPROVED)
    monkeypatch.setattr(Registry, "_write", real)
    assert registry.approve(A, "ben", "there is room").champion == A
    approved = [entry.actor for entry in registry.audit.read() if entry.state is State.APPROVED]
    assert approved == ["anna"]


def test_a_canary_that_was_cancelled_leaves_its_candidate_judged_against_what_it_was(registry: Registry) -> None:
    for adapter in (A, B):
        judged(registry, adapter, State.HELD)
    registry.accept(A, "anna", "fine")
    start_canary(registry, A, CanaryStart(champion=BASE, share=0.1, salt="salt"), "anna", "fine")
    registry.approve(B, "ben", "fine")
    began = registry.audit.read()[-1].at
    ended = CanaryReport(
        adapter=A, champion=BASE, share=0.1, began=began, ended=CanaryEnd.CANCELLED, reason="the champion has changed"
    )
    end_canary(registry, ended, "serve")
    assert registry.state(A) is State.APPROVED
    for attempt in (registry.approve, registry.promote):
        with pytest.raises(PromotionError, match="judged against the base model, and bbbbbbbbbbbb serves now"):
            attempt(A, "anna", "fine")
