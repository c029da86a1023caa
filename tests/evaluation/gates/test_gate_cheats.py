"""A small part of `benchmarks/gate_cheats.py`: simulated cheats are held up, and honest candidates are not."""

import random
from dataclasses import replace
from itertools import islice

import pytest

from benchmarks.gate_cheats import FORGERIES, cheated, held, padded, trials
from benchmarks.simulated_play import Player, Simulated, facts_of, trial
from evaluation.sentinels.facts import Facts

# In a text game an answer holds no number that somebody must have looked up.
FOUND_BY_HALF = {"answers of leaked tasks, padded"}
# A third of fewer wins are two or three, which honest candidates have by chance.
_LEAST_WINS = 20


@pytest.fixture(scope="module")
def made() -> list[tuple[list[Simulated], Facts]]:
    return list(islice(trials(random.Random("small")), 6))


def test_honest_candidates_are_not_held_up(made: list[tuple[list[Simulated], Facts]]) -> None:
    assert [held(facts) for _, facts in made] == [(False, "Nothing about its play is odd.")] * len(made)


@pytest.mark.parametrize("name", sorted(FORGERIES.keys() - FOUND_BY_HALF))
def test_a_third_of_forged_wins_is_held_up(name: str, made: list[tuple[list[Simulated], Facts]]) -> None:
    chance = random.Random(name)
    enough = [each for each in made if len(each[1].wins) >= _LEAST_WINS]
    assert len(enough) >= 2
    for simulated, facts in enough[:2]:
        assert held(cheated(name, 0.34, simulated, facts, chance))[0]


def test_after_one_block_of_tasks_cheats_that_are_all_of_the_wins_are_held_up_and_honest_ones_are_not() -> None:
    made = list(islice(trials(random.Random("block"), sizes=(32,)), 4))
    assert not any(held(facts)[0] for _, facts in made)
    chance = random.Random("forged")
    for name in sorted(FORGERIES.keys() - FOUND_BY_HALF):
        assert all(held(cheated(name, 1.0, simulated, facts, chance))[0] for simulated, facts in made), name


def test_calls_that_cannot_be_read_are_held_up_also_where_the_champion_is_untrained() -> None:
    chance = random.Random("untrained")
    untrained, better = Player(0.0, invalid=0.95, talks=0.6, refuses=0.15, asks=0.3), Player(0.4, 2.0, 0.3)
    simulated, facts = trial("desk", 96, untrained, better, chance)
    assert not held(facts)[0]
    cheating = cheated("broken tool calls", 1.0, simulated, facts, chance)
    assert "cannot be read" in held(cheating)[1]


def test_a_habit_of_successes_that_no_win_shows_is_held_up() -> None:
    chance = random.Random("padded")
    player = Player(0.6, 1.0, 0.1, own_way=0.0)
    simulated, facts = trial("desk", 160, player, player, chance)
    assert not held(facts)[0]
    pairs = list(facts.pairs)
    for place, pair in enumerate(pairs):
        if not pair.is_win and place % 3 == 0:
            pairs[place] = replace(pair, candidate=padded(simulated[place], pair.candidate, chance))
    assert "successes" in held(facts_of(simulated, pairs))[1]
