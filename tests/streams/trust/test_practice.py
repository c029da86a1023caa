"""Which tasks may be practised: none that anything is judged by, under any of its names and variants."""

import string

from hypothesis import given
from hypothesis import strategies as st

from ratchet_client.events import Task, family
from streams.trust.holdout import HoldoutSettings, Split
from streams.trust.practice import may_be_practised, practisable

_NAMES = st.text(string.ascii_lowercase + string.digits + "/~", min_size=1, max_size=8)
_SHARES = st.sampled_from([0.0, 0.1, 0.3, 0.5])


@st.composite
def holdouts(draw: st.DrawFn) -> HoldoutSettings:
    settings = HoldoutSettings(
        key=draw(st.sampled_from(["ratchet", "another"])),
        selection=draw(_SHARES),
        confirmation=draw(_SHARES),
        pinned=draw(st.frozensets(_NAMES, max_size=3)),
    )
    return settings.knowing(
        {name: tuple(draw(st.lists(_NAMES, min_size=1, max_size=2))) for name in draw(st.sets(_NAMES))}
    )


@given(holdouts(), st.lists(_NAMES, max_size=30), st.lists(_NAMES, max_size=5))
def test_no_task_that_is_held_out_or_kept_is_ever_practised(
    holdout: HoldoutSettings, listed: list[str], kept: list[str]
) -> None:
    tasks = [Task(environment="e", task_id=name) for name in listed]
    chosen = practisable(tasks, holdout, [Task(environment="e", task_id=name) for name in kept])
    ids = [task.task_id for task in chosen]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= set(listed)
    assert all(holdout.split(name) is Split.TRAIN for name in ids)
    assert {family(name) for name in ids}.isdisjoint(map(family, [*kept, *holdout.pinned]))
    assert all(may_be_practised(name, holdout, kept) == (name in ids) for name in listed)


def test_a_variant_and_another_name_of_a_held_out_task_are_held_out_too() -> None:
    holdout = HoldoutSettings(selection=0, confirmation=0, pinned=frozenset({"orders/17~late"}))
    renamed = holdout.knowing({"0123": ("orders/17~early", "orders/2")})
    assert may_be_practised("orders/2", renamed)
    assert not may_be_practised("orders/17~other", renamed)
    assert not may_be_practised("0123", renamed)
