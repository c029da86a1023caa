import json
from pathlib import Path

import pytest

from evaluation.gates.significance import Evaluation, decide
from evaluation.report import GATE_FILE, REPORT_FILE, Comparison, GateReport
from evaluation.rollouts import Rollout
from evaluation.settings import GateSettings
from evaluation.statistics import wilson_interval
from streams.messages import assistant, call

SETTINGS = GateSettings(min_tasks=20)
ACTIONS = (assistant("open fridge"), assistant(None, call("take", '{"what": "plate"}', "call_1")))


def rollout(number: int, success: bool) -> Rollout:
    return Rollout(f"twc/train/{number}", success, float(success), steps=2, invalid_actions=1, actions=ACTIONS)


def evaluation() -> Evaluation:
    champion = tuple(rollout(n, n < 5) for n in range(20))
    candidate = tuple(rollout(n, n < 15) for n in range(20))
    return Evaluation("base", "ratchet-7-3f9c0a12b4de", champion, candidate, decide(champion, candidate, SETTINGS))


def test_what_is_written_is_read_back_and_holds_all_that_the_verdict_rests_on(tmp_path: Path) -> None:
    played = evaluation()
    report = GateReport.of(played, SETTINGS)
    report.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {GATE_FILE, REPORT_FILE}
    assert (tmp_path / REPORT_FILE).read_text() == report.to_markdown()
    written = (tmp_path / GATE_FILE).read_bytes()
    assert GateReport.model_validate_json(written) == report
    figures = json.loads(written)
    decision = played.decision
    assert (figures["verdict"], figures["reason"]) == ("PROMOTE", decision.reason)
    assert (figures["wins"], figures["losses"], figures["ties"]) == (10, 0, 10)
    assert (figures["p_better"], figures["p_worse"]) == (pytest.approx(2**-10), 1.0)
    assert figures["settings"] == SETTINGS.model_dump(mode="json")
    assert figures["out_of_domain"] is None


def test_each_side_is_summed_up_with_a_wilson_interval() -> None:
    comparison = GateReport.of(evaluation(), SETTINGS).held_out
    for side, model, successes in (
        (comparison.champion, "base", 5),
        (comparison.candidate, "ratchet-7-3f9c0a12b4de", 15),
    ):
        interval = wilson_interval(successes, 20)
        assert (side.model, side.tasks, side.success, side.mean_score) == (model, 20, successes / 20, successes / 20)
        assert (side.low, side.high) == (interval.low, interval.high)
        assert (side.mean_steps, side.invalid_actions) == (2, 0.5)


def test_every_task_is_listed_with_both_sides_in_one_row() -> None:
    rows = GateReport.of(evaluation(), SETTINGS).held_out.tasks
    assert [(row.task_id, row.champion_success, row.candidate_success) for row in rows] == [
        (f"twc/train/{number}", number < 5, number < 15) for number in range(20)
    ]
    assert {(row.champion_actions, row.candidate_actions) for row in rows} == {(ACTIONS, ACTIONS)}
    assert [(row.champion_score, row.candidate_score) for row in rows[4:6]] == [(1.0, 1.0), (0.0, 1.0)]


def test_people_read_the_reason_first_and_out_of_domain_tasks_apart() -> None:
    played = evaluation()
    elsewhere = Comparison.of(
        "base", "ratchet-7-3f9c0a12b4de", played.champion_rollouts[:3], played.candidate_rollouts[:3]
    )
    text = GateReport.of(played, SETTINGS, elsewhere).to_markdown()
    assert text.splitlines()[2] == played.decision.reason
    held_out, out_of_domain = text.split("## Out of domain")
    assert "## Held-out tasks" in held_out
    for figure in ("base", "ratchet-7-3f9c0a12b4de", "0.250", "0.750"):
        assert figure in held_out
    assert "1.000" in out_of_domain
    assert "if both were equally good, a result at least this favourable to the candidate would come with" in text
    assert "## Out of domain" not in GateReport.of(played, SETTINGS).to_markdown()
