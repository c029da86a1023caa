"""The compose files, as they are written and, where Docker Compose is installed, as it reads them."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.config import Settings
from daemon.roles import Role
from tests.ops.deployed import HOME, OPS, USER, health_port, host_of, run, settings_of, tool

COMPOSE = OPS / "compose"
GIVEN = {"ENGINE_URL": "http://vllm:8000", "MODEL_DIR": "/srv/models/base"}
ROLES = [role.value for role in Role]


def _services(file: str) -> dict[str, Any]:
    found = yaml.safe_load((COMPOSE / file).read_text())["services"]
    assert isinstance(found, dict)
    return found


def _variables(service: dict[str, Any]) -> dict[str, str]:
    written: dict[str, str] = _services("role.yaml")["role"]["environment"] | service.get("environment", {})
    return {name: re.sub(r"\$\{(\w+).*\}", lambda found: GIVEN[found[1]], value) for name, value in written.items()}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_answers_where_its_health_check_asks(role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = _services("roles.yaml")[role]
    settings = settings_of(_variables(service), tmp_path, monkeypatch)
    port = health_port(Role(role), settings)
    assert f"http://127.0.0.1:{port}/healthz" in service["healthcheck"]["test"][-1]
    assert service["command"][:3] == ["run", "--roles", role]
    assert all(f":{port}:{port}" in published for published in service.get("ports", ()))


def test_roles_reach_each_other_by_the_names_of_their_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = _services("roles.yaml")
    settings = {role: settings_of(_variables(services[role]), tmp_path, monkeypatch) for role in ROLES}
    assert {settings[role].store_url for role in ("serve", "learn")} == {"http://record:8401"}
    assert settings["learn"].control_url == "http://serve:8420"
    assert settings["branch"].branching.policy_url == "http://serve:8420"
    assert {settings[role].serving.inference_url for role in ("serve", "learn")} == {GIVEN["ENGINE_URL"]}
    asked = [role for role in ROLES if host_of(Role(role), settings[role]) == "0.0.0.0"]
    assert set(asked) == set(ROLES)
    for role in ROLES:
        assert str(settings[role].home) == HOME
        assert settings[role].kafka.bootstrap == "kafka:9092"


def test_all_roles_in_one_container_answer_prometheus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = _services("compose.yaml")["ratchet"]
    settings = settings_of(_variables(service), tmp_path, monkeypatch)
    asked = {role.value for role in Role if host_of(role, settings) == "0.0.0.0"}
    assert asked == set(service["networks"]["inside"]["aliases"]) == set(_scraped())
    assert f"127.0.0.1:{settings.serving.port}/healthz" in service["healthcheck"]["test"][-1]
    assert service["ports"] == [f"127.0.0.1:{settings.serving.port}:{settings.serving.port}"]


def test_prometheus_asks_each_role_where_it_listens() -> None:
    assert _scraped() == {role.value: health_port(role, Settings()) for role in Role if role is not Role.OTLP}
    run(tool("promtool"), "check", "config", "--syntax-only", COMPOSE / "prometheus.yml")


def _scraped() -> dict[str, int]:
    """The ports of the roles that Prometheus asks, by the names of their containers."""
    found = {}
    for job in yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"]:
        assert job["authorization"] == {"credentials_file": "/run/secrets/metrics_token"}
        for static in job.get("static_configs", ()):
            name, _, port = static["targets"][0].partition(":")
            found[name] = int(port)
        for dns in job.get("dns_sd_configs", ()):
            found[dns["names"][0]] = dns["port"]
        assert job["job_name"] == f"ratchet-{list(found)[-1]}"
    return found


def _compose() -> str:
    command = tool("docker-compose")
    said = subprocess.run([command, "version", "--short"], capture_output=True, text=True).stdout
    if int(said.strip().lstrip("v").split(".")[0]) < 2:
        pytest.skip(f"docker-compose {said.strip()} cannot read `include`: it takes version 2.20")
    return command


@pytest.mark.parametrize("file", ["compose.yaml", "roles.yaml"])
def test_docker_compose_reads_the_files_and_no_container_has_more_than_it_needs(file: str) -> None:
    said = run(_compose(), "-f", COMPOSE / file, "--profile", "*", "config", "--format", "json", **GIVEN)
    project = json.loads(said)
    for name, service in project["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service, name
        assert service["healthcheck"]["test"], name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ())), name
        ours = service["image"].startswith("ratchet")
        assert service.get("read_only", False) or name == "kafka", name
        if ours:
            assert service["user"] == f"{USER}:{USER}", name
            mounted = {volume["target"]: volume for volume in service["volumes"]}
            assert mounted[HOME]["source"] == "home", name
    for secret in project["secrets"].values():
        assert set(secret) == {"name", "file"}


def test_no_password_and_no_token_is_written_down() -> None:
    for file in COMPOSE.rglob("*.y*ml"):
        for line in file.read_text().splitlines():
            if re.search(r"(?i)(password|token|secret)\w*[:=]\s*[^\s$\"{\[|/.]", line.split("#")[0]):
                assert re.search(r"/run/secrets/|secrets: \[|file: \./secrets/", line), f"{file.name}: {line}"
