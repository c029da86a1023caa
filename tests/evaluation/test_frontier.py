"""Which tasks a round of practice is spent on."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from evaluation.frontier import Attempts, Bucket, choose
from ratchet_client.events import Task


def tasks(*names: str) -> list[Task]:
    return [Task(environment="e", task_id=name) for name in names]


ATTEMPTS = st.integers(1, 8).flatmap(lambda most: st.builds(Attempts, st.just(most), st.integers(0, most)))
KNOWN = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), ATTEMPTS, max_size=20)


@given(
    KNOWN,
    st.sets(st.text("ghij", min_size=1, max_size=3), max_size=20),
    st.integers(0, 30),
    st.floats(0, 0.6),
    st.floats(0, 0.4),
    st.integers(0, 2**31),
)
def test_a_round_is_of_the_frontier_with_a_share_for_each_of_the_others(
    known: dict[str, Attempts], unseen: set[str], count: int, explore: float, revisit: float, seed: int
) -> None:
    listed = tasks(*known, *unseen)
    chosen = choose(listed, known, count, explore, revisit, seed)
    assert len({task.task_id for task in chosen}) == len(chosen) == min(count, len(listed))
    assert set(chosen) <= set(listed)
    assert set(choose(listed[::-1] + listed, known, count, explore, revisit, seed)) == set(chosen)

    def buckets(some: list[Task]) -> Counter[Bucket]:
        return Counter(known.get(task.task_id, Attempts()).bucket for task in some)

    there, taken = buckets(listed), buckets(list(chosen))
    settled = taken[Bucket.SOLVED] + taken[Bucket.HOPELESS]
    assert taken[Bucket.UNSEEN] >= min(there[Bucket.UNSEEN], int(explore * count))
    assert settled >= min(there[Bucket.SOLVED] + there[Bucket.HOPELESS], int(revisit * count))
    if taken[Bucket.FRONTIER] < there[Bucket.FRONTIER]:
        # Nothing else had more than its share while a task of the frontier was left.
        assert taken[Bucket.UNSEEN] <= explore * count + 1
        assert settled <= revisit * count + 1


def test_an_even_chance_is_drawn_more_often_than_a_rare_success() -> None:
    known = {"even": Attempts(8, 4), "rare": Attempts(8, 1)}
    first = Counter(choose(tasks("even", "rare"), known, 1, 0.0, 0.0, seed)[0].task_id for seed in range(400))
    # 16/64 against 7/64: 0.70 of the draws; the bounds are four standard errors away.
    assert 240 < first["even"] < 320


def test_tasks_that_were_always_or_never_solved_are_left_out_while_there_are_others() -> None:
    known = {"always": Attempts(8, 8), "never": Attempts(8, 0), "sometimes": Attempts(8, 3)}
    listed = tasks("always", "never", "sometimes", "new")
    assert {task.task_id for task in choose(listed, known, 2, 0.25, 0.05, 0)} == {"sometimes", "new"}
