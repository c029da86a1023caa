"""The client as an agent installs it: its wheel in a fresh environment, with nothing of Ratchet's daemon beside it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops.partial_locks import CLIENT, ROOT, closure
from ratchet_client.events import EVENT, OutcomeEvent, StepEvent
from streams.kafka.settings import KafkaSettings
from tests.builders.published import read

DAEMON = ("streams", "daemon", "learners", "evaluation")
LIST = f"""
import json
from importlib.metadata import distributions
from importlib.util import find_spec

names = sorted(each.metadata["Name"].lower().replace("_", "-") for each in distributions())
print(json.dumps([names, [name for name in {DAEMON} if find_spec(name)]]))
"""
IMPORT_ALL = """
import importlib, pkgutil
import ratchet_client

for module in pkgutil.walk_packages(ratchet_client.__path__, "ratchet_client."):
    importlib.import_module(module.name)
"""
PUBLISH = """
import sys
from ratchet_client.events import Actor, Task
from ratchet_client.producer import Producer

with Producer(sys.argv[1], agent="assistant", principal="tenant/user", topic=sys.argv[2]) as producer:
    episode = producer.episode(Task(environment="shop", task_id="orders/17"), Actor(kind="policy"), "episode-1")
    question = {"role": "user", "content": "Where is my order 17?"}
    assert episode.step([question], {"role": "assistant", "content": "On its way."}, [], done=True)
    assert episode.outcome(verifier="shop", success=True, score=1.0)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the client's wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("agent")
    # Building leaves folders beside the source.
    source = shutil.copytree(
        ROOT / "clients" / "python", folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info")
    )
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("ratchet_client-*.whl")
    subprocess.run([*pip, "--python", python, "install", wheel], check=True)
    return python


def run(python: Path, program: str, *arguments: str) -> str:
    """What the program printed; it finds only what is installed."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RATCHET_"))}
    command = [str(python), "-c", program, *arguments]
    done = subprocess.run(command, cwd=python.parent, env=bare, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


@pytest.mark.slow
def test_an_agent_installs_the_client_kafka_python_and_pydantic_alone(python: Path) -> None:
    installed, of_the_daemon = json.loads(run(python, LIST))
    assert set(installed) == {CLIENT, "kafka-python", *closure(["pydantic"])}
    assert of_the_daemon == []
    run(python, IMPORT_ALL)


@pytest.mark.slow
def test_an_agent_that_has_the_client_alone_publishes_an_episode(python: Path, kafka: KafkaSettings) -> None:
    run(python, PUBLISH, kafka.bootstrap, kafka.events_topic)
    records = read(kafka.bootstrap, kafka.events_topic)
    assert {key for key, _, _ in records} == {b"episode-1"}
    step, outcome = (EVENT.validate_json(value) for _, value, _ in records)
    assert isinstance(step, StepEvent)
    assert isinstance(outcome, OutcomeEvent)
    assert (step.action.text, step.task.task_id, outcome.success) == ("On its way.", "orders/17", True)
