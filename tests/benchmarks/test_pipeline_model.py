"""The simulated pipeline against formulas of queueing, and what must hold of it whatever it costs."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pipeline_figures import BranchCosts, StoreCosts
from benchmarks.pipeline_model import Layout, Pipeline

# One event is one transaction, and takes a second.
ONE_BY_ONE = StoreCosts(
    event_s=0.0, write_event_s=0.0, transaction_s=1.0, postgres_s=0.0, broker_s=0.0, batch=1, batch_s=0.0
)
STORE = StoreCosts(
    event_s=0.001, write_event_s=0.0002, transaction_s=0.1, postgres_s=0.02, broker_s=0.0001, batch=500, batch_s=0.5
)
BRANCH = BranchCosts(role_s=0.004, sandbox_s=0.01, broker_s=0.0001)


def poisson(per_s: float, count: int, seed: int = 1) -> Iterator[tuple[float, int]]:
    draw, at = random.Random(seed), 0.0
    for _ in range(count):
        at += draw.expovariate(per_s)
        yield at, 1


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_wait_of_one_role_is_that_of_an_m_d_1_queue(load: float) -> None:
    """Pollaczek and Khinchine: with service of D and utilisation r a customer waits D r / (2 (1 - r)) in the mean."""
    pipeline = Pipeline(Layout(ONE_BY_ONE, None, cores=1, partitions=1), poisson(load, 12_000))
    tally = pipeline.run()
    assert tally.events.mean_s - 1.0 == pytest.approx(load / (2 * (1 - load)), rel=0.1)
    assert tally.core_s["record"] / pipeline.environment.now == pytest.approx(load, rel=0.03)


@pytest.mark.parametrize(
    ("cores", "roles", "expected"), [(1, 4, 1.0), (2, 4, 2.0), (4, 4, 4.0), (4, 8, 4.0), (8, 2, 2.0)]
)
def test_rates_of_a_backlog_grow_with_roles_until_there_are_no_more_cores_or_partitions(
    cores: int, roles: int, expected: float
) -> None:
    parallel = replace(ONE_BY_ONE, event_s=1.0, transaction_s=0.0)
    pipeline = Pipeline(Layout(parallel, None, cores, partitions=4, record_roles=roles), [(0.0, 400)])
    pipeline.run()
    assert 400 / pipeline.environment.now == pytest.approx(expected)


def test_however_many_roles_there_are_a_lake_stores_what_fits_into_its_turns() -> None:
    costs = replace(STORE, event_s=0.0001)
    pipeline = Pipeline(Layout(costs, None, cores=16, partitions=16, record_roles=8), [(0.0, 160_000)])
    pipeline.run()
    assert 160_000 / pipeline.environment.now == pytest.approx(1 / costs.turn_s, rel=0.02)


def caught_up_s(workers: int, cores: int) -> float:
    layout = Layout(None, BRANCH, cores, partitions=16, branch_workers=workers)
    pipeline = Pipeline(layout, (), [(0.0, 8_000)])
    pipeline.run()
    return pipeline.environment.now


def test_twice_the_workers_halve_the_time_to_catch_up_until_the_cores_are_all_busy() -> None:
    one, two, four = (caught_up_s(workers, cores=16) for workers in (1, 2, 4))
    assert one / two == pytest.approx(2, rel=0.05)
    assert two / four == pytest.approx(2, rel=0.05)
    # Two cores are as busy with two workers as with four: a worker is a process and a sandbox, 1.4 cores.
    assert caught_up_s(4, cores=2) == pytest.approx(8_000 * 0.0141 / 2, rel=0.05)
    assert caught_up_s(8, cores=2) == pytest.approx(caught_up_s(4, cores=2), rel=0.05)


def test_a_policy_that_is_slower_than_the_workers_limits_them() -> None:
    layout = Layout(None, BRANCH, 16, partitions=16, branch_workers=8, policy_s=0.01)
    pipeline = Pipeline(layout, (), [(0.0, 4_000)])
    pipeline.run()
    assert 4_000 / pipeline.environment.now == pytest.approx(100, rel=0.05)


def test_half_a_core_that_others_left_does_half_the_work() -> None:
    def seconds(cores: float) -> float:
        pipeline = Pipeline(Layout(ONE_BY_ONE, None, cores, partitions=1), [(0.0, 50)])
        pipeline.run()
        return pipeline.environment.now

    assert seconds(0.5) == pytest.approx(2 * seconds(1.0))
    assert seconds(1.0) == pytest.approx(50)


def test_in_an_outage_events_wait_and_afterwards_all_of_them_are_stored() -> None:
    events = [(float(at), 100) for at in range(100)]
    pipeline = Pipeline(Layout(STORE, None, cores=2, partitions=4), events, outage=(20.0, 60.0))
    tally = pipeline.run(until=59.0)
    assert pipeline.recorded.waiting == pytest.approx(40 * 100, abs=300)
    assert pipeline.recorded.age == pytest.approx(40, abs=2)
    tally = pipeline.run()
    assert (tally.stored, pipeline.recorded.waiting) == (10_000, 0)
    assert tally.events.longest_s > 39


def test_a_cycle_begins_when_there_are_enough_new_episodes_and_the_last_one_has_ended() -> None:
    def cycles(cycle_s: float) -> int:
        layout = Layout(STORE, None, 4, 4, trusted_per_event=0.1, cycle_s=cycle_s, min_new=50)
        events = [(float(at), 100) for at in range(1, 101)]  # ten trusted episodes a second
        return Pipeline(layout, events).run(until=100.0).cycles

    assert cycles(0.1) == pytest.approx(20, abs=2)
    assert cycles(20.0) == pytest.approx(4, abs=1)


@settings(max_examples=12, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.floats(0, 50), st.integers(0, 3_000)), max_size=20).map(sorted),
    roles=st.integers(1, 6),
    workers=st.integers(1, 6),
    partitions=st.integers(1, 8),
    until=st.floats(1, 60),
    outage=st.one_of(st.none(), st.just((10.0, 30.0))),
)
def test_at_any_moment_every_event_is_stored_or_waits_or_is_being_stored(
    arrivals: list[tuple[float, int]],
    roles: int,
    workers: int,
    partitions: int,
    until: float,
    outage: tuple[float, float] | None,
) -> None:
    layout = Layout(
        STORE, BRANCH, 2, partitions, roles, workers, states_per_event=0.45, trusted_per_event=0.05, cycle_s=1.0
    )
    pipeline = Pipeline(layout, arrivals, outage=outage)
    tally = pipeline.run(until=until)
    assert tally.produced == sum(count for at, count in arrivals if at < until)
    assert tally.produced + tally.branched == (
        tally.stored + tally.results_stored + pipeline.recorded.waiting + tally.storing
    )
    assert tally.states == tally.branched + pipeline.to_branch.waiting + tally.branching
    tally = pipeline.run()
    assert tally.stored == sum(count for _, count in arrivals)
    assert tally.results_stored == tally.branched == tally.states
    assert tally.states == pytest.approx(tally.stored * 0.45, abs=1)
