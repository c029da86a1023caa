"""The slope over several lives: that of the process, whatever its warm-up and its peaks are."""

import random

import pytest

from tests.soak.growth import growth
from tests.soak.report import Flatness

HOUR = 3600.0


def life(begin: float, seconds: int, per_hour: float, noise: float = 0.0) -> list[tuple[float, float]]:
    chance = random.Random(begin)
    return [
        (begin + second, 100 + per_hour * second / HOUR + chance.gauss(0, noise)) for second in range(0, seconds, 5)
    ]


def test_what_grows_in_every_life_grows_although_it_dies_again_and_again() -> None:
    found = growth([life(begin, 600, per_hour=60, noise=0.5) for begin in range(0, 6000, 600)], 60)
    assert found is not None
    assert found.per_hour == pytest.approx(60, abs=3)
    assert found.total() == pytest.approx(9, abs=0.5)


def test_the_warm_up_and_peaks_count_for_nothing() -> None:
    warm = [(float(second), min(100.0, second * 2)) for second in range(0, 600, 5)]
    warm[70::5] = [(at, 500.0) for at, _ in warm[70::5]]
    found = growth([warm], 60)
    assert found is not None
    assert found.per_hour == 0


def test_too_few_samples_say_nothing() -> None:
    assert growth([], 0) is None
    assert growth([life(0, 120, 10)], 110) is None
    assert Flatness.of("record", "memory", None, 0.1, 1).flat is None


def test_growth_is_judged_by_the_median_and_by_no_less_than_the_least() -> None:
    found = growth([life(0, 3600, per_hour=20)], 60)
    assert Flatness.of("record", "memory", found, share=0.15, least=1).flat is False
    assert Flatness.of("record", "memory", found, share=0.15, least=30).flat is True
    assert Flatness.of("record", "memory", found, share=0.3, least=1).flat is True
    assert Flatness.of("record", "memory", growth([life(0, 3600, -50)], 60), 0.1, 1).flat is True
