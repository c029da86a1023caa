"""The pauses between resumptions of a trial, over restarts and over a clock that is set back."""

from pathlib import Path

import pytest

from daemon.learning.resumptions import Resumptions, read_resumptions
from streams.errors import GateError


class Clocks:
    """A monotonic clock of this process and the time of day, which can be set."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 50.0, 1_000_000.0

    def process(self) -> Resumptions:
        """The resumptions of a learner that starts now."""
        return Resumptions(5.0, lambda: self.monotonic, lambda: self.wall)

    def pass_s(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds


def test_the_first_is_not_waited_for_and_then_the_pause_doubles(tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "trial" / "resumptions"
    process = clocks.process()
    assert process.pause_s(path) == 0
    assert [(process.count(path), process.pause_s(path)) for _ in range(3)] == [(1, 10), (2, 20), (3, 40)]
    clocks.pass_s(39)
    assert process.pause_s(path) == 1
    clocks.pass_s(1)
    assert process.pause_s(path) == 0


def test_a_learner_that_is_started_again_waits_for_what_is_left(tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "resumptions"
    for _ in range(3):
        clocks.process().count(path)
    clocks.pass_s(15)
    assert clocks.process().pause_s(path) == 25
    clocks.pass_s(25)
    assert clocks.process().pause_s(path) == 0


def test_a_learner_that_crashes_at_once_needs_as_long_as_one_that_lives(tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "resumptions"
    began, attempts = clocks.wall, 0
    while attempts < 8:
        process = clocks.process()
        if process.pause_s(path) == 0:
            attempts = process.count(path)
        clocks.pass_s(1)
    assert clocks.wall - began >= 5 * sum(2**n for n in range(1, 8))


@pytest.mark.parametrize("set_to", [0.0, 999_999.0, 1_000_000.0 - 1e9])
def test_a_clock_that_is_set_back_costs_one_pause_at_most(set_to: float, tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "resumptions"
    clocks.process().count(path)
    clocks.wall = set_to
    process = clocks.process()
    assert process.pause_s(path) == 10
    clocks.pass_s(10)
    assert process.pause_s(path) == 0
    assert process.count(path) == 2


def test_a_clock_that_is_set_while_a_learner_waits_changes_nothing(tmp_path: Path) -> None:
    clocks, path = Clocks(), tmp_path / "resumptions"
    process = clocks.process()
    process.count(path)
    clocks.wall += 1e6
    assert process.pause_s(path) == 10
    clocks.wall -= 1e9
    assert process.pause_s(path) == 10


def test_another_trial_is_waited_for_by_itself(tmp_path: Path) -> None:
    clocks, process = Clocks(), Clocks().process()
    process.count(tmp_path / "one")
    assert process.pause_s(tmp_path / "other") == 0
    assert clocks.process().pause_s(tmp_path / "one") == 10


def test_a_count_without_a_time_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "resumptions").write_text("3\n")
    assert read_resumptions(tmp_path / "resumptions") == (3, None)
    assert Clocks().process().pause_s(tmp_path / "resumptions") == 0


@pytest.mark.parametrize("damage", ["", "x", "3 x", "3 1 2", "3 nan", "-1 5", "3 inf"])
def test_a_damaged_count_is_said_to_be(damage: str, tmp_path: Path) -> None:
    (tmp_path / "resumptions").write_text(damage)
    with pytest.raises(GateError, match="damaged: remove it"):
        Clocks().process().pause_s(tmp_path / "resumptions")
