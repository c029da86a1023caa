import numpy as np
import pytest

from evaluation.agreement import Agreement


def test_phi_is_the_correlation_of_the_successes() -> None:
    generator = np.random.default_rng(3)
    first = generator.random(500) < 0.4
    second = np.where(generator.random(500) < 0.2, ~first, first)
    agreement = Agreement.of(zip(first, second, strict=True))
    assert agreement.phi == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert agreement.discordant == int((first != second).sum())
    assert agreement.tasks == 500


def test_where_a_side_solves_all_or_none_there_is_no_phi_and_without_tasks_nothing() -> None:
    assert Agreement.of([(True, True), (True, False)]).phi is None
    empty = Agreement()
    assert (empty.phi, empty.discordance, empty.discordance_interval) == (None, None, None)


def test_counts_of_several_gates_add_up() -> None:
    one, other = Agreement.of([(True, False), (False, False)]), Agreement.of([(True, False), (False, True)])
    assert one + other == Agreement(both=0, first_only=2, second_only=1, neither=1)
    assert sum([one, other], Agreement()) == one + other
