"""Measured points: the table made of them, the costs taken from them, and what the model makes of the same."""

import os
import subprocess
import sys

import pytest

from benchmarks.core_seconds import CoreSeconds
from benchmarks.model_error import layout_of, relative_error
from benchmarks.pipeline_figures import LAKE_TRANSACTION_S, branch_costs, store_costs
from benchmarks.scaling_points import POINTS, Kind, Point, Points, markdown


def lake(workers: int, seconds: float, others: float = 0.0) -> Point:
    """Ten transactions of 1,000 events, which took eight seconds of the roles, five of them in turns."""
    each = {f"role-{number}": 8.0 / workers for number in range(workers)}
    return Point(
        kind=Kind.LAKE,
        workers=workers,
        partitions=8,
        counted=10_000,
        seconds=seconds,
        cores=2,
        core_s={**each, "broker": 0.5, "postgres": 0.1, "postgres/children": 0.9, "others": others},
        transactions=10,
        write_s=5.0,
        bare_per_s=20_000,
    )


BRANCH = Point(
    kind=Kind.BRANCH,
    workers=1,
    partitions=8,
    counted=1_000,
    seconds=5.0,
    cores=2,
    core_s={"worker-0": 2.0, "worker-0/children": 4.0, "broker": 0.1, "others": 0.0},
)


def test_the_costs_of_one_role_are_its_seconds_divided_among_events_and_transactions() -> None:
    costs = store_costs([lake(1, 8.0)], Kind.LAKE)
    assert costs.event_s * 10_000 == pytest.approx(3.0)
    assert costs.transaction_s == LAKE_TRANSACTION_S
    assert 10 * costs.transaction_s + 10_000 * costs.write_event_s == pytest.approx(5.0)
    assert costs.postgres_s == pytest.approx(0.1)
    assert costs.batch == 1_000
    branches = branch_costs([BRANCH])
    assert (branches.role_s, branches.sandbox_s) == (0.002, 0.004)


def test_without_a_point_of_one_process_it_is_said_how_to_measure_one() -> None:
    with pytest.raises(LookupError, match=r"benchmarks\.scaling --keep"):
        store_costs([lake(2, 8.0)], Kind.LAKE)


def test_the_model_of_one_role_takes_as_long_as_was_measured() -> None:
    # Eight seconds of the role and one of PostgreSQL, one after the other.
    assert relative_error(lake(1, 9.0), [lake(1, 9.0)]) == pytest.approx(0, abs=0.1)
    assert relative_error(BRANCH, [BRANCH]) == pytest.approx(0.25, abs=0.1)


def test_what_other_programs_took_is_not_there_for_the_model() -> None:
    points = [lake(1, 10.0), lake(2, 10.0, others=12.0)]
    assert layout_of(points[1], points).cores == pytest.approx(0.8)


def test_the_table_tells_the_speed_up_over_one_process_and_where_the_time_went() -> None:
    first, second = markdown([lake(1, 10.0), lake(2, 8.0, others=4.0)]).splitlines()[2:]
    assert [cell.strip() for cell in second.split("|")[1:-1]] == [
        *("record roles, lake", "2", "8", "1,250", "1.25", "0.06", "800", "0", "150", "1000", "84%, 25%")
    ]
    assert "| 1.00 |" in first


def test_a_point_that_is_measured_again_takes_the_place_of_the_earlier_one() -> None:
    earlier = Points.of([lake(2, 8.0), lake(1, 10.0), BRANCH], "2026-11-30", 0.1)
    both = Points.of([lake(2, 5.0)], "2026-12-01", 0.2).over(earlier)
    assert both == Points.of([lake(1, 10.0), lake(2, 5.0), BRANCH], "2026-12-01", 0.2)
    assert (earlier.ratio, both.ratio) == (0.05, 0.05)


def test_the_points_that_are_kept_have_one_process_of_each_kind() -> None:
    kept = Points.model_validate_json(POINTS.read_bytes()).points
    assert {point.kind for point in kept if point.workers == 1} == set(Kind)


def test_processor_time_is_that_of_a_process_and_of_what_it_started() -> None:
    before = CoreSeconds.of({"own": os.getpid()})
    sum(number * number for number in range(1_000_000))
    subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
    used = CoreSeconds.of({"own": os.getpid()}).since(before)
    assert used.groups["own"] > 0
    assert used.groups["own/children"] > 0
    assert sum(used.groups.values()) <= used.at + 0.1
    assert used.machine >= 0
