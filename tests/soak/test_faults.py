"""What is drawn: by the seed alone, every kind for every target, within its times."""

from itertools import islice

import pytest

from tests.soak.faults import KILLED, STOPPED, Kind, drawn

ROUND = len(KILLED) + len(STOPPED) + 5


def test_the_same_seed_draws_the_same_faults_and_another_draws_others() -> None:
    first, again, other = (tuple(islice(drawn(seed, list(Kind)), 2 * ROUND)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_each_round_has_every_kind_once_for_every_target() -> None:
    faults = tuple(islice(drawn(3, list(Kind)), 2 * ROUND))
    rounds = [sorted(fault.name for fault in faults[begin : begin + ROUND]) for begin in (0, ROUND)]
    assert rounds[0] == rounds[1]
    assert len(set(rounds[0])) == ROUND


def test_what_is_not_possible_is_not_drawn() -> None:
    faults = tuple(islice(drawn(3, [Kind.KILL, Kind.CLOCK]), 50))
    assert {fault.kind for fault in faults} == {Kind.KILL, Kind.CLOCK}
    assert {fault.target for fault in islice(drawn(3, [Kind.STOP], ["record"]), 5)} == {"record"}
    with pytest.raises(ValueError, match="no kind of fault"):
        next(drawn(3, []))


def test_only_a_kill_has_no_length() -> None:
    for fault in islice(drawn(5, list(Kind)), 3 * ROUND):
        assert (fault.lasts_s == 0) == (fault.kind is Kind.KILL)
        assert fault.pause_s > 0
        assert (fault.size < 0) <= (fault.kind is Kind.CLOCK)
