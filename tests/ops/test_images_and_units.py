"""The Dockerfile and the systemd unit."""

import re
import shutil
from pathlib import Path

import pytest

from daemon.config import PREFIX, Settings
from ops.partial_locks import ROOT
from tests.ops.deployed import HOME, OPS, USER, run, settings_of, tool

DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = OPS / "systemd" / "ratchet.service"


def test_the_image_has_the_home_the_user_and_the_port_that_deployments_count_on() -> None:
    assert f"RATCHET_HOME={HOME}\n" in DOCKERFILE
    assert f"USER {USER}:{USER}" in DOCKERFILE
    assert f"EXPOSE {Settings().serving.port}\n" in DOCKERFILE
    assert f"http://127.0.0.1:{Settings().serving.port}/healthz" in DOCKERFILE


def test_what_the_image_is_built_from_reaches_the_builder() -> None:
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match("COPY (?!--from)", line)]
    assert copied
    for name in (name for names in copied for name in names):
        assert f"!{name}" in sent
        assert (ROOT / name).exists()


def test_the_dockerfile_has_no_fault_that_hadolint_finds() -> None:
    run(tool("hadolint"), ROOT / "Dockerfile")


def test_the_example_of_the_unit_has_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (OPS / "systemd" / "ratchet.env.example").read_text().splitlines()
    given = dict(line.lstrip("#").split("=", 1) for line in lines if line.lstrip("#").startswith(PREFIX))
    assert len(given) >= 4
    settings = settings_of(given, tmp_path, monkeypatch)
    assert settings.kafka.replication == 3
    assert f"RATCHET_HOME={HOME} " in UNIT.read_text()


def test_the_unit_is_exposed_little(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    # It judges a unit by the name of its file.
    unit = Path(shutil.copy(UNIT, tmp_path / "ratchet.service"))
    run(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", unit)
