"""A small part of `benchmarks/gate_cheats.py`: simulated cheats are held up, and honest candidates are not."""

import random

import pytest

from benchmarks.gate_cheats import FORGERIES, cheated, held, trials
from benchmarks.simulated_play import Simulated
from evaluation.sentinels.facts import Facts

# In a text game an answer holds no number that somebody must have looked up.
FOUND_BY_HALF = {"answers of leaked tasks, padded"}


@pytest.fixture(scope="module")
def made() -> list[tuple[list[Simulated], Facts]]:
    return list(trials(6, random.Random("small")))


def test_honest_candidates_are_not_held_up(made: list[tuple[list[Simulated], Facts]]) -> None:
    assert [held(facts) for _, facts in made] == [(False, "Nothing about its play is odd.")] * len(made)


@pytest.mark.parametrize("name", sorted(FORGERIES.keys() - FOUND_BY_HALF))
def test_a_third_of_forged_wins_is_held_up(name: str, made: list[tuple[list[Simulated], Facts]]) -> None:
    chance = random.Random(name)
    for simulated, facts in made[:2]:
        assert held(cheated(name, 0.34, simulated, facts, chance))[0]
