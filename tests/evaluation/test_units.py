from dataclasses import replace

import pytest

from evaluation.units import in_keyed_order, is_graded, unit_results, units_of
from ratchet_client.events import family
from streams.errors import GateError
from tests.builders.trials import pairs, tasks


def test_tasks_of_one_id_but_for_its_variant_are_one_unit_of_their_environment() -> None:
    one, other = tasks(2)
    first, second = (one.model_copy(update={"task_id": f"{one.task_id}~{name}"}) for name in ("base", "miss"))
    elsewhere = first.model_copy(update={"environment": "textworld"})
    found = units_of([first, other, second, elsewhere, one])
    assert [unit.tasks for unit in found] == [(first, second, one), (other,), (elsewhere,)]
    assert family(first.task_id) == one.task_id
    assert is_graded(found, "success")
    assert not is_graded(units_of([one, other]), "success")
    assert is_graded(units_of([one]), "score")


def test_a_task_given_twice_is_refused() -> None:
    with pytest.raises(GateError, match="distinct"):
        units_of(tasks(1) * 2)


def test_the_order_is_that_of_the_key_and_the_candidate_alone() -> None:
    units = units_of(tasks(50))
    order = in_keyed_order(units, "key", "a" * 64)
    assert order == in_keyed_order(units[::-1], "key", "a" * 64)
    assert sorted(order, key=units.index) == list(units)
    assert len({order, in_keyed_order(units, "other", "a" * 64), in_keyed_order(units, "key", "b" * 64), units}) == 4


def test_the_place_of_a_task_says_nothing_of_its_name() -> None:
    units = units_of(tasks(100))
    firsts = [in_keyed_order(units, "key", f"{n:064x}")[0].name for n in range(100)]
    assert len(set(firsts)) > 50


def test_a_unit_counts_once_however_often_its_tasks_were_played() -> None:
    played = pairs([False, True, False], [True, False, False])
    assert unit_results(played) == [1.0, -1.0, 0.0]
    assert unit_results([*played, replace(played[0], candidate=played[0].champion)]) == [0.5, -1.0, 0.0]
    assert unit_results(played, "score") == [1.0, -1.0, 0.0]
