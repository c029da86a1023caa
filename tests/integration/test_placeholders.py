"""An episode with secrets, from the log through the store and a sandbox and back: redacted, restored, branched."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet_client.events import Actor, OutcomeEvent, StepEvent, Task
from ratchet_client.messages import assistant, call
from streams.branching.settings import BranchingSettings
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import die_with_parent
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from streams.trust.holdout import HoldoutSettings
from tests.builders.branch_requests import played
from tests.builders.policies import said
from tests.integration.recording import ROOT, Recorder, answers, caught_up, pairs, publisher, read_all
from tests.roles import RoleSettings
from tests.waiting import eventually

EVERYTHING = HoldoutSettings(selection=0.0, confirmation=0.0)
RAW = ("bob@example.com", "carol@example.com", "tr0ub4dor-x9")
ACTIONS = {
    "faulty_post": said("read", "look", "mail bob@example.com"),
    "faulty_mailbox": (
        assistant(None, call("contacts", "{}", "call_1")),
        assistant(None, call("send", '{"to": "carol@example.com"}', "call_2")),
        assistant(None, call("send", '{"to": "bob@example.com"}', "call_3")),
    ),
}


async def events(environment: str) -> list[StepEvent | OutcomeEvent]:
    """An expert's episode as the agent publishes it: nothing is redacted."""
    async with SandboxPool(environment) as pool:
        raw = await played(pool, Task(environment=environment, task_id="mail/train/1"), ACTIONS[environment])
    steps: list[StepEvent | OutcomeEvent] = [
        StepEvent(
            episode_id=environment,
            step=number,
            agent="agent",
            principal="tenant",
            task=raw.task,
            tools=raw.tools(number),
            messages=raw.state(number),
            action=step.action,
            observation=step.observation,
            done=number == len(raw.steps) - 1,
            actor=Actor(kind="expert"),
        )
        for number, step in enumerate(raw.steps)
    ]
    return [*steps, OutcomeEvent(episode_id=environment, verifier="game", success=True, score=1.0)]


def start(settings: RoleSettings) -> subprocess.Popen[bytes]:
    """The branch role as a process."""
    parent = os.getpid()
    return subprocess.Popen(
        [sys.executable, "-m", "tests.roles", "branch", settings.model_dump_json()],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: die_with_parent(parent),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("faulty_environments")
async def test_every_state_of_an_episode_with_secrets_is_branched_and_no_secret_is_published_or_stored(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    recorder = Recorder(kafka, tmp_path / "store.duckdb", EVERYTHING)
    branching = BranchingSettings(policy_url="http://127.0.0.1:9", policy_patience_s=0.1)
    settings = RoleSettings(kafka=kafka, store=recorder.store, holdout=EVERYTHING, branching=branching)
    recorder.start()
    brancher = start(settings)
    published = [event for environment in ACTIONS for event in await events(environment)]
    try:
        async with StoreClient(recorder.url) as client:
            await eventually(lambda: answers(client))
            with publisher(kafka) as publish:
                await asyncio.to_thread(publish, kafka.events_topic, pairs(published))

            async def branched() -> bool:
                counts = await client.query("SELECT count(*) AS states FROM branches")
                return bool(counts["states"][0].as_py() == 6)

            await eventually(branched)
            await eventually(lambda: caught_up(client, kafka, kafka.transitions_topic))
            states = await client.query("SELECT fidelity, count(*) AS states FROM branches GROUP BY fidelity")
            stored = await client.query("SELECT action, observation FROM transitions WHERE origin = 'branch'")
    finally:
        brancher.send_signal(signal.SIGKILL)
        brancher.wait(60)
        recorder.end(signal.SIGKILL)
    assert states.to_pylist() == [{"fidelity": "sandbox_exact", "states": 6}]
    assert "It goes to <EMAIL_" in str(stored.to_pylist())
    results = b"".join(value for value, _ in read_all(kafka, kafka.transitions_topic))
    requests = b"".join(value for value, _ in read_all(kafka, kafka.branches_topic))
    assert requests.count(b"<EMAIL_") > 5
    assert [
        value
        for value in RAW
        for text in (requests, results, str(stored.to_pylist()).encode())
        if value.encode() in text
    ] == []
