"""`ratchet gate show`, from the files of a home folder alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from daemon.cli import app
from daemon.learning.loop import ACTOR
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.report import GateReport
from evaluation.rollout_log import Entry, Key, RolloutLog, rollouts_path
from evaluation.rollouts import Exclusion, Rollout
from evaluation.settings import GateSettings
from learners.snapshots import write_snapshot
from ratchet_client.events import Task
from ratchet_client.messages import Message, assistant, call, tool_result, user
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import entered, trajectory
from tests.builders.trials import CHAMPION, evidence

LOST, WON, BROKEN = (Task(environment="desk", task_id=f"desk/dev/{name}") for name in ("lost", "won", "broken"))
OPENING = (Message(role="system", content="You answer tickets."), user("Where is my order?"))


def played(task: Task, success: bool, *said: Message) -> Rollout:
    actions = tuple(message for message in said if message.role == "assistant")
    return Rollout(task.task_id, success, float(success), len(actions), 0, actions, (*OPENING, *said))


@pytest.fixture
def candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A candidate that lost a task, won one, and has one that it could not play."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    snapshot = write_snapshot(
        [trajectory(0)], HoldoutSettings(selection=0, confirmation=0), tmp_path / "snapshots", 1, {}
    )
    digest, registry = entered(tmp_path, snapshot), Registry(tmp_path)
    for state in (State.TRAINED, State.EVALUATING, State.INCONCLUSIVE):
        registry.enter(digest, state, ACTOR, "a test")
    looked = assistant("Let me look.", call("find_order", '{"id": "A\x1b[31m7"}', "call_1"))
    sides: dict[tuple[str, Task], Rollout | Exclusion] = {
        (CHAMPION.adapter, LOST): played(
            LOST, True, looked, tool_result("It left [today].", "call_1"), assistant("Today.")
        ),
        (digest, LOST): played(LOST, False, assistant("I do not know.", reasoning="Who am I?")),
        (CHAMPION.adapter, WON): played(WON, False, assistant("Perhaps.")),
        (digest, WON): played(WON, True, assistant("On its way.")),
        (CHAMPION.adapter, BROKEN): played(BROKEN, True, assistant("Done.")),
        (digest, BROKEN): Exclusion(BROKEN, "the sandbox died"),
    }
    with RolloutLog(rollouts_path(tmp_path, digest, 1)) as record:
        for (adapter, task), outcome in sides.items():
            record.append(Entry.of(Key("improvement", adapter, task, 0, "c"), adapter, outcome))
    made = evidence()
    made.results.append(GateResult(gate="improvement", verdict=Verdict.INCONCLUSIVE, reason="One each."))
    report = GateReport.of(made, Verdict.INCONCLUSIVE, "One each.", GateSettings())
    report.write(registry.adapter_folder(digest))
    return digest


def show(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["gate", "show", *arguments], env={"COLUMNS": "200"})


def test_the_results_of_gates_and_the_tasks_that_were_won_lost_and_left_out_are_listed(candidate: str) -> None:
    shown = show(candidate[:8]).stdout
    for word in ("inconclusive", "One each.", "1 losses", "desk/dev/lost", "desk/dev/won", "desk/dev/broken"):
        assert word in shown
    assert "I do not know." not in shown


def test_a_lost_task_is_read_next_to_a_won_one(candidate: str) -> None:
    shown = show(candidate, "--losses", "--wins").stdout
    assert shown.count("Where is my order?") == 2
    for said in ("calls find_order", "tool: It left [today].", "I do not know.", "thinking: Who am I?", "On its way."):
        assert said in shown
    assert "\x1b[31m" not in shown
    assert shown.index("assistant: Today.") < shown.index("I do not know.")
    assert "Done." not in show(candidate, "--losses").stdout
    assert "excluded: the sandbox died" in show(candidate, "--task", BROKEN.task_id).stdout
    assert "Done." in show(candidate, "--task", "desk/dev/bro").stdout


def test_programs_read_all_of_it_as_json(candidate: str) -> None:
    found = json.loads(show(candidate, "--losses", "--json").stdout.splitlines()[-1])
    assert (found["adapter"], found["state"], found["verdict"]) == (candidate, "inconclusive", "INCONCLUSIVE")
    assert found["results"] == {"improvement": {"loss": 1, "win": 1, "excluded": 1}}
    (lost,) = found["tasks"]
    assert lost["task"]["task_id"] == LOST.task_id
    assert lost["by_candidate"]["rollout"]["messages"][-1]["content"] == "I do not know."


def test_a_task_that_was_not_played_and_an_adapter_that_is_not_known_are_errors(candidate: str) -> None:
    assert "no task 'desk/dev/none' was played" in str(show(candidate, "--task", "desk/dev/none").exception)
    assert "no adapter is called" in str(show("f" * 64).exception)


def test_a_score_that_is_not_a_number_is_shown_as_it_is(candidate: str, tmp_path: Path) -> None:
    odd = replace(played(WON, True, assistant("Cheat.")), score=float("nan"))
    with RolloutLog(rollouts_path(tmp_path, candidate, 1)) as record:
        record.append(Entry.of(Key("golden", candidate, WON, 0, "c"), candidate, odd))
    assert "score nan" in show(candidate, "--task", WON.task_id).stdout
    shown = json.loads(show(candidate, "--task", WON.task_id, "--json").stdout.splitlines()[-1])
    assert shown["tasks"][-1]["by_candidate"]["rollout"]["score"] == "NaN"


def test_what_a_task_a_reason_or_a_failure_is_called_neither_commands_the_terminal_nor_is_markup(
    candidate: str, tmp_path: Path
) -> None:
    odd = Task(environment="desk", task_id="odd [/x]\x1b[2J\r~")
    with RolloutLog(rollouts_path(tmp_path, candidate, 1)) as record:
        record.append(Entry.of(Key("golden", candidate, odd, 0, "c"), candidate, Exclusion(odd, "died \x1b]0;x\x07")))
    made = evidence()
    made.results.append(GateResult(gate="[/y]", verdict=Verdict.HOLD, reason="It says \x1b[31mred[/z]."))
    report = GateReport.of(made, Verdict.HOLD, "It says \x1b[31mred[/z].", GateSettings())
    report.write(Registry(tmp_path).adapter_folder(candidate))
    for shown in (show(candidate, "--task", "odd"), CliRunner().invoke(app, ["why", candidate])):
        assert shown.exit_code == 0, shown.exception
        assert not {"\x1b", "\x07", "\r"}.intersection(shown.stdout)
    assert "odd [/x]\\x1b[2J" in show(candidate).stdout
