from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.branching.selectors import SELECTORS, novelty
from streams.branching.selectors.novelty import Novelty
from streams.branching.selectors.selector import Situation, allocate

WEIGHTS = st.lists(st.floats(min_value=0, max_value=1e6), max_size=30)
BUDGETS = st.integers(min_value=0, max_value=200)
MOSTS = st.integers(min_value=0, max_value=20)


def test_every_selector_goes_by_its_own_name() -> None:
    assert sorted(SELECTORS) == ["curiosity", "novelty", "uniform"]
    for name, kind in SELECTORS.items():
        assert kind.name == name
        assert kind().weigh([]) == []


@given(WEIGHTS, BUDGETS, MOSTS)
def test_a_budget_is_spent_whole_or_until_no_state_takes_more(weights: list[float], budget: int, most: int) -> None:
    given_out = allocate(weights, budget, most)
    room = most * sum(weight > 0 for weight in weights)
    assert sum(given_out) == min(budget, room)
    assert all(0 <= branches <= most for branches in given_out)
    assert all(weight > 0 for weight, branches in zip(weights, given_out, strict=True) if branches)


@given(WEIGHTS, BUDGETS, MOSTS)
def test_a_higher_weight_never_gets_fewer_branches(weights: list[float], budget: int, most: int) -> None:
    given_out = sorted(zip(weights, allocate(weights, budget, most), strict=True))
    for (light, few), (heavy, many) in pairwise(given_out):
        assert few <= many or light == heavy


@given(WEIGHTS, BUDGETS, MOSTS)
def test_a_larger_budget_takes_no_branch_away(weights: list[float], budget: int, most: int) -> None:
    less, more = allocate(weights, budget, most), allocate(weights, budget + 1, most)
    assert all(before <= after for before, after in zip(less, more, strict=True))


def test_novelty_forgets_the_states_seen_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "_REMEMBERED", 2)
    selecting = Novelty()
    for fingerprint in ("old", "a", "b"):
        selecting.weigh([Situation(0, 1, fingerprint)])
    assert selecting.weigh([Situation(0, 2, "old"), Situation(1, 2, "b")]) == [1.0, 0.5]
