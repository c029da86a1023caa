"""The account of alpha in the audit log, over crashes, resumed trials and several processes."""

from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.registry.audit import Action
from daemon.registry.ledger import history, reserve
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, Reservation
from evaluation.settings import GateSettings
from evaluation.spending import SpentAlpha, allowed, lord

LORD = GateSettings()


def candidate(number: int) -> str:
    return f"{number:064x}"


def begun(home: Path, number: int, champion: str = BASE, gate: GateSettings = LORD) -> Reservation:
    """What the learner does with a candidate before it plays."""
    registry = Registry(home)
    if registry.state(candidate(number)) is None:
        registry.enter(candidate(number), State.TRAINED, "learner", "trained")
    registry.enter(candidate(number), State.EVALUATING, "learner", "to be played")
    return reserve(registry.audit, candidate(number), champion, "learner", gate)


def ended(home: Path, number: int, state: State) -> None:
    Registry(home).enter(candidate(number), state, "learner", "so it ended")


def alphas(home: Path) -> list[float]:
    return [entry.reserved.alpha for entry in Registry(home).audit.read() if entry.reserved is not None]


def test_alpha_is_in_the_log_before_anything_is_played(tmp_path: Path) -> None:
    reserved = begun(tmp_path, 1)
    entry = Registry(tmp_path).audit.read()[-1]
    assert (entry.action, entry.subject, entry.reserved) == (Action.RESERVED, candidate(1), reserved)
    assert (reserved.gate, reserved.champion, reserved.alpha) == (1, BASE, pytest.approx(0.001338, abs=1e-6))
    assert "gate 1" in entry.reason
    assert Registry(tmp_path).audit.verify() == 3


def test_a_resumed_trial_has_its_reservation_again(tmp_path: Path) -> None:
    first = begun(tmp_path, 1)
    assert begun(tmp_path, 1) == first
    assert alphas(tmp_path) == [first.alpha]


def test_a_trial_against_another_champion_is_another_gate(tmp_path: Path) -> None:
    first, second = begun(tmp_path, 1), begun(tmp_path, 1, champion=candidate(7))
    assert (first.gate, second.gate) == (1, 2)
    assert second.alpha < first.alpha
    assert begun(tmp_path, 1, champion=BASE).gate == 3


def test_a_crash_gives_nothing_back(tmp_path: Path) -> None:
    begun(tmp_path, 1)
    second = begun(tmp_path, 2)
    assert second.alpha == lord([SpentAlpha(alphas(tmp_path)[0], False)])


def test_a_promotion_earns_alpha_and_an_approval_does_so_from_then_on(tmp_path: Path) -> None:
    begun(tmp_path, 1)
    before = begun(tmp_path, 2)
    ended(tmp_path, 1, State.APPROVED)
    after = begun(tmp_path, 3)
    assert [gate.is_promoted for gate in history(Registry(tmp_path).audit.read())] == [True, False, False]
    assert after.alpha > before.alpha


def test_a_candidate_that_was_rolled_back_spends_again(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    first = begun(tmp_path, 1)
    ended(tmp_path, 1, State.APPROVED)
    registry.promote(candidate(1), "serve", "it won")
    registry.roll_back(BASE, "anna", "it is odd")
    again = begun(tmp_path, 1)
    assert (first.gate, again.gate) == (1, 2)
    assert [gate.is_promoted for gate in history(registry.audit.read())] == [True, False]


def test_a_constant_alpha_is_recorded_and_outside_the_procedure(tmp_path: Path) -> None:
    constant = GateSettings(spending="constant", alpha=0.3)
    assert [begun(tmp_path, number, gate=constant).alpha for number in (1, 2)] == [0.3, 0.3]
    assert begun(tmp_path, 3).alpha == lord([])


STEPS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["begin", "crash", "against another", "promote", "reject", "end"]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_no_interleaving_of_crashes_and_resumed_trials_hands_out_more_than_the_procedure(
    steps: list[tuple[int, str]],
) -> None:
    with TemporaryDirectory() as folder:
        home, states = Path(folder), {"promote": State.APPROVED, "reject": State.REJECTED, "end": State.INCONCLUSIVE}
        for number, step in steps:
            registry = Registry(home)
            state = registry.state(candidate(number))
            if step in states and state is State.EVALUATING:
                ended(home, number, states[step])
            elif step not in states and state in (None, State.TRAINED, State.EVALUATING):
                # A crash is nothing but the next step of another process, which knows the log alone.
                begun(home, number, champion=candidate(9) if step == "against another" else BASE)
        entries = Registry(home).audit.read()
        gates = history(entries)
        assert sum(gate.alpha for gate in gates) <= allowed(sum(gate.is_promoted for gate in gates)) + 1e-12
        for place, entry in enumerate(entries):
            if entry.reserved is not None:
                assert entry.reserved.alpha == lord(history(entries[:place]))
        # A candidate has one reservation for each champion that it was put against in a row.
        for number in range(1, 5):
            own = [entry.reserved for entry in entries if entry.reserved and entry.subject == candidate(number)]
            assert all(one.champion != other.champion for one, other in pairwise(own))


def test_processes_that_reserve_at_once_get_alphas_of_different_gates(tmp_path: Path) -> None:
    context = get_context("fork")
    learners = [context.Process(target=begun, args=(tmp_path, number)) for number in range(1, 7)]
    for learner in learners:
        learner.start()
    for learner in learners:
        learner.join(timeout=60)
        assert learner.exitcode == 0
    entries = [entry.reserved for entry in Registry(tmp_path).audit.read() if entry.reserved is not None]
    assert [reserved.gate for reserved in entries] == [1, 2, 3, 4, 5, 6]
    assert [reserved.alpha for reserved in entries] == sorted(set(alphas(tmp_path)), reverse=True)
