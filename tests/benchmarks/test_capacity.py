"""What is planned for a load, and the simulated day."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.capacity import ASSUMED, plans_table
from benchmarks.capacity_plan import DAY_S, Plan, after_outage, day, plan
from benchmarks.pipeline_figures import Assumptions, BranchCosts, StoreCosts
from benchmarks.scaling_points import Kind

ROOT = Path(__file__).parents[2]
FILE = StoreCosts(event_s=1e-4, write_event_s=5e-5, transaction_s=0.04, postgres_s=0, broker_s=1e-5, batch=4000)
COSTS = {Kind.FILE: FILE, Kind.LAKE: replace(FILE, transaction_s=0.25, postgres_s=0.1)}
BRANCH = BranchCosts(role_s=0.002, sandbox_s=0.004, broker_s=0.0001)
ASSUMPTIONS = Assumptions()


def planned(episodes: float, assumed: Assumptions = ASSUMPTIONS) -> Plan:
    return plan(episodes, COSTS, BRANCH, assumed)


def simulated(episodes: float, outage_s: float = 3600.0) -> Plan:
    each = planned(episodes)
    return after_outage(each, COSTS[each.store], BRANCH, ASSUMPTIONS, outage_s)


@pytest.mark.parametrize("peak", [1.0, 1.8])
def test_a_day_has_as_many_events_as_it_is_to_have_and_most_of_them_at_noon(peak: float) -> None:
    arrivals = list(day(1e6, peak, 0.0, DAY_S))
    assert sum(count for _, count in arrivals) == pytest.approx(1e6, abs=1)
    noon = sum(count for at, count in arrivals if abs(at - DAY_S / 2) <= 1800)
    assert noon == pytest.approx(1e6 / 24 * peak, rel=0.01)


def test_a_file_does_until_one_role_is_too_busy_and_a_lake_until_its_turns_are() -> None:
    plans = [planned(episodes) for episodes in (1e5, 1e6, 1e7, 3e7, 1e8)]
    assert [each.store for each in plans] == [Kind.FILE, Kind.FILE, Kind.FILE, Kind.LAKE, Kind.LAKE]
    assert plans[-1].stores > 1
    for each in plans:
        turn = each.records / each.stores * COSTS[each.store].turn_s
        assert turn <= ASSUMPTIONS.utilisation + 1e-9
        assert each.partitions >= 2 * max(each.record_roles, each.branch_workers) / each.stores


def test_an_outage_leaves_what_came_meanwhile_and_is_made_up_for() -> None:
    each = simulated(2e5)
    came = 2e5 * (ASSUMPTIONS.steps + 1) * ASSUMPTIONS.peak / 24
    assert each.lag_events == pytest.approx(came, rel=0.02)
    assert each.caught_up_events_min is not None
    assert each.caught_up_states_min is not None
    assert 0 < each.caught_up_events_min <= each.caught_up_states_min < 24 * 60
    half = simulated(2e5, outage_s=1800.0)
    assert half.lag_events == pytest.approx(each.lag_events / 2, rel=0.02)


def test_without_replies_of_the_policy_the_gpus_only_learn() -> None:
    without = Assumptions(samples=0)
    each = planned(2e5, without)
    assert each.gpus == 1
    assert after_outage(each, FILE, BRANCH, without, 600.0).caught_up_states_min is not None
    assert planned(1e6).gpus > 1


def test_costs_follow_the_prices() -> None:
    dear = planned(1e5, Assumptions(gpu_hour=ASSUMPTIONS.gpu_hour + 1))
    cheap = planned(1e5)
    assert dear.cost - cheap.cost == pytest.approx(cheap.gpus * 30 * 24)


def test_the_table_has_a_column_for_each_load() -> None:
    lines = plans_table([simulated(1e3), simulated(1e4)]).splitlines()
    assert lines[0] == "| episodes a day | 1,000 | 10,000 |"
    assert {line.count("|") for line in lines} == {4}


def test_each_assumption_is_an_option_with_a_help() -> None:
    assert set(ASSUMED) == set(Assumptions.__dataclass_fields__)


def test_the_command_prints_one_object_last() -> None:
    command = [sys.executable, "-m", "benchmarks.capacity", "--episodes", "1000", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["plans"][0]["episodes_per_day"] == 1000
    assert told["errors"]
