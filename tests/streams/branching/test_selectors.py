import doctest
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.branching.rate_limit import Budget
from streams.branching.selectors import SELECTORS, curiosity, novelty, selector, uniform
from streams.branching.selectors.novelty import Novelty
from streams.branching.selectors.selector import Situation, allocate

WEIGHTS = st.lists(st.floats(min_value=0, max_value=1e6), max_size=30)
BUDGETS = st.integers(min_value=0, max_value=200)
MOSTS = st.integers(min_value=0, max_value=20)


@pytest.mark.parametrize("module", [selector, uniform, novelty, curiosity])
def test_the_examples_of_the_selectors_hold(module: object) -> None:
    tried = doctest.testmod(module)  # type: ignore[arg-type] # parametrised modules are objects to mypy
    assert tried.attempted > 0
    assert tried.failed == 0


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
def test_more_weight_never_gets_less(weights: list[float], budget: int, most: int) -> None:
    given_out = sorted(zip(weights, allocate(weights, budget, most), strict=True))
    for (light, few), (heavy, many) in pairwise(given_out):
        assert few <= many or light == heavy


@given(WEIGHTS, BUDGETS, MOSTS)
def test_more_budget_takes_no_branch_away(weights: list[float], budget: int, most: int) -> None:
    less, more = allocate(weights, budget, most), allocate(weights, budget + 1, most)
    assert all(before <= after for before, after in zip(less, more, strict=True))


def test_novelty_forgets_what_it_has_not_seen_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "_REMEMBERED", 2)
    selecting = Novelty()
    for fingerprint in ("old", "a", "b"):
        selecting.weigh([Situation(0, 1, fingerprint)])
    assert selecting.weigh([Situation(0, 2, "old"), Situation(1, 2, "b")]) == [1.0, 0.5]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(st.lists(st.integers(min_value=0, max_value=300), min_size=1, max_size=30))
async def test_no_more_than_the_budget_is_taken_however_it_is_taken(takings: list[int]) -> None:
    clock = Clock()
    budget = Budget(60, clock, clock.sleep)
    for taking in takings:
        await budget.take(taking)
    # What the full bucket held at the start comes on top.
    assert sum(takings) <= 60 + clock.now + 1e-6


async def test_an_unlimited_budget_never_waits() -> None:
    clock = Clock()
    await Budget(None, clock, clock.sleep).take(10**9)
    assert clock.now == 0
