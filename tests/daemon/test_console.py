"""Progress goes to stderr, results to stdout, and what is missing is said."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from daemon.console import Narrator, history_table, print_json, status_table
from daemon.registry.audit import Action, AuditEvent, AuditLog
from daemon.registry.schemas import (
    BASE,
    CanaryEnd,
    CanaryReport,
    CaptureStatus,
    CycleReport,
    HeldAdapter,
    ShadowFigures,
    StatusReport,
)
from evaluation.gates.verdict import GateResult, Verdict
from streams.assembly.status import AssemblyStatus
from streams.store.status import BranchCounts, StoreStatus

BARE = StatusReport(
    alias="assistant",
    champion=BASE,
    previous=BASE,
    anchor=BASE,
    served=None,
    in_flight=0,
    served_models=None,
    store=None,
    cycles=(),
)
STORE = StoreStatus(
    sequence=99,
    events={"step": 40, "outcome": 8},
    duplicates=0,
    dead_letters=3,
    quarantined=2,
    flagged=1,
    redactions={"email": 4},
    gaps=0,
    transitions={"production": 40},
    branches=BranchCounts(states=40, dropped=2, requested=120, executed=114),
    trusted={"train": 5, "selection": 2},
    outbox_pending=0,
    positions={},
)
CYCLE = CycleReport(
    cycle=1,
    adapter="a" * 64,
    champion=BASE,
    verdict=Verdict.REJECT,
    reason="it lost 9 tasks and won 1",
    champion_success=0.4,
    candidate_success=0.1,
    tasks=150,
    gates=(),
    seconds=60.0,
)


def rows(report: StatusReport) -> dict[str, str]:
    labels, values = (list(map(str, column.cells)) for column in status_table(report).columns)
    return dict(zip(labels, values, strict=True))


def test_a_canary_that_runs_and_one_that_ended_are_told() -> None:
    canary = CanaryReport(
        adapter="b" * 64,
        champion=BASE,
        share=0.1,
        began=datetime(2026, 11, 1, tzinfo=UTC),
        reason="nothing is proved yet",
        shadow=ShadowFigures(copies=9, compared=8, agreed=7),
    )
    told = rows(BARE.model_copy(update={"canary": canary}))["canary"]
    assert told == (
        "bbbbbbbbbbbb answers 10% of new episodes: nothing is proved yet Its answers to 8 copied calls agree in 7."
    )
    ended = canary.model_copy(update={"ended": CanaryEnd.ROLLED_BACK, "reason": "it is worse", "shadow": None})
    assert rows(BARE.model_copy(update={"canary": ended}))["canary"] == "bbbbbbbbbbbb rolled_back: it is worse"


def test_progress_is_lines_on_stderr_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Narrator() as narrator:
        narrator.say("starting")
        for done in range(1, 101):
            narrator.advance("training", done, 100, "loss [0.5]")
    captured = capsys.readouterr()
    assert captured.out == ""
    # The first and the last; the others come sooner than a line every 15 seconds.
    assert [line.partition(" ")[2] for line in captured.err.splitlines()] == [
        "starting",
        "training: 1/100 loss [0.5]",
        "training: 100/100 loss [0.5]",
    ]


def test_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    print_json('{"a": 1}\n')
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ('{"a": 1}\n', "")


def test_a_status_says_what_does_not_answer() -> None:
    assert rows(BARE) == {
        "agents ask for": "assistant",
        "served now": "nothing yet",
        "champion": BASE,
        "previous": BASE,
        "store": "does not answer",
    }


def test_a_status_counts_what_is_stored_and_tells_the_verdicts() -> None:
    shown = rows(BARE.model_copy(update={"store": STORE, "served": "base", "cycles": (CYCLE,)}))
    assert shown.pop("served now") == "base"
    assert list(shown.items())[3:] == [
        ("step events", "40"),
        ("outcome events", "8"),
        ("trusted episodes", "7"),
        ("branches", "114 of 120 run, 2 states dropped"),
        ("recoveries", "0 of 0 failed episodes"),
        ("dead-letter records", "3, and 2 refused"),
        ("flagged", "1 episodes are never learned from"),
        ("redacted", "4 values"),
        ("cycle 1", "REJECT: it lost 9 tasks and won 1"),
    ]


def test_a_status_warns_of_events_that_are_not_authenticated_and_counts_lost_trust() -> None:
    for authenticated, warned in ((False, True), (True, False), (None, False)):
        store = STORE.model_copy(update={"authenticated": authenticated, "untrusted": 3})
        shown = rows(BARE.model_copy(update={"store": store}))
        assert ("not authenticated" in shown.get("warning", "")) is warned
        assert shown["untrusted"] == "3 episodes lost trust by later events"


def test_a_status_tells_apart_the_champion_and_other_adapters_that_are_to_be_retrained() -> None:
    for retrain, champion, words in ((("a", "b"), "a", "the champion and 1 other"), (("b", "c"), "a", "2 other")):
        shown = rows(BARE.model_copy(update={"champion": champion, "retrain": retrain}))
        assert shown["to be retrained"].startswith(f"{words} adapters")


def test_the_status_table_says_why_episodes_are_flagged_and_what_could_not_be_assembled() -> None:
    store = STORE.model_copy(update={"flags": {"injection: [override]": 1}})
    assembly = AssemblyStatus(
        steps=4, without_content=2, absences={"masked": 2}, unrecognised={"langfuse: generation": 3}
    )
    table = status_table(BARE.model_copy(update={"store": store, "assembly": assembly}))
    cells = [str(cell) for cell in table.columns[1].cells]
    assert Text.from_markup(next(cell for cell in cells if "override" in cell)).plain == "1: injection: [override]"
    assert "4 steps, 2 calls without content" in cells
    assert cells[-2:] == ["2: masked", "3 spans of no known dialect: langfuse: generation"]


def test_the_status_table_says_why_successes_are_not_trusted() -> None:
    store = STORE.model_copy(update={"not_trusted": {"a step is missing": 2, "not an append-only conversation": 1}})
    table = status_table(BARE.model_copy(update={"store": store}))
    cells = [str(cell) for cell in table.columns[1].cells]
    at = cells.index("3 other episodes with a success")
    assert str(list(table.columns[0].cells)[at]) == "not trusted"
    assert cells[at + 1 : at + 3] == ["2: a step is missing", "1: not an append-only conversation"]


def test_the_status_table_says_what_became_of_the_calls_at_the_gateway() -> None:
    assert "captured calls" not in rows(BARE)
    for capture, words in (
        (CaptureStatus(published=5, waiting=2), "5, 2 wait for the log"),
        (CaptureStatus(published=5, dropped=2, refused=1), "5, 3 lost, 0 wait for the log"),
        (CaptureStatus(enabled=False), "not recorded (serving.capture.enabled)"),
    ):
        assert rows(BARE.model_copy(update={"capture": capture}))["captured calls"] == words


GATES = (
    GateResult(gate="improvement", verdict=Verdict.PROMOTE, reason="It is better."),
    GateResult(gate="[/odd]", verdict=Verdict.HOLD, reason="It repeats [one] action."),
)
ON_HOLD = CYCLE.model_copy(update={"verdict": Verdict.HOLD, "reason": "It repeats [/one] action.", "gates": GATES})


def test_a_status_lists_the_candidates_that_wait_for_a_person_with_reason_and_age() -> None:
    since = datetime.now(UTC) - timedelta(days=1, hours=3, minutes=1)
    waits = HeldAdapter(
        adapter="a" * 64,
        since=since,
        lapses=datetime(2026, 12, 1, tzinfo=UTC),
        reason="It repeats [/one] action.",
        against=BASE,
        obstacle=None,
    )
    overtaken = waits.model_copy(update={"adapter": "b" * 64, "obstacle": "it was judged against the base model"})
    table = status_table(BARE.model_copy(update={"held": (waits, overtaken)}))
    cells = [Text.from_markup(str(cell)).plain for cell in table.columns[1].cells]
    labels = [str(cell) for cell in table.columns[0].cells]
    at = labels.index(f"held {'a' * 12}")
    assert cells[at] == "for 1 d 3 h, until 2026-12-01 00:00 UTC: It repeats [/one] action."
    assert labels[at + 1] == f"held {'b' * 12}"
    assert cells[at + 2 : at + 4] == [
        "cannot be approved: it was judged against the base model",
        "a person decides: `ratchet approve ADAPTER --reason WHY`, or `ratchet reject`",
    ]


def test_cycles_are_told_by_their_gates_in_status_and_history(tmp_path: Path) -> None:
    told = "HOLD (improvement PROMOTE, [/odd] HOLD): It repeats [/one] action."
    shown = rows(BARE.model_copy(update={"cycles": (ON_HOLD,)}))
    assert Text.from_markup(shown["cycle 1"]).plain == told
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append(AuditEvent(actor="learner", action=Action.CYCLE, subject="a" * 64, reason="r", cycle=ON_HOLD))
    log.append(AuditEvent(actor="[/anna]", action=Action.MOVED, subject="a" * 64, reason="[/no] markup"))
    console = Console(width=200)
    with console.capture() as captured:
        console.print(history_table(log.read()))
    assert told in captured.get()
    assert "cycle 1" in captured.get()
    assert "[/no] markup" in captured.get()


def test_a_status_counts_open_conversations_and_says_when_they_settle() -> None:
    several = AssemblyStatus(open=2, open_s=95, next_settles_s=25, all_settle_s=500)
    assert rows(BARE.model_copy(update={"assembly": several}))["open conversations"] == (
        "2, the oldest silent for 95 s; without more calls the first settles in 25 s, all in 8 min"
    )
    one = AssemblyStatus(open=1, open_s=5, next_settles_s=115, all_settle_s=115)
    assert rows(BARE.model_copy(update={"assembly": one}))["open conversations"] == (
        "1, the oldest silent for 5 s; without more calls it settles in 115 s"
    )
    assert "open conversations" not in rows(BARE.model_copy(update={"assembly": AssemblyStatus()}))
