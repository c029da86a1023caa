"""`ratchet doctor` where a store runs: what does not arrive is named, with what to do about it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daemon.cli import app
from daemon.registry.learner_status import LEARNER_FILE, LearnerPhase, LearnerStatus
from ratchet_client.events import StepEvent
from streams.access.access import Access
from streams.access.token_file import TokenFile
from streams.access.tokens import AccessRole
from streams.branch_events import NO_SANDBOX
from streams.runtime.files import write_atomically
from streams.runtime.processes import free_port
from streams.store.api import build_api
from tests.builders.episodes import episode
from tests.builders.stored import Log, ServedStore, result, unrestored
from tests.served import served

Ask = Callable[[], dict[str, dict[str, str]]]


@pytest.fixture
def ask(served_store: ServedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_base: Path) -> Ask:
    """Asks the doctor; the store runs, and no other role does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RATCHET_MODEL", str(tiny_base))
    monkeypatch.setenv("RATCHET_STORE__PORT", served_store.url.rpartition(":")[2])
    monkeypatch.setenv("RATCHET_SERVING__PORT", str(free_port()))
    monkeypatch.setenv("RATCHET_ENGINE__PORT", str(free_port()))
    monkeypatch.setenv("RATCHET_ASSEMBLY__PORT", str(free_port()))

    def asked() -> dict[str, dict[str, str]]:
        done = CliRunner().invoke(app, ["doctor", "--json"])
        (report,) = (line for line in done.stdout.splitlines() if line.startswith("{"))  # the store logs to it too
        checks = {check["name"]: check for check in json.loads(report)["checks"]}
        assert all(check["remedy"] for check in checks.values() if check["status"] != "ok")
        return checks

    return asked


def test_roles_that_do_not_answer_are_errors_and_an_empty_store_says_how_to_begin(ask: Ask) -> None:
    checks = ask()
    assert {name: checks[name]["status"] for name in ("gateway", "engine", "record", "capture", "trust")} == {
        "gateway": "error",
        "engine": "error",
        "record": "ok",
        "capture": "warning",
        "trust": "ok",
    }
    assert "base URL" in checks["capture"]["remedy"]


@pytest.mark.slow
def test_what_keeps_episodes_from_being_learned_from_is_named(ask: Ask, served_store: ServedStore) -> None:
    log = Log(served_store.store)
    old = datetime.now(UTC) - timedelta(days=4)
    first, second, verdict = episode("old")
    for step in (first, second):
        assert isinstance(step, StepEvent)
        log.publish(step.model_copy(update={"recorded_at": old}))
    checks = ask()
    assert "not one outcome" in checks["feedback"]["message"]
    assert "open: it ended without an outcome (1)" in checks["trust"]["message"]
    log.publish(*episode("sound", action="run"))
    checks = ask()
    assert "1 episodes have been without an outcome" in checks["feedback"]["message"]
    assert (checks["trust"]["status"], checks["branching"]["status"]) == ("ok", "warning")
    assert checks["trust"]["message"] == (
        "of 2 episodes 1 are trusted and 0 failed: these may be learned from; 0 are held out, of tasks that are kept "
        "for gates"
    )
    assert "role branch" in checks["branching"]["remedy"]
    served_store.store.append([result(unrestored("sound", step, "it differs: x"), step) for step in (0, 1)])
    log.publish(verdict)
    checks = ask()
    assert checks["feedback"]["status"] == "ok"
    assert checks["branching"]["message"] == "2 of 2 states were dropped, most: it differs"
    assert "environment replay" in checks["branching"]["remedy"]
    log.publish(*episode("early", action="sit"))
    lacked = [result(unrestored("early", step, f"{NO_SANDBOX}: it has no settings"), step + 2) for step in (0, 1)]
    served_store.store.append(lacked)
    checks = ask()
    assert "2 states and failed episodes wait for a sandbox" in checks["branching"]["message"]
    assert "start Ratchet again" in checks["branching"]["remedy"]


@pytest.mark.slow
def test_a_learner_that_is_away_or_paused_is_a_warning_with_its_error(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "learner" not in ask(), "nothing is learned without a domain"
    monkeypatch.setenv("RATCHET_DOMAIN__RECORDED", "true")
    away = ask()["learner"]
    assert (away["status"], away["message"]) == ("warning", "not running: none has run with this home")
    now = datetime.now(UTC)
    for phase, error, status in ((LearnerPhase.PAUSED, "out of memory", "warning"), (LearnerPhase.WAITING, "", "ok")):
        told = LearnerStatus(phase=phase, since=now, beat_at=now, error=error, new=1, needed=50)
        write_atomically(tmp_path / "home" / LEARNER_FILE, told.model_dump_json().encode())
        found = ask()["learner"]
        assert found["status"] == status
        assert error in found["message"]


@pytest.mark.slow
def test_a_role_that_refuses_the_token_runs_and_says_so(
    ask: Ask, served_store: ServedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = TokenFile(tmp_path / "home").issue("ann", [AccessRole.READ])
    with served(build_api(served_store.store, access=Access(home=tmp_path / "home")), lifespan="off") as url:
        monkeypatch.setenv("RATCHET_STORE__PORT", url.rpartition(":")[2])
        checks = ask()
        assert (checks["record"]["status"], "401" in checks["record"]["message"]) == ("error", True)
        assert "RATCHET_TOKEN" in checks["record"]["remedy"]
        monkeypatch.setenv("RATCHET_TOKEN", token)
        assert ask()["record"]["status"] == "ok"
