"""Progress goes to stderr, results to stdout, and what is missing is said."""

import pytest
from rich.console import Console

from daemon.console import Narrator, print_json, status_table
from daemon.registry.schemas import BASE, CycleReport, StatusReport
from evaluation.gates.significance import Verdict
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
    p_value=1.0,
    seconds=60.0,
)


def shown(report: StatusReport) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(status_table(report))
    return capture.get()


def test_progress_is_lines_on_stderr_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Narrator() as narrator:
        narrator.say("starting")
        for done in range(1, 101):
            narrator.advance("training", done, 100, "loss [0.5]")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0].endswith("starting")
    assert lines[-1].endswith("training: 100/100 loss [0.5]")
    assert len(lines) < 10


def test_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    print_json('{"a": 1}\n')
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ('{"a": 1}\n', "")


def test_a_status_says_what_does_not_answer() -> None:
    text = shown(BARE)
    assert "does not answer" in text
    assert "nothing yet" in text


def test_a_status_counts_what_is_stored_and_tells_the_verdicts() -> None:
    text = shown(BARE.model_copy(update={"store": STORE, "served": "base", "cycles": (CYCLE,)}))
    for figure in ("step events", "40", "114 of 120 run, 2 states dropped", "REJECT: it lost 9 tasks and won 1"):
        assert figure in text
    assert "does not answer" not in text
