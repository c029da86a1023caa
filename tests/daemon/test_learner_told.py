"""What `ratchet status` and the metrics tell of the learner."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from rich.console import Console

from daemon.config import DomainSettings, Settings
from daemon.console import learner_told, status_table
from daemon.learning.loop import Note, Phase
from daemon.learning.role import serve
from daemon.learning.telling import Telling
from daemon.registry.audit import Action, AuditEvent, AuditLog
from daemon.registry.learner_status import (
    LEARNER_FILE,
    LearnerPhase,
    LearnerReport,
    LearnerStatus,
    learner_report,
    read_learner_status,
)
from daemon.registry.schemas import BASE, CycleReport, StatusReport
from daemon.serving.learner_metrics import learner_metrics
from evaluation.gates.verdict import Verdict
from ratchet_client.errors import ConfigurationError
from streams.runtime.processes import peak_memory
from tests.waiting import eventually

UNTIL = datetime(2026, 11, 28, 22, 10, tzinfo=UTC)


def status(phase: LearnerPhase, silent_s: float = 0.0, **fields: object) -> LearnerStatus:
    now = datetime.now(UTC)
    times = {"since": now - timedelta(minutes=3, seconds=1), "beat_at": now - timedelta(seconds=silent_s)}
    return LearnerStatus.model_validate({"phase": phase, **times, **fields})


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (partial(status, LearnerPhase.WAITING, new=12, needed=50), "waits: 12 of 50 new trusted episodes"),
        (
            partial(status, LearnerPhase.BRANCHES, new=50, needed=50, missing=4, until=UNTIL),
            "waits for 4 branches, for 3 min, until 22:10:00 UTC; 50 of 50 new trusted episodes",
        ),
        (
            partial(
                status,
                LearnerPhase.TRAINING,
                objective="imitation",
                done=40,
                total=160,
                loss=0.41234,
                left_s=480,
                memory_bytes=3_100_000_000,
            ),
            "trains: imitation, update 40 of 160, loss 0.412, about 8 min left, 3.1 GB",
        ),
        (partial(status, LearnerPhase.TRAINING), "begins a training"),
        (
            partial(status, LearnerPhase.GATE, gate="improvement", done=34, total=320),
            "at the gate improvement: 34 of at most 320 episodes",
        ),
        (
            partial(status, LearnerPhase.APPROVAL, new=1, needed=50),
            "awaits a person's approval; 1 of 50 new trusted episodes",
        ),
        (
            partial(status, LearnerPhase.PRACTICE, new=1, needed=50),
            "practises train tasks; 1 of 50 new trusted episodes",
        ),
        (partial(status, LearnerPhase.CANARY), "waits for the end of the canary"),
        (
            partial(status, LearnerPhase.PAUSED, failures=2, until=UNTIL, error="[out] of memory"),
            "paused after a failure 2 in a row, until 22:10:00 UTC: [out] of memory",
        ),
        (partial(status, LearnerPhase.OFF), "learns nothing: no domain is set (`ratchet doctor`)"),
    ],
)
def test_each_phase_is_told_in_a_sentence(told: Callable[[], LearnerStatus], words: str) -> None:
    assert learner_told(LearnerReport(running=True, status=told())) == words


def test_a_learner_that_is_dead_or_was_stopped_is_told_since_when_and_why(tmp_path: Path) -> None:
    assert learner_told(learner_report(tmp_path, ())) == "not running: none has run with this home"
    for given, words in (
        (status(LearnerPhase.TRAINING, silent_s=3601), "(1 h 0 min ago), when it was training"),
        (status(LearnerPhase.STOPPED, error="no such suite"), "(0 min ago): no such suite"),
    ):
        (tmp_path / LEARNER_FILE).write_text(given.model_dump_json())
        report = learner_report(tmp_path, ())
        assert not report.running
        assert learner_told(report).startswith("not running since 20")
        assert learner_told(report).endswith(words)
    (tmp_path / LEARNER_FILE).write_text("{")
    assert read_learner_status(tmp_path) is None


def test_the_report_has_the_verdict_of_the_last_cycle(tmp_path: Path) -> None:
    cycle = CycleReport(
        cycle=1,
        adapter="a" * 64,
        champion=BASE,
        verdict=Verdict.REJECT,
        reason="it lost [/9] tasks",
        tasks=150,
        gates=(),
        seconds=60.0,
    )
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append(AuditEvent(actor="learner", action=Action.CYCLE, subject="a" * 64, reason="r", cycle=cycle))
    (tmp_path / LEARNER_FILE).write_text(status(LearnerPhase.WAITING, new=0, needed=50).model_dump_json())
    learner = learner_report(tmp_path, log.read())
    assert learner.running
    assert learner.last_cycle is not None
    assert learner.last_cycle.verdict is Verdict.REJECT
    report = StatusReport(
        alias="assistant",
        champion="a" * 64,
        previous=BASE,
        anchor=BASE,
        served=None,
        in_flight=0,
        served_models=None,
        store=None,
        cycles=(),
        learner=learner,
    )
    console = Console(width=80)
    with console.capture() as captured:
        console.print(status_table(report))
    lines = captured.get().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any("learner" in line and "waits: 0 of 50 new trusted episodes" in line for line in lines)
    assert any("last cycle" in line and "REJECT" in line for line in lines)
    assert "[/9]" in captured.get()
    assert "…" not in captured.get(), "no digest is cut off"


def test_the_learner_writes_a_phase_at_once_and_what_changes_in_it_with_the_next_beat(tmp_path: Path) -> None:
    telling = Telling(tmp_path)

    def written() -> LearnerStatus:
        found = read_learner_status(tmp_path)
        assert found is not None
        return found

    telling.tell(LearnerPhase.WAITING, new=3, needed=50)
    assert (written().phase, written().new) == (LearnerPhase.WAITING, 3)
    since = written().since
    telling.tell(LearnerPhase.WAITING, new=4, needed=50)
    assert written().new == 3
    telling.beat()
    assert (written().new, written().since) == (4, since)
    telling.advanced(Phase.TRAINING, 1, 10, Note("imitation, loss 0.5", objective="imitation", loss=0.5))
    assert written().left_s is None, "nothing is known before a first update was timed"
    telling.advanced(Phase.TRAINING, 2, 10, Note("imitation, loss 0.4", objective="imitation", loss=0.4))
    telling.beat()
    assert (written().phase, written().done, written().loss) == (LearnerPhase.TRAINING, 2, 0.4)
    assert written().left_s is not None
    assert written().new is None, "what belongs to another phase is not told any more"
    telling.advanced(Phase.GATE, 0, 20, Note("improvement, episodes", gate="improvement"))
    assert (written().phase, written().gate) == (LearnerPhase.GATE, "improvement")


def test_a_home_that_cannot_be_written_does_not_end_the_learner(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    telling = Telling(tmp_path / "home")
    telling.tell(LearnerPhase.WAITING)
    telling.beat()
    assert telling.status.phase is LearnerPhase.WAITING


class Figures(Collector):
    def __init__(self, report: LearnerReport) -> None:
        self._metrics = list(learner_metrics(report))

    def collect(self) -> list[Metric]:
        return self._metrics


def exposed(report: LearnerReport) -> str:
    registry = CollectorRegistry()
    registry.register(Figures(report))
    return generate_latest(registry).decode()


def test_the_metrics_have_the_phase_and_what_belongs_to_it() -> None:
    training = status(
        LearnerPhase.TRAINING, done=4, total=8, objective="imitation", loss=0.5, memory_bytes=7, failures=1
    )
    training = training.model_copy(update={"tokens_per_s": 300.0, "gradient_norm": 1.5})
    shown = exposed(LearnerReport(running=True, status=training))
    for line in (
        "ratchet_learner_up 1.0",
        'ratchet_learner_phase{phase="training"} 1.0',
        'ratchet_learner_phase{phase="paused"} 0.0',
        "ratchet_learner_done 4.0",
        'ratchet_learner_loss{objective="imitation"} 0.5',
        "ratchet_learner_memory_bytes 7.0",
        "ratchet_learner_tokens_per_second 300.0",
        "ratchet_learner_gradient_norm 1.5",
        "ratchet_learner_failures 1.0",
    ):
        assert line in shown
    assert "ratchet_learner_new_episodes" not in shown
    dead = exposed(LearnerReport(running=False, status=training))
    assert "ratchet_learner_up 0.0" in dead
    assert "phase" not in dead
    assert "ratchet_learner_up 0.0" in exposed(LearnerReport(running=False))
    # It was asked for one cycle, and need not live on.
    assert "ratchet_learner_up 1.0" in exposed(LearnerReport(running=False, status=status(LearnerPhase.FINISHED)))


async def test_the_learn_role_tells_that_it_learns_nothing_and_why_it_ended(tmp_path: Path) -> None:
    settings, stop = Settings(home=tmp_path).settled(), asyncio.Event()
    role = asyncio.create_task(serve(settings, stop))

    async def is_off() -> bool:
        found = read_learner_status(tmp_path)
        return found is not None and found.phase is LearnerPhase.OFF

    await eventually(is_off)
    stop.set()
    await role
    stopped = read_learner_status(tmp_path)
    assert stopped is not None
    assert (stopped.phase, stopped.error) == (LearnerPhase.STOPPED, "")
    wrong = settings.model_copy(update={"model": str(tmp_path), "domain": DomainSettings(environment="toolbox")})
    with pytest.raises(ConfigurationError):
        await serve(wrong, asyncio.Event())
    ended = read_learner_status(tmp_path)
    assert ended is not None
    assert "is not a Hugging Face model" in ended.error
    assert not learner_report(tmp_path, ()).running


def test_a_process_tells_the_most_memory_that_it_has_had() -> None:
    before = peak_memory()
    assert 10_000_000 < before <= peak_memory()
