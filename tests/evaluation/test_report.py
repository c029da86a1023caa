import json
from pathlib import Path

from evaluation.gates.significance import Evaluation, decide
from evaluation.report import Comparison, GateReport
from evaluation.rollouts import Rollout
from evaluation.settings import GateSettings

SETTINGS = GateSettings(min_tasks=20)


def rollout(number: int, success: bool) -> Rollout:
    actions = ("open fridge", "take plate")
    return Rollout(f"twc/train/{number}", success, float(success), steps=2, invalid_actions=1, actions=actions)


def evaluation() -> Evaluation:
    champion = tuple(rollout(n, n < 5) for n in range(20))
    candidate = tuple(rollout(n, n < 15) for n in range(20))
    return Evaluation("base", "ratchet-7-3f9c0a12b4de", champion, candidate, decide(champion, candidate, SETTINGS))


def test_the_report_can_be_read_back_and_says_everything_that_the_verdict_rests_on(tmp_path: Path) -> None:
    report = GateReport.of(evaluation(), SETTINGS)
    report.write(tmp_path)
    assert GateReport.model_validate_json((tmp_path / "gate.json").read_bytes()) == report
    written = json.loads((tmp_path / "gate.json").read_text())
    assert written["verdict"] == "PROMOTE"
    assert (written["wins"], written["losses"], written["ties"]) == (10, 0, 10)
    candidate = written["held_out"]["candidate"]
    assert (candidate["success"], candidate["mean_score"], candidate["invalid_actions"]) == (0.75, 0.75, 0.5)
    assert candidate["low"] < 0.75 < candidate["high"]
    assert len(written["held_out"]["tasks"]) == 20
    assert written["settings"]["alpha"] == 0.05
    assert {path.name for path in tmp_path.iterdir()} == {"gate.json", "report.md"}


def test_people_read_the_reason_first_and_other_tasks_apart() -> None:
    played = evaluation()
    elsewhere = Comparison.of(
        "base", "ratchet-7-3f9c0a12b4de", played.champion_rollouts[:3], played.candidate_rollouts[:3]
    )
    text = GateReport.of(played, SETTINGS, elsewhere).to_markdown()
    assert text.splitlines()[2].startswith("The candidate is better than the champion")
    assert "if both were equally good, a result at least this favourable to the candidate would come with" in text
    assert text.index("## Held-out tasks") < text.index("## Out of domain")
    assert "## Out of domain" not in GateReport.of(played, SETTINGS).to_markdown()
