import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.gates.gate import Evidence
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.report import GATE_FILE, REPORT_FILE, Comparison, GateReport
from evaluation.rollouts import Pair, Rollout
from evaluation.settings import GateSettings
from evaluation.statistics import wilson_interval
from ratchet_client.events import Task
from ratchet_client.messages import assistant, call
from tests.builders.trials import CANDIDATE, CHAMPION, evidence, tasks

SETTINGS = GateSettings(min_tasks=20)
ACTIONS = (assistant("open fridge"), assistant(None, call("take", '{"what": "plate"}', "call_1")))
BETTER = GateResult(
    gate="improvement",
    verdict=Verdict.PROMOTE,
    reason="The candidate is better.",
    figures={"wins": 10, "losses": 0, "ties": 10, "p_better": 2**-10},
)


def played(task: Task, success: bool) -> Rollout:
    return Rollout(task.task_id, success, float(success), steps=2, invalid_actions=1, actions=ACTIONS)


def trial() -> Evidence:
    made = evidence()
    made.pairs += [Pair(task, played(task, n < 5), played(task, n < 15)) for n, task in enumerate(tasks(20))]
    made.results.append(BETTER)
    return made


def report(out_of_domain: Comparison | None = None) -> GateReport:
    return GateReport.of(trial(), BETTER.verdict, BETTER.reason, SETTINGS, out_of_domain)


def test_what_is_written_is_read_back_and_holds_all_that_the_verdict_rests_on(tmp_path: Path) -> None:
    report().write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {GATE_FILE, REPORT_FILE}
    assert (tmp_path / REPORT_FILE).read_text() == report().to_markdown()
    written = (tmp_path / GATE_FILE).read_bytes()
    assert GateReport.model_validate_json(written) == report()
    figures = json.loads(written)
    assert (figures["verdict"], figures["reason"]) == ("PROMOTE", BETTER.reason)
    assert [GateResult.model_validate(result) for result in figures["gates"]] == [BETTER]
    assert figures["settings"] == SETTINGS.model_dump(mode="json")
    assert figures["out_of_domain"] is None


def test_a_report_of_before_there_were_several_gates_is_read(tmp_path: Path) -> None:
    now = json.loads(report().model_dump_json())
    settings = {name: value for name, value in now["settings"].items() if name != "gates"}
    older = {**now, "settings": settings, "wins": 10, "losses": 0, "ties": 10, "p_better": 2**-10, "p_worse": 1.0}
    del older["gates"]
    (result,) = GateReport.model_validate(older).gates
    assert (result.gate, result.verdict, result.reason) == ("improvement", Verdict.PROMOTE, BETTER.reason)
    assert result.figures == BETTER.figures | {"p_worse": 1.0}


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1e300])
def test_results_that_cannot_be_true_are_written_and_read_back_for_the_person_who_looks(
    score: float, tmp_path: Path
) -> None:
    made = trial()
    broken = replace(made.pairs[0].candidate, score=score, actions=(assistant("take \ud800"),))
    made.pairs[0] = replace(made.pairs[0], candidate=broken)
    GateReport.of(made, Verdict.HOLD, "A score is impossible.", SETTINGS).write(tmp_path)
    json.loads((tmp_path / GATE_FILE).read_bytes(), parse_constant=pytest.fail)
    read = GateReport.model_validate_json((tmp_path / GATE_FILE).read_bytes()).held_out
    assert read is not None
    assert str(read.tasks[0].candidate_score) == str(score)
    assert read.tasks[0].candidate_actions == (assistant("take \\ud800"),)
    assert not 0 <= read.candidate.mean_score <= 1


def test_each_side_is_summed_up_with_a_wilson_interval() -> None:
    comparison = report().held_out
    assert comparison is not None
    for side, model, successes in (
        (comparison.champion, CHAMPION.served, 5),
        (comparison.candidate, CANDIDATE.served, 15),
    ):
        interval = wilson_interval(successes, 20)
        assert (side.model, side.tasks, side.success, side.mean_score) == (model, 20, successes / 20, successes / 20)
        assert (side.low, side.high) == (interval.low, interval.high)
        assert (side.mean_steps, side.invalid_actions) == (2, 0.5)


def test_every_task_is_listed_with_both_sides_in_one_row() -> None:
    comparison = report().held_out
    assert comparison is not None
    rows = comparison.tasks
    assert [(row.task_id, row.champion_success, row.candidate_success) for row in rows] == [
        (f"twc/train/{number}", number < 5, number < 15) for number in range(20)
    ]
    assert {(row.champion_actions, row.candidate_actions) for row in rows} == {(ACTIONS, ACTIONS)}
    assert [(row.champion_score, row.candidate_score) for row in rows[4:6]] == [(1.0, 1.0), (0.0, 1.0)]


def test_people_read_the_reason_first_then_each_gate_and_out_of_domain_tasks_apart() -> None:
    elsewhere = Comparison.of(CHAMPION.served, CANDIDATE.served, trial().pairs[:3])
    text = report(elsewhere).to_markdown()
    assert text.splitlines()[2] == BETTER.reason
    held_out, out_of_domain = text.split("## Out of domain")
    for said in (CHAMPION.served, CANDIDATE.served, "0.250", "0.750", "## Gate improvement: PROMOTE", "- wins: 10"):
        assert said in held_out
    assert "1.000" in out_of_domain
    assert "## Out of domain" not in report().to_markdown()


def test_without_a_task_that_both_played_there_is_no_comparison() -> None:
    nothing = GateReport.of(evidence(), Verdict.INCONCLUSIVE, "No gate was played.", SETTINGS)
    assert nothing.held_out is None
    assert GateReport.model_validate_json(nothing.model_dump_json()) == nothing
    assert "## Held-out tasks" not in nothing.to_markdown()
