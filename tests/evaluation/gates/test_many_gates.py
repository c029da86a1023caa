"""Many gates of many installations, as `benchmarks/gate_power.py` simulates them at full size."""

from functools import cache

import pytest

from benchmarks.gate_power import TRAINERS, Series, series

RUNS, CYCLES = 50, 40
TRAINER = {trainer.name: trainer for trainer in TRAINERS}


@cache
def simulated(supply: str, trainer: str) -> Series:
    return series(supply, TRAINER[trainer], RUNS, CYCLES)


@pytest.mark.parametrize(
    ("supply", "trainer"),
    [
        *(("fresh", name) for name in TRAINER),
        ("screened", "N(-1, 2)"),
        ("screened", "adversarial"),
        ("short", "-0.5"),
        ("short", "N(-1, 2)"),
        ("variants", "equal"),
    ],
)
def test_no_trainer_wears_an_installation_down(supply: str, trainer: str) -> None:
    found = simulated(supply, trainer)
    assert found.worse <= 0.05
    assert found.wrong <= 0.002


def test_candidates_that_are_better_by_five_points_are_proved_with_few_tasks() -> None:
    found = simulated("fresh", "1 in 10 is +5")
    assert found.power is not None
    assert found.power >= 0.8
    assert found.tasks <= 350


def test_a_screening_spends_few_tasks() -> None:
    found = simulated("screened", "1 in 10 is +5")
    assert found.power is not None
    assert found.power >= 0.5
    assert found.tasks <= 350


def test_without_fresh_tasks_a_trainer_that_knows_the_list_wins_and_so_a_person_is_asked() -> None:
    assert simulated("short", "adversarial").worse > 0.5
