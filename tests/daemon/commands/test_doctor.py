"""`ratchet doctor` over a real broker: what it finds, and how it exits."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from daemon.cli import app
from daemon.commands.memory import check_memory
from daemon.config import DomainSettings, Settings
from daemon.registry.learner_status import LEARNER_FILE, LearnerPhase, LearnerStatus
from ratchet_client.errors import RatchetError
from streams.environments.toolbox.scaffold import write_toolbox
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import free_port


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_base: Path) -> None:
    """A home of its own, a base model and keys; what a test sets comes on top."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "not" / "made" / "yet"))
    monkeypatch.setenv("RATCHET_MODEL", str(tiny_base))
    monkeypatch.setenv("RATCHET_ADMISSION__PRINCIPALS", json.dumps({"ann": "key of ann"}))


def asked(*arguments: str) -> tuple[Result, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(app, ["doctor", "--json", *arguments])
    # Logs come on stdout too where nothing has set them up.
    (answer,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    return done, {check["name"]: check for check in json.loads(answer)["checks"]}


def test_a_sound_installation_has_no_warning_and_nothing_is_made(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("toolboxes") / "todos"
    write_toolbox(folder, "todos", "functions")
    monkeypatch.setenv("RATCHET_DOMAIN__ENVIRONMENT", "toolbox")
    monkeypatch.setenv("RATCHET_BRANCHING__ENVIRONMENTS", json.dumps({"toolbox": {"folder": str(folder)}}))
    monkeypatch.setenv("RATCHET_GATE__MIN_TASKS", "1")
    monkeypatch.setenv("RATCHET_KAFKA__BOOTSTRAP", kafka.bootstrap)
    done, checks = asked()
    assert done.exit_code == 0
    assert list(checks) == [
        "configuration",
        "kafka",
        "retention",
        "authentication",
        "base model",
        "home",
        "store",
        "sandboxes",
        "domain",
        "held-out tasks",
        "memory",
    ]
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert kafka.bootstrap in checks["kafka"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_events_that_are_not_authenticated_are_a_warning_and_exit_with_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RATCHET_ADMISSION__PRINCIPALS")
    done, checks = asked()
    assert done.exit_code == 0
    assert checks["authentication"]["status"] == "warning"
    assert "admission.principals" in checks["authentication"]["remedy"]
    assert "warning" in CliRunner().invoke(app, ["doctor"]).stdout


def test_each_fault_is_an_error_with_a_remedy_and_exits_with_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("ratchet_client.kafka.connection.BOOTSTRAP_TIMEOUT_MS", 300)
    monkeypatch.setenv("RATCHET_KAFKA__BOOTSTRAP", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setenv("RATCHET_MODEL", str(tmp_path / "nothing"))
    done, checks = asked()
    assert done.exit_code == 1
    assert isinstance(done.exception, RatchetError)
    assert "3 of 10 checks failed" in str(done.exception)
    for name in ("kafka", "base model", "home"):
        assert checks[name]["status"] == "error"
        assert checks[name]["remedy"]


def test_a_configuration_that_cannot_be_read_is_the_only_finding(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("sede = 1")
    done, checks = asked("--config", str(tmp_path / "wrong.toml"))
    assert done.exit_code == 1
    assert list(checks) == ["configuration"]
    assert "sede" in checks["configuration"]["message"]


@pytest.mark.parametrize(("available", "status"), [(10**12, "ok"), (10**9, "warning")])
def test_too_little_memory_for_a_training_is_a_warning_that_names_the_settings(
    available: int, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.commands.memory.available_memory", lambda: available)
    settings = Settings(model="smollm2-135m-instruct", domain=DomainSettings(recorded=True)).settled()
    found = check_memory(settings)
    assert found.status == status
    assert f"{available / 1e9:.1f} GB are available" in found.message
    assert ("learner.max_length" in found.remedy) is (status == "warning")


def test_what_a_training_that_runs_has_counts_as_available(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("daemon.commands.memory.available_memory", lambda: 10**9)
    now = datetime.now(UTC)
    training = LearnerStatus(phase=LearnerPhase.TRAINING, since=now, beat_at=now, memory_bytes=9 * 10**9)
    (tmp_path / LEARNER_FILE).write_text(training.model_dump_json())
    settings = Settings(home=tmp_path, model="smollm2-135m-instruct", domain=DomainSettings(recorded=True)).settled()
    assert check_memory(settings).status == "ok"
