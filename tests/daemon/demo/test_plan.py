"""The demo's report has the promised keys, and says so when it does not show what it promised."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from daemon.demo.helpdesk import HELPDESK
from daemon.demo.plan import (
    NO_PRACTICE,
    QUICK_ALPHA,
    CaptureCounts,
    CycleLine,
    DemoBranchCounts,
    DemoReport,
    EventCounts,
    OutOfDomain,
    PracticeLine,
    RollbackLine,
    Unseen,
)
from daemon.demo.scenario import Scenario
from daemon.demo.scenarios import SCENARIOS
from daemon.registry.schemas import BASE, CycleReport
from evaluation.gates.verdict import GateResult, Verdict
from tests.builders.trials import pairs

FULL, QUICK = HELPDESK.full(0), HELPDESK.quick(0)
CYCLE = CycleLine(
    adapter="a" * 64,
    verdict=Verdict.PROMOTE,
    champion_success=0.1,
    candidate_success=0.4,
    tasks=96,
    gates=(GateResult(gate="improvement", verdict=Verdict.PROMOTE, reason="It is better."),),
    seconds=60.0,
    own_episodes=0,
    recoveries=0,
    branches=100,
    practice=NO_PRACTICE,
)
LATER = CYCLE.model_copy(
    update={
        "verdict": Verdict.INCONCLUSIVE,
        "own_episodes": 20,
        "practice": PracticeLine(episodes=120, successes=31),
    }
)
ROLLBACK = RollbackLine(
    from_="ratchet-1-abc", to="base", seconds=0.2, answered_before=("ratchet-1-abc",), answered_after=("base",)
)
REPORT = DemoReport(
    seed=0,
    events=EventCounts(produced=100, stored=100, lost=0, duplicated=0, practice=0),
    branches=DemoBranchCounts(requested=50, executed=48, diverged=2),
    cycles=(CYCLE, LATER, LATER),
    unseen=Unseen(tasks=100, first_success=0.1, last_success=0.4, only_first=2, only_last=32),
    out_of_domain=OutOfDomain(tasks=64, first_success=0.1, last_success=0.2),
    sabotage_verdict=Verdict.REJECT,
    rollback=ROLLBACK,
    wall_seconds=600.0,
    scenario="text-game",
)

CAPTURED = CaptureCounts(calls=40, stored=40, lost=0, episodes=10, trusted=4, branched=20, mismatches=1)


def but(**changes: Any) -> DemoReport:
    return REPORT.model_copy(update=changes)


def test_a_report_that_shows_everything_has_no_failures() -> None:
    assert REPORT.failures(FULL) == []
    assert REPORT.failures(QUICK) == []


@pytest.mark.parametrize(
    ("report", "failure"),
    [
        (but(events=EventCounts(produced=9, stored=8, lost=1, duplicated=0, practice=0)), "1 events were lost"),
        (but(events=EventCounts(produced=9, stored=9, lost=0, duplicated=2, practice=0)), "2 events were stored twice"),
        (but(branches=DemoBranchCounts(requested=9, executed=0, diverged=9)), "no alternative was executed"),
        (
            but(cycles=(CYCLE, LATER, LATER.model_copy(update={"practice": NO_PRACTICE}))),
            "a later cycle had no practice episode",
        ),
        (but(sabotage_verdict=Verdict.PROMOTE), "an adapter with noise on its weights was promoted"),
        (
            but(rollback=ROLLBACK.model_copy(update={"answered_after": ("ratchet-1-abc", "base")})),
            "after the rollback ratchet-1-abc, base answered",
        ),
    ],
)
def test_a_missing_result_that_every_demo_must_show_is_named(report: DemoReport, failure: str) -> None:
    assert report.failures(FULL) == [failure]
    assert report.failures(QUICK) == [failure]


@pytest.mark.parametrize(
    ("report", "failure"),
    [
        (but(cycles=(LATER, LATER)), "no candidate was promoted"),
        (
            but(unseen=Unseen(tasks=100, first_success=0.1, last_success=0.2, only_first=5, only_last=15)),
            "success on unseen tasks rose by 0.100 only",
        ),
        (but(unseen=None), "success on unseen tasks rose by 0.000 only"),
        (
            but(cycles=(CYCLE, LATER.model_copy(update={"own_episodes": 0}))),
            "the last cycle had no episode of the agent's own",
        ),
        (
            but(cycles=(CYCLE, LATER.model_copy(update={"practice": PracticeLine(episodes=120, successes=0)}))),
            "no practice episode succeeded",
        ),
    ],
)
def test_a_missing_result_that_only_the_full_demo_must_show_is_named_there(report: DemoReport, failure: str) -> None:
    assert report.failures(FULL) == [failure]
    assert report.failures(QUICK) == []


@pytest.mark.parametrize(
    ("counts", "failure"),
    [
        ({"lost": 2}, "2 captured calls are not stored"),
        ({"branched": 0}, "no state of a captured call was branched"),
    ],
)
def test_captured_calls_that_came_to_nothing_are_named(counts: dict[str, int], failure: str) -> None:
    for plan in (FULL, QUICK):
        assert but(captured=CAPTURED).failures(plan) == []
        assert but(captured=CAPTURED.model_copy(update=counts)).failures(plan) == [failure]


def test_an_agent_none_of_whose_episodes_is_trusted_proves_nothing() -> None:
    report = but(captured=CAPTURED.model_copy(update={"trusted": 0}))
    assert report.failures(FULL) == ["no episode of captured calls is trusted"]
    assert report.failures(QUICK) == []


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_the_quick_demo_says_what_it_leaves_unproven(scenario: Scenario) -> None:
    full, quick = scenario.plan(3, quick=False), scenario.plan(3, quick=True)
    assert (full.seed, quick.seed) == (3, 3)
    assert quick.unproven
    assert not full.unproven
    assert full.held_out > quick.held_out
    assert full.unseen > quick.unseen
    assert full.practice.enabled
    assert quick.practice.enabled
    assert 3 * full.alpha == pytest.approx(0.05)
    assert quick.alpha == QUICK_ALPHA


def test_the_file_has_the_promised_keys() -> None:
    document = json.loads(REPORT.model_dump_json(by_alias=True))
    required = {"events", "branches", "cycles", "unseen", "sabotage_verdict", "rollback"}
    assert document.keys() >= required | {"wall_seconds"}
    assert document["events"].keys() == {"produced", "stored", "practice", "lost", "duplicated"}
    assert document["branches"].keys() == {"requested", "executed", "diverged"}
    cycle = {"adapter", "verdict", "champion_success", "candidate_success", "tasks", "gates", "seconds"}
    assert all(line.keys() >= cycle for line in document["cycles"])
    assert [line["practice"]["successes"] for line in document["cycles"]] == [0, 31, 31]
    assert document["rollback"].keys() >= {"from", "to", "seconds"}


def test_a_line_has_the_figures_that_the_cycle_reported() -> None:
    report = CycleReport(
        cycle=1,
        adapter=CYCLE.adapter,
        champion=BASE,
        verdict=CYCLE.verdict,
        reason="it won",
        champion_success=CYCLE.champion_success,
        candidate_success=CYCLE.candidate_success,
        tasks=CYCLE.tasks,
        gates=CYCLE.gates,
        seconds=CYCLE.seconds,
    )
    assert CycleLine.of(report, own_episodes=0, recoveries=0, branches=100, practice=NO_PRACTICE) == CYCLE


def test_unseen_tasks_are_summed_up_with_those_that_one_side_alone_solves() -> None:
    found = Unseen.of(pairs([True, True, False, False, False], [True, False, True, True, False]))
    assert found == Unseen(tasks=5, first_success=0.4, last_success=0.6, only_first=1, only_last=2)
    assert found.gain == pytest.approx(0.2)
    assert Unseen.of([]) is None


def test_the_table_shows_the_figures() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(REPORT.table())
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for figure in ("PROMOTE", "0.100 → 0.400", "120, 31", "48, 2", "ratchet-1-abc → base", "REJECT", "10.0 min"):
        assert figure in shown


def test_the_agents_of_all_scenarios_are_where_the_demo_looks_for_them() -> None:
    for scenario in SCENARIOS.values():
        scenario.check()
